"""What mohge-sweep says and writes, with workers that do what a test wants."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from mohge.apps import sweep
from mohge.sweep.attempts import CellFolder, claimed
from mohge.sweep.cells import read_plan, write_plan
from mohge.sweep.worker import Job

ARGUMENTS = (
    "~sweep.arms",
    "+sweep.arms={moe:['arch=moe'],mohge:['arch=mohge']}",
    "~sweep.contrasts",
    "logger=csv",
)


class Done:
    """Workers that have ended, and some of them with these sentences."""

    outlive = False
    alive = False

    def __init__(self, *sentences: str) -> None:
        self._sentences = sentences

    def failed(self) -> list[str]:
        return list(self._sentences)

    def place(self) -> str:
        return "nowhere"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls mohge-sweep in a folder, with workers that are started by a function; returns the exit status."""

    def call(launch: Callable[[Job], Done], *more: str) -> int:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sweep, "launched", lambda config, job: launch(job))
        monkeypatch.setattr(sys, "argv", ["mohge-sweep", *ARGUMENTS, f"paths.run_dir={tmp_path}", *more])
        try:
            sweep.main()
        except SystemExit as left:
            return int(left.code or 0)
        finally:
            GlobalHydra.instance().clear()
        return 0

    return call


def finish(job: Job, *only: int) -> Done:
    """All cells, or those of some seeds, are finished, with as many bits per byte as their seed."""
    for cell in job.cells:
        if only and cell.seed not in only:
            continue
        files = CellFolder(Path(job.folder) / "cells", cell.id)
        files.run.write_json("config.yaml", {})
        files.run.write_json("budget.json", {"parameters": {"total": 1}})
        files.run.update_status(state="finished", last={"val/bits_per_byte": cell.seed})
        with claimed(files, job.invocation) as claim:
            assert claim is not None
            claim.note("end", 0)
    return Done()


def test_a_worker_that_failed_is_told_and_the_sweep_is_not_done(command, capsys):
    def fail(job: Job) -> Done:
        finish(job, 1)
        return Done("worker 77 ended with status 2")

    assert command(fail) == 1
    printed = capsys.readouterr()
    assert "\nworker 77 ended with status 2\n" in printed.out
    assert "error: 2 finished, 2 waiting of 4 cells; continue with mohge-sweep " in printed.err
    assert command(finish) == 0
    assert "worker 77" not in capsys.readouterr().out


def test_the_command_that_continues_finds_the_same_presets(command, capsys, tmp_path, monkeypatch):
    (tmp_path / "presets" / "arch").mkdir(parents=True)
    text = Path("conf/arch/moe.yaml").read_text(encoding="utf-8")
    (tmp_path / "presets" / "arch" / "mine.yaml").write_text(text, encoding="utf-8")
    mine = ("+sweep.arms.mine=['arch=mine']", "--config-dir", str(tmp_path / "presets"))
    assert command(lambda job: finish(job, 1), *mine) == 1
    again = shlex.split(capsys.readouterr().err.partition("continue with mohge-sweep ")[2])
    monkeypatch.setattr(sys, "argv", ["mohge-sweep", *again, "show=true"])
    sweep.main()
    assert "│ mine " in capsys.readouterr().out


def test_a_shorter_command_tells_what_it_leaves_out(command, capsys, tmp_path):
    command(finish)
    capsys.readouterr()
    assert command(finish, "sweep.seeds=[2]") == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert told.endswith(
        "not in this plan, 2 of them finished: they stay as they are (moe seed 1; mohge seed 1)"
    )
    assert read_plan(tmp_path).seeds == [2]
    assert read_plan(tmp_path, "sweep.before.json").seeds == [1, 2]


def test_the_means_are_those_of_the_plan_beside_them(command, tmp_path):
    """Of two commands the one that began last has written the plan, whichever ends last."""

    def meanwhile(job: Job) -> Done:
        finish(job)
        plan = read_plan(tmp_path)
        of_one = [cell for cell in plan.cells if (cell.arm, cell.seed) == ("mohge", 2)]
        arms = {"mohge": plan.arms["mohge"]}
        write_plan(tmp_path, type(plan)(plan.name, "mohge", [2], plan.overrides, arms, {}, of_one))
        return Done()

    assert command(meanwhile) == 0
    compared = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert compared["baseline"] == "mohge"
    assert {arm: run["validation"]["bits_per_byte"] for arm, run in compared["runs"].items()} == {"mohge": 2}
