import json

import pytest
from fabricated_runs import train_config, write_run

from evaluation.comparison import compare
from mohge.budget import budget
from mohge.errors import UserError


@pytest.fixture
def runs(tmp_path):
    return {arch: write_run(tmp_path / arch, f"arch={arch}") for arch in ("mohge", "moe", "dense")}


def test_the_result_holds_the_runs_own_figures(runs, tmp_path):
    result = compare(runs, "moe", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == result
    mohge = result["runs"]["mohge"]
    expected = budget(train_config("arch=mohge")).as_dict()
    last = json.loads((runs["mohge"] / "metrics.jsonl").read_text().splitlines()[-1])
    assert mohge["parameters"] == expected["parameters"]
    assert mohge["active_parameters"]["expected"] == expected["active_parameters"]["expected"]
    assert mohge["active_parameters"]["measured"] == last["val/routing/active_parameters"]
    assert mohge["validation"]["bits_per_byte"] == last["val/bits_per_byte"]
    assert mohge["validation"]["bits_per_byte_by_domain"] == {"code": last["val/bits_per_byte/code"]}
    assert mohge["tokens"] == last["tokens"]
    assert [group["width"] for group in mohge["groups"]] == [48, 80, 112, 144]
    assert sum(group["share_of_rows"] for group in mohge["groups"]) == pytest.approx(1)
    moe_total = budget(train_config("arch=moe")).parameters.total
    assert mohge["fewer_parameters"] == pytest.approx(1 - expected["parameters"]["total"] / moe_total)
    assert result["runs"]["moe"]["fewer_parameters"] == 0


def test_one_table_says_it_all(runs, tmp_path, capsys):
    compare(runs, "moe", tmp_path / "out")
    printed = capsys.readouterr().out
    assert printed.count("┏") == 1
    assert "moe (baseline)" in printed
    for label in ("total parameters", "expected", "measured", "bits per byte", "tokens per second"):
        assert label in printed
    assert "144: " in printed
    assert "mohge has 19.7% fewer parameters than moe (3,189,888 against 3,974,272)." in printed
    assert "not finished" not in printed
    assert "not comparable" not in printed


def test_a_dense_run_measures_what_it_expects(runs, tmp_path):
    dense = compare(runs, "moe", tmp_path / "out")["runs"]["dense"]
    assert dense["active_parameters"]["measured"] == dense["active_parameters"]["expected"]
    assert dense["groups"] == []


def test_unequal_or_unfinished_runs_are_told(runs, tmp_path, capsys):
    short = write_run(tmp_path / "short", "arch=mohge", steps=100)
    (short / "status.json").write_text('{"state": "interrupted"}')
    compare({"moe": runs["moe"], "short": short}, "moe", tmp_path / "out")
    printed = capsys.readouterr().out
    assert "short and moe saw different numbers of tokens: not comparable." in printed
    assert "short is interrupted, not finished." in printed


def test_what_was_not_recorded_is_said_so(tmp_path, capsys):
    run = write_run(tmp_path / "run", "arch=mohge", "callbacks.routing=null", steps=40)
    result = compare({"run": run}, "run", tmp_path / "out")
    assert result["runs"]["run"]["active_parameters"]["measured"] is None
    assert result["runs"]["run"]["validation"]["bits_per_byte"] is None
    assert "not recorded" in capsys.readouterr().out


def test_a_baseline_that_is_no_run_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="baseline=mixtral is not among the runs: choose one of mohge, moe"):
        compare(runs, "mixtral", tmp_path / "out")


def test_a_damaged_run_leaves_no_result(runs, tmp_path):
    (runs["moe"] / "budget.json").unlink()
    with pytest.raises(UserError, match=r"moe/budget\.json is missing"):
        compare(runs, "moe", tmp_path / "out")
    assert not (tmp_path / "out").exists()
