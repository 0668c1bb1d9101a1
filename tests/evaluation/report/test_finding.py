import pytest
from fabricated_runs import write_run

from evaluation.report.finding import find_runs
from mohge.errors import UserError
from mohge.sweep.cells import Cell, Plan, write_plan


@pytest.fixture
def outputs(tmp_path):
    for path in ("quickstart/one/mohge", "quickstart/one/moe", "nano-moe/two"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "config.yaml").write_text("seed: 1\n")
        (tmp_path / path / "status.json").write_text("{}")
    artifacts = tmp_path / "mlflow_artifacts/d142a0e3/artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "config.yaml").write_text("seed: 1\n")  # a copy, which is no run
    (tmp_path / "quickstart/one/config.yaml").write_text("comparison: {arms: {mohge: [], moe: []}}\n")
    (tmp_path / "nano-moe/two/checkpoints").mkdir()
    return tmp_path


def test_all_runs_below_a_folder_are_found_once(outputs):
    found = find_runs([str(outputs), str(outputs / "nano-moe")])
    assert list(found) == ["nano-moe/two", "quickstart/one/moe", "quickstart/one/mohge"]
    assert found["nano-moe/two"] == outputs / "nano-moe/two"


def test_arms_of_a_comparison_have_their_own_names(outputs):
    assert list(find_runs([str(outputs / "quickstart/one")])) == ["moe", "mohge"]


def test_one_run_is_named_by_its_folder_and_the_one_above(outputs):
    assert list(find_runs([str(outputs / "nano-moe/two")])) == ["nano-moe/two"]


def test_runs_keep_the_order_given(outputs):
    given = [str(outputs / "quickstart/one/mohge"), str(outputs / "nano-moe/two")]
    assert list(find_runs(given)) == ["quickstart/one/mohge", "nano-moe/two"]


@pytest.fixture
def sweep(outputs):
    """A sweep beside the other runs, with a cell of a plan that is no more."""
    folder = outputs / "sweeps/smoke"
    for name in ("107ec0c2c0e976ac", "77beda4fb1bb4b59", "of_an_earlier_pl"):
        (folder / "cells" / name).mkdir(parents=True)
        (folder / "cells" / name / "config.yaml").write_text("seed: 1\n")
        (folder / "cells" / name / "status.json").write_text("{}")
    cells = [
        Cell(id, arm, seed=seed, name="", steps=1, overrides=[])
        for id, arm, seed in (("77beda4fb1bb4b59", "moe", 1), ("107ec0c2c0e976ac", "mohge lr=0.1", 2))
    ]
    write_plan(folder, Plan("smoke", "moe", [1, 2], [], {}, {}, cells))
    return folder


def test_runs_of_a_sweep_are_named_by_arm_and_seed(outputs, sweep):
    found = find_runs([str(outputs)])
    assert found["sweeps/smoke/mohge lr=0.1-seed2"] == sweep / "cells/107ec0c2c0e976ac"
    assert found["sweeps/smoke/moe-seed1"] == sweep / "cells/77beda4fb1bb4b59"
    assert "…/smoke/cells/of_an_earlier_pl" in found
    assert list(find_runs([str(sweep)])) == ["mohge lr=0.1-seed2", "moe-seed1", "cells/of_an_earlier_pl"]
    assert list(find_runs([str(sweep / "cells/77beda4fb1bb4b59")])) == ["smoke/moe-seed1"]


def test_runs_of_a_sweep_with_a_damaged_plan_are_named_by_their_folders(sweep):
    (sweep / "sweep.json").write_text("{")
    found = find_runs([str(sweep)])
    assert found["77beda4fb1bb4b59"] == sweep / "cells/77beda4fb1bb4b59"


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        (["nowhere"], "runs=nowhere is no folder"),
        (["empty"], "runs=empty holds no run"),
        ([], "names no folder"),
    ],
)
def test_what_holds_no_run_is_refused(tmp_path, monkeypatch, given, fragment):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=fragment):
        find_runs(given)


def test_a_run_with_a_damaged_configuration_is_still_found(tmp_path):
    folder = write_run(tmp_path / "run", "arch=dense", steps=10)
    (folder / "config.yaml").write_text("{")
    assert list(find_runs([str(tmp_path)]).values()) == [folder]
