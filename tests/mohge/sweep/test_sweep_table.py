"""The table and the line of a sweep tell what its folders hold."""

from __future__ import annotations

import dataclasses
import datetime
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from mohge.apps.output import FILE_WIDTH
from mohge.sweep.attempts import CellFolder, claimed
from mohge.sweep.cells import Cell, Plan
from mohge.sweep.progress import look
from mohge.sweep.results import side_by_side
from mohge.sweep.table import Display, summary, table


def cell(arm: str, seed: int) -> Cell:
    return Cell(f"{arm}{seed}", arm, seed, f"nano-{arm}-seed{seed}", 100, [])


PLAN = Plan(
    name="mine",
    baseline="moe",
    seeds=[1, 2],
    overrides=[],
    arms={"moe": {}, "mohge": {}, "same": {}},
    contrasts={},
    cells=[
        *(cell(arm, seed) for seed in (1, 2) for arm in ("moe", "mohge")),
        *(Cell(f"moe{seed}", "same", seed, "", 100, []) for seed in (1, 2)),
    ],
)


def write(folder: Path, name: str, attempts: list[tuple[str, int, int | None]], **status: object) -> None:
    """A cell's folder, with attempts at these seconds past noon."""
    cells = folder / "cells"
    (cells / name).mkdir(parents=True)
    (cells / name / "status.json").write_text(json.dumps(status))
    (cells / name / "budget.json").write_text(json.dumps({"parameters": {"total": 1000}}))
    lines = [
        {
            "event": event,
            "worker": "a:1",
            "invocation": "x",
            "status": code,
            "reason": "too dark" if code else None,
        }
        | {"time": datetime.datetime(2026, 1, 31, 12, 0, second, tzinfo=datetime.UTC).isoformat()}
        for event, second, code in attempts
    ]
    (cells / f"{name}.attempts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    last = {"speed/tokens_per_second": 1500.0, "val/bits_per_byte": 2.5}
    best = {"val/bits_per_byte": 2.4, "step": 90}  # a validation on the way, which no result is
    write(
        tmp_path,
        "moe1",
        [("start", 0, None), ("end", 20, 0)],
        state="finished",
        step=100,
        best=best,
        last=last,
    )
    write(tmp_path, "mohge1", [("start", 0, None), ("end", 5, 1)], state="failed", step=10)
    write(tmp_path, "moe2", [("start", 0, None), ("end", 10, None)], state="interrupted", step=25)
    return tmp_path


def shown(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=FILE_WIDTH)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_every_cell_is_in_its_state(folder):
    progress = look(folder, PLAN)
    assert {name: found.state for name, found in progress.cells.items()} == {
        "moe1": "finished",
        "mohge1": "failed",
        "moe2": "stopped",
        "mohge2": "waiting",
    }
    with claimed(CellFolder(folder / "cells", "moe2"), "now"):
        assert look(folder, PLAN).cells["moe2"].state == "running"
    assert progress.cells["mohge1"].reason == "too dark"
    assert progress.counts() == "1 finished, 1 failed, 1 stopped, 1 waiting"


def test_what_is_left_takes_as_long_as_what_is_done_did(folder):
    progress = look(folder, PLAN)
    # moe: 0.2 s and 0.4 s a step, 75 steps are left; mohge: 0.5 s a step, 100 are left. mohge1 has failed.
    assert progress.seconds_left == pytest.approx(75 * 0.3 + 100 * 0.5)
    assert progress.share == pytest.approx((100 + 10 + 25) / 400)
    with (
        claimed(CellFolder(folder / "cells", "moe2"), "now"),
        claimed(CellFolder(folder / "cells", "mohge2"), "now"),
    ):
        assert look(folder, PLAN).seconds_left == pytest.approx((75 * 0.3 + 100 * 0.5) / 2)


def test_a_cell_that_was_cut_off_goes_on_at_the_pace_it_recorded(folder):
    """What it had done before it was killed would otherwise count as done since it went on."""
    recorded = {"speed/seconds_per_step": 0.7}
    killed = [("start", 0, None), ("start", 30, None), ("end", 31, None)]
    write(folder, "mohge2", killed, state="interrupted", step=90, last=recorded)
    progress = look(folder, PLAN)
    assert progress.cells["mohge2"].pace == 0.7
    assert progress.seconds_left == pytest.approx(75 * 0.3 + 10 * (0.7 + 0.5) / 2)


@pytest.mark.parametrize("attempts", [[], [("end", 5, 0)]])
def test_a_run_that_was_copied_here_took_what_it_recorded(folder, attempts):
    """Its log of attempts has stayed where it was trained: it did not take no time at all."""
    recorded = {"speed/seconds_per_step": 0.7}
    write(folder, "mohge2", attempts, state="finished", step=100, last=recorded)
    progress = look(folder, PLAN)
    assert progress.cells["mohge2"].pace == 0.7
    assert progress.seconds_left == pytest.approx(75 * 0.3)


def test_an_end_that_another_worker_noted_later_is_not_when_the_run_ended(folder):
    recorded = {"speed/seconds_per_step": 0.7}
    write(folder, "mohge2", [("start", 0, None), ("end", 59, 0)], state="finished", step=100, last=recorded)
    log = folder / "cells" / "mohge2.attempts.jsonl"
    start, end = log.read_text().splitlines(keepends=True)
    log.write_text(start + end.replace("a:1", "b:2"))
    assert look(folder, PLAN).cells["mohge2"].pace == 0.7


def test_clocks_that_differ_make_no_pace_below_nothing(folder):
    """Another host has continued the run, whose clock is behind."""
    write(folder, "mohge2", [("start", 30, None), ("end", 20, None)], state="interrupted", step=10)
    assert look(folder, PLAN).cells["mohge2"].pace == 0


def test_a_damaged_status_is_a_failure_in_a_table_of_the_others(folder):
    (folder / "cells" / "moe2" / "status.json").write_text("")
    progress = look(folder, PLAN)
    assert progress.cells["moe2"].state == "failed"
    assert progress.cells["moe2"].reason.endswith(
        "moe2/status.json is damaged: delete it, and the run continues without it"
    )
    assert "1 finished, 2 failed, 1 waiting" in summary(progress)


def test_the_table_has_a_row_for_each_arm(folder):
    lines = {
        line.split("│")[1].split()[0]: line
        for line in shown(table(PLAN, look(folder, PLAN))).splitlines()
        if "│" in line
    }
    cells = {name: [part.strip() for part in line.split("│")[1:-1]] for name, line in lines.items()}
    assert cells["moe"] == ["moe (baseline)", "2.5000", "stopped", "125/200", "1,500", "2.5000"]
    assert cells["mohge"] == ["mohge", "failed", "waiting", "10/200", "", ""]
    assert cells["same"][1:] == cells["moe"][1:]


def test_a_file_has_room_for_names_of_arms(tmp_path):
    """Beside three seeds and thousands of steps: a name in two lines could not be copied or searched for."""
    arms = {"moe": {}, "mohge_no_group_loss lr=0.001": {}}
    cells = [Cell(f"{arm}{seed}", arm, seed, "", 2442, []) for arm in arms for seed in (1, 2, 3)]
    plan = dataclasses.replace(PLAN, seeds=[1, 2, 3], arms=arms, cells=cells)
    assert "│ mohge_no_group_loss lr=0.001 │ waiting │" in shown(table(plan, look(tmp_path, plan)))


def test_the_line_tells_counts_and_the_end(folder):
    with claimed(CellFolder(folder / "cells", "moe2"), "now"):
        line = summary(look(folder, PLAN))
    assert line.startswith("1 finished, 1 running, 1 failed, 1 waiting; 33% of all steps; done at about ")
    assert line.endswith("in 0:01:12")


def test_where_nothing_is_known_yet_no_end_is_promised(tmp_path):
    assert summary(look(tmp_path, PLAN)) == "4 waiting; 0% of all steps"


def test_elsewhere_than_on_a_terminal_each_change_is_a_line(folder):
    console = Console(file=io.StringIO(), width=FILE_WIDTH)
    with Display(folder, PLAN, console) as display:
        display.update()
        with claimed(CellFolder(folder / "cells", "mohge2"), "now") as claim:
            display.update()
            claim.note("start")
            claim.note("end", 1, "no more light")
        display.update()
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[:2] == ["mohge seed 2: running at step 0 of 100", "mohge seed 2: failed: no more light"]
    assert "Sweep mine" in lines[2]


def test_on_a_terminal_one_table_stays(folder):
    console = Console(file=io.StringIO(), width=FILE_WIDTH, force_terminal=True)
    with Display(folder, PLAN, console) as display:
        display.update()
        display.update()
    assert "Sweep mine" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 finished, 1 failed" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_arms_side_by_side(folder):
    assert side_by_side(folder, PLAN, look(folder, PLAN)) == {
        "baseline": "moe",
        "runs": {
            arm: {
                "seeds": 1,
                "validation": {"bits_per_byte": 2.5},
                "parameters": {"total": 1000},
                "tokens_per_second": 1500,
            }
            for arm in ("moe", "same")
        },
    }
