"""Folders of sweeps and the compact table: what is read, what is refused, and that both say the same."""

from __future__ import annotations

import json
import shutil

import pytest
from invented_sweeps import write_plan

from evaluation.run_data import read_object
from evaluation.sweeps.plan import parse_plan
from evaluation.sweeps.reading import read_study
from evaluation.sweeps.storing import FORMAT, save_study
from mohge.budget import budget
from mohge.errors import UserError
from mohge.sweep.attempts import CellFolder, claimed
from mohge.sweep.cells import Cell as SweepCell
from mohge.sweep.cells import Plan as SweepPlan
from mohge.sweep.cells import write_plan as write_real_plan
from mohge.training.run_folder import RunFolder


def test_a_cell_has_the_figures_of_its_run(sweep):
    cell = read_study(str(sweep)).of("mohge")[2]
    assert cell.figures["bits_per_byte"] == 2.13
    assert cell.figures["bits_per_byte/code"] == pytest.approx(2.03)
    assert cell.figures["tokens"] == 100 * 4096
    assert cell.figures["seconds"] == 10  # 100 steps of 0.1 s
    assert cell.figures["train_loss"] == pytest.approx(4.26)  # of the last tenth alone
    assert cell.figures["share/0"] == 0.25
    assert cell.figures["mean_width"] == (48 + 80 + 112 + 144) / 4
    assert cell.figures["idle_experts"] == 0
    # Two of 16 experts on each of 8 ranks, all as busy: 48 + 144 is 80 + 112, and 144 + 144 is half above.
    busiest = {name: cell.figures[f"busiest_rank/{name}"] for name in ("all_size", "pairs", "contiguous")}
    assert busiest == {"all_size": 1, "pairs": 1, "contiguous": 1.5}
    assert cell.texts["widths"] == "48 80 112 144"
    assert cell.texts["revision"] == "a3cd300aa5"


def test_a_dense_model_uses_all_that_it_has(sweep):
    figures = read_study(str(sweep)).of("dense")[1].figures
    assert figures["active_measured"] == figures["active_expected"] == figures["total_parameters"]
    assert figures["flops_measured"] == figures["flops_expected"]
    assert "idle_experts" not in figures


def test_data_tells_orders_apart_but_not_seeds_and_archs(sweep, tmp_path):
    study = read_study(str(sweep))
    assert len({cell.texts["data"] for cell in study.cells}) == 1
    copy = shutil.copytree(sweep, tmp_path / "copy")
    cell = study.of("moe")[1]
    (copy / "cells" / cell.id / "data.json").write_text(json.dumps({"fingerprint": "other"}))
    assert read_study(str(copy)).of("moe")[1].texts["data"] != cell.texts["data"]


def test_arms_that_differ_in_one_number_are_a_family(sweep):
    (family,) = read_study(str(sweep)).families
    assert family.key == "loss.group_weight"
    assert [arm for _, arm in family.levels] == ["none", "mohge", "much"]


def test_the_table_says_what_the_folder_says(sweep, tmp_path):
    study = read_study(str(sweep))
    files = save_study(study, tmp_path / "study.csv")
    assert [path.name for path in files] == ["study.csv", "study.json", "study.curves.csv"]
    assert read_study(str(tmp_path / "study.csv")) == study
    again = save_study(read_study(str(files[0])), tmp_path / "again/study.csv")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in files]


def test_every_way_of_not_being_finished_is_told(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    study = read_study(str(copy))
    cells = copy / "cells"
    ids = {(cell.arm, cell.seed): cell.id for cell in study.cells}

    def leave(arm: str, seed: int, state: str, *ends: tuple[int | None, str] | None) -> None:
        """A run in a state, after attempts that ended so, or whose worker was killed."""
        run = cells / ids[arm, seed]
        (run / "status.json").write_text(json.dumps({"state": state, "error": "a loss of -inf"}))
        with claimed(CellFolder(cells, run.name), "first") as claim:
            assert claim is not None
            for end in ends:
                claim.note("start")
                if end is not None:
                    claim.note("end", *end)

    failed = (1, "a loss\n of NaN")
    leave("moe", 1, "failed", failed)
    leave("moe", 2, "running", None)
    (cells / ids["moe", 3] / "budget.json").unlink()
    leave("mohge", 1, "failed", (2, "no corpus /home/me/corpus.txt"))
    shutil.rmtree(cells / ids["mohge", 1])
    leave("mohge", 2, "running", (-9, "killed by SIGKILL, perhaps for lack of memory (dmesg tells)"))
    leave("mohge", 3, "failed", failed, (None, "interrupted"))
    leave("none", 1, "failed", failed, None)
    leave("none", 2, "failed", failed)
    (cells / ids["none", 3] / "status.json").write_text('{"sta')
    leave("much", 1, "failed", failed, (0, ""))
    (cells / ids["much", 1] / "status.json").write_text('{"state": "finished"}')
    with claimed(CellFolder(cells, ids["none", 2]), "retrying") as claim:
        found = {(one.arm, one.seed): (one.state, one.reason) for one in read_study(str(copy)).unfinished}
        assert claim is not None
    assert found["moe", 1] == ("failed", "a loss of NaN")
    assert found["moe", 2] == ("not finished", "")
    assert found["moe", 3][0] == "damaged"
    assert found["moe", 3][1].startswith(f"cells/{ids['moe', 3]}/budget.json is missing")
    assert found["mohge", 1] == ("failed", "no corpus corpus.txt")
    assert found["mohge", 2] == ("failed", "killed by SIGKILL, perhaps for lack of memory (dmesg tells)")
    assert found["mohge", 3] == found["none", 1] == found["none", 2] == ("not finished", "")
    assert found["none", 3][0] == "failed"
    assert found["none", 3][1].startswith(f"cells/{ids['none', 3]}/status.json is damaged: delete it")
    assert ("much", 1) not in found
    assert found["dense", 3] == ("not finished", "")


def test_a_run_has_the_revisions_that_continued_it(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    run = RunFolder(copy / "cells" / read_study(str(copy)).of("moe")[1].id)
    for revision, dirty in (("a3cd300aa5b8c1", False), ("0123456789abcd", True), ("0123456789abcd", True)):
        run.add_resume(
            {"overrides": [], "environment": {"git": {"revision": revision, "dirty": dirty}, "python": "3"}}
        )
    run.add_resume({"overrides": [], "environment": {"git": None}})
    assert read_study(str(copy)).of("moe")[1].texts["revision"] == "a3cd300aa5 0123456789+"
    assert read_study(str(copy)).of("moe")[2].texts["revision"] == "a3cd300aa5"


def test_matched_widths_and_their_difference_are_kept(sweep, tmp_path):
    copy = shutil.copytree(sweep, tmp_path / "copy")
    path = copy / "cells" / read_study(str(copy)).of("moe")[1].id / "config.yaml"
    text = path.read_text()
    assert "  by: null\n" in text
    path.write_text(
        text.replace("  by: null\n", "  by: total\n").replace("difference: null", "difference: 0.001")
    )
    cell = read_study(str(copy)).of("moe")[1]
    assert cell.texts["match"] == "total of mohge"
    assert cell.figures["match_difference"] == 0.001


def test_expected_figures_are_the_plans(sweep):
    from fabricated_runs import train_config

    planned = budget(train_config("model=nano", "arch=moe"))
    figures = read_study(str(sweep)).of("moe")[1].figures
    assert figures["total_parameters"] == planned.parameters.total
    assert figures["flops_expected"] == planned.flops_per_token.train


REFUSED = {
    "nowhere": "sweep=.*nowhere is no sweep",
    "empty": "sweep=.*empty is no sweep: give the folder of mohge-sweep",
    "gone.csv": "gone.csv does not exist",
    "bare.csv": "bare.json is missing: it belongs beside bare.csv",
    "curveless.csv": "curveless.curves.csv is missing: it belongs beside curveless.csv",
    "columns.csv": "columns.csv has no column id",
    "words.csv": "words.csv is damaged .the row of moe seed 1",
    "arms.csv": "arms.csv has the arm other, which arms.json lacks",
    "latin.csv": "latin.csv cannot be read as a table .*codec",
    "quote.csv": "quote.csv cannot be read as a table .unexpected end of data",
    "short.csv": "short.csv is damaged .the row of moe seed 1 has not as many columns",
    "inf.csv": "inf.csv is damaged .the row of moe seed 1",
    "twice.csv": "twice.csv has moe seed 1 twice",
    "plan.csv": "plan.json is damaged: make it again",
    "format": "has format 7, not mohge-sweep-1",
    "unknown": "names the arm x, which it does not have: choose of moe",
    "list": "sweep.json is damaged .it holds no object",
    "null": "sweep.json is damaged .it holds no object",
    "planned_twice": "sweep.json has moe seed 1 twice: run mohge-sweep again",
    "begun": "has no finished cell .moe seed 1: not finished.: run mohge-sweep first",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_sweep_is_refused(name, sweep, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, text in (("format", '{"format": 7}'), ("list", "[]"), ("null", "null")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "sweep.json").write_text(text)
    write_plan(tmp_path / "planned_twice", {"moe": {"overrides": []}}, [1], baseline="moe")
    planned = json.loads((tmp_path / "planned_twice/sweep.json").read_text())
    (tmp_path / "planned_twice/sweep.json").write_text(json.dumps({**planned, "cells": planned["cells"] * 2}))
    write_plan(tmp_path / "unknown", {"moe": {"overrides": []}}, [1], baseline="x")
    write_plan(tmp_path / "begun", {"moe": {"overrides": []}}, [1], baseline="moe")
    table, plan, curves = save_study(read_study(str(sweep)), tmp_path / "study.csv")
    for stem in ("columns", "words", "arms", "latin", "quote", "short", "inf", "twice", "plan", "curveless"):
        shutil.copy(plan, tmp_path / f"{stem}.json")
        shutil.copy(curves, tmp_path / f"{stem}.curves.csv")
    text = table.read_text()
    (tmp_path / "curveless.csv").write_text(text)
    (tmp_path / "curveless.curves.csv").unlink()
    (tmp_path / "bare.csv").write_text(text)
    (tmp_path / "columns.csv").write_text(text.replace("id,", "it,", 1))
    (tmp_path / "words.csv").write_text(text.replace(",409600,", ",many,", 1))
    (tmp_path / "arms.csv").write_text(text.replace("moe,1,", "other,1,", 1))
    (tmp_path / "latin.csv").write_bytes(text.replace("moe,1,", "mo\xe9,1,", 1).encode("latin-1"))
    (tmp_path / "quote.csv").write_text(text + '"moe,1')
    head, first, *rest = text.splitlines()
    (tmp_path / "short.csv").write_text("\n".join([head, first.rpartition(",")[0], *rest]))
    (tmp_path / "inf.csv").write_text(text.replace(",409600,", ",inf,", 1))
    (tmp_path / "twice.csv").write_text("\n".join([head, first, first, *rest]))
    (tmp_path / "plan.csv").write_text(text)
    (tmp_path / "plan.json").write_text(json.dumps({"format": FORMAT, "plan": []}))
    with pytest.raises(UserError, match=REFUSED[name]):
        read_study(str(tmp_path / name))


def test_the_plan_that_mohge_sweep_writes_is_read_without_paths(tmp_path):
    planned = [SweepCell("0" * 16, "moe", 1, "nano-moe-seed1", 10, ["arch=moe", "seed=1"])]
    overrides = ["paths.output_dir=/home/me", "model=nano"]
    arms = {
        "moe": {"overrides": ["arch=moe"], "factors": {}},
        "lr=1": {"overrides": [], "factors": {}, "of": "moe"},
    }
    write_real_plan(
        tmp_path, SweepPlan("real", "moe", [1], overrides, arms, {"it": [["lr=1", "moe"]]}, planned)
    )
    path = tmp_path / "sweep.json"
    plan = parse_plan(read_object(path), path)
    assert (plan.name, plan.seeds, plan.overrides) == ("real", [1], ["model=nano"])
    assert plan.contrasts == {"it": [("lr=1", "moe")]}
    assert (plan.cells[0].id, plan.arms["lr=1"].of) == ("0" * 16, "moe")
