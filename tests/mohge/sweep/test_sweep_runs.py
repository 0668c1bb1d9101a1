"""mohge-sweep from end to end: every cell is done once, whatever happens to it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from forked_sweep import Sweep
from tiny_runs import read_metrics, tiny_run, write_corpus

from mohge.sweep.attempts import CellFolder
from mohge.sweep.cells import read_plan
from mohge.training.checkpoint import read_tensors
from mohge.training.checkpoint_names import list_checkpoints

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("MOHGE_TEST_SWEEP_KILLS", "3"))
STEPS = 40
ARMS = "moe:['arch=moe','experts.widths=[12]'],mohge:['arch=mohge','experts.widths=[8,16]']"
MOMENTS = ("one worker", "the command", "all at once", "a cell", "worker asked", "command asked")
ENDS = (0, 1, 143, -signal.SIGTERM, -signal.SIGKILL)  # asked to stop, it may not have begun to listen


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    write_corpus(folder / "texts")
    return folder


def arguments(place: Path, folder: str, *more: str) -> list[str]:
    plan = ("sweep.name=tiny", "~sweep.arms", f"+sweep.arms={{{ARMS}}}", "sweep.baseline=moe")
    of_each = ("experts.widths", "router.group_top_k")
    tiny = [item for item in tiny_run(place / "texts", place / "cache") if not item.startswith(of_each)]
    lengths = (f"trainer.max_steps={STEPS}", "trainer.checkpoint_every=5", "trainer.val_every=20")
    empty = ("~sweep.overrides", "~sweep.contrasts")
    return [*plan, *empty, *tiny, *lengths, "workers=2", f"paths.run_dir={folder}", *more]


@pytest.fixture(scope="module")
def unbroken(place: Path) -> Path:
    """A sweep that nobody disturbs; two commands share it."""
    both = [Sweep(arguments(place, "unbroken", "workers=1"), place) for _ in range(2)]
    for sweep in both:
        finished = sweep.wait()
        assert finished.status == 0, finished.stdout
    return place / "unbroken"


def attempts(folder: Path) -> dict[str, list[tuple[str, int | None]]]:
    return {
        cell.id: [(a.event, a.status) for a in CellFolder(folder / "cells", cell.id).attempts()]
        for cell in read_plan(folder).runs
    }


def results(folder: Path, cell: str) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """The records and the final weights of a run."""
    run = folder / "cells" / cell
    return read_metrics(run), read_tensors(list_checkpoints(run / "checkpoints")[-1], "")


def test_two_commands_share_a_sweep_and_train_every_cell_once(unbroken):
    assert list(attempts(unbroken).values()) == [[("start", None), ("end", 0)]] * 4
    for cell in read_plan(unbroken).runs:
        run = unbroken / "cells" / cell.id
        assert [row["step"] for row in read_metrics(run)] == list(range(1, STEPS + 1))
        assert json.loads((run / "status.json").read_text())["seed"] == cell.seed
    compared = json.loads((unbroken / "comparison.json").read_text())
    assert {name: run["seeds"] for name, run in compared["runs"].items()} == {"moe": 2, "mohge": 2}


def test_another_plan_keeps_what_is_done_and_lists_what_fails_with_the_command_that_tries_it_again(
    unbroken, place
):
    before = attempts(unbroken)
    other = arguments(place, "unbroken", "+sweep.arms.wild=['optim.lr=1e30']", "sweep.seeds=[2]")
    finished = Sweep(other, place).wait()
    assert finished.status == 1
    assert "2 more runs" in finished.stdout  # of seed 1
    assert "became nan" in finished.stdout.partition("wild seed 2 failed: ")[2].splitlines()[0]
    assert "error: 2 finished, 1 failed of 3 cells; continue with mohge-sweep " in finished.stdout
    assert finished.stdout.rstrip().endswith("retry=true")

    assert Sweep([*other, "retry=true"], place).wait().status == 1
    after = attempts(unbroken)
    (wild,) = after.keys() - before.keys()
    assert after.pop(wild) == [("start", None), ("end", 1)] * 2
    assert after == {cell: before[cell] for cell in after}


def test_kills_at_random_moments_change_nothing(place, unbroken):
    """Of workers, cells, the command, or all of them; each is then started again with the same command."""
    rng = random.Random(7)
    folder, command, total = place / "killed", arguments(place, "killed"), 4 * STEPS
    sweep = Sweep(command, place)
    killed: list[str] = []
    for number in range(KILLS):
        threshold, delay = 0.9 * total * number / KILLS, rng.uniform(0, 1.2)
        begun = time.monotonic()
        while time.monotonic() < begun + delay or recorded(folder) < threshold:
            if not sweep.running:
                ended = sweep.wait()
                assert ended.status in ENDS, ended.stdout
                sweep = Sweep(command, place)
            time.sleep(0.002)
        killed.append(kill(sweep, rng.choice(MOMENTS), rng))
    while (ended := sweep.wait()).status != 0:
        assert ended.status in ENDS, ended.stdout
        sweep = Sweep(command, place)
    if not all(("end", 0) in known for known in attempts(folder).values()):
        # Its last worker was killed when the last cell had just ended: the next one notes that.
        assert Sweep(command, place).wait().status == 0
    print(f"killed: {killed}; lines of attempts: {[len(known) for known in attempts(folder).values()]}")
    for known in attempts(folder).values():
        assert known.count(("end", 0)) == 1
        assert known[-1] == ("end", 0)
    for cell in attempts(folder):
        metrics, tensors = results(folder, cell)
        assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
        expected_metrics, expected_tensors = results(unbroken, cell)
        assert metrics == expected_metrics
        torch.testing.assert_close(tensors, expected_tensors, rtol=0, atol=0)


def recorded(folder: Path) -> int:
    """Steps of all cells that are recorded."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("cells/*/metrics.jsonl"))


def kill(sweep: Sweep, what: str, rng: random.Random) -> str:
    """Kills a part of a sweep, or asks it to stop; returns what there was to kill."""
    try:
        family = sweep.family()
        workers = sweep.workers()
    except psutil.NoSuchProcess:
        return "it had just ended"
    cells = [process for process in family if process not in workers and process.pid != sweep.pid]
    number = signal.SIGTERM if what.endswith("asked") else signal.SIGKILL
    targets = {
        "one worker": rng.sample(workers, min(len(workers), 1)),
        "worker asked": rng.sample(workers, min(len(workers), 1)),
        "the command": family[:1],
        "command asked": family[:1],
        "all at once": family,
        "a cell": rng.sample(cells, min(len(cells), 1)),
    }[what]
    for process in targets:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
    return f"{what} ({len(targets)})"
