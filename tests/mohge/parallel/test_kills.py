"""A rank that is killed, at any moment, costs no more than the steps after the last checkpoint."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from commands import Forked
from composing import composed
from tiny_runs import read_metrics, tiny_run, write_corpus

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.errors import RunError
from mohge.parallel.launch import launch
from mohge.training.checkpoint import newest_intact, read_tensors
from mohge.training.checkpoint_names import list_checkpoints
from mohge.training.run_folder import RunFolder

STEPS = 40
MESH = ("parallel=ep", "trainer.devices=2", "trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("killed")
    tiny = tiny_run(write_corpus(folder / "texts"), folder / "cache")
    return [*tiny, *MESH, f"trainer.max_steps={STEPS}", "trainer.checkpoint_every=4", "trainer.val_every=9"]


def train(overrides: list[str], run: Path) -> None:
    """As mohge-train does, from ranks that are forked from a process which has imported everything."""
    resume = [f"resume={run}"] if RunFolder(run).exists else []
    config = typed(TrainConfig, composed(*overrides, f"paths.run_dir={run}", *resume))
    launch("mohge.training.launched:train_rank", (config, overrides), 2)


def kill_one_rank(index: int, moment: Callable[[], bool], after: Callable[[], None]) -> threading.Thread:
    """Kills rank `index`, as soon as the moment has come, with SIGKILL, and then does something else."""

    def wait_and_kill() -> None:
        deadline = time.monotonic() + 60
        while not moment():
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        ranks = sorted(multiprocessing.active_children(), key=lambda process: process.pid or 0)
        assert len(ranks) == 2
        assert ranks[index].pid is not None
        os.kill(ranks[index].pid, signal.SIGKILL)
        after()

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def step_of(run: Path) -> int:
    return RunFolder(run).read_status().get("step", 0)


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written."""
    return any((run / "checkpoints").glob(".step_*.tmp"))


def test_ten_kills_lose_nothing_but_the_steps_after_the_last_checkpoint(overrides, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(overrides, whole)
    in_saves: list[bool] = []
    for number in range(10):
        begun = step_of(killed)
        in_save = number % 2 == 0

        def moment(begun: int = begun, in_save: bool = in_save) -> bool:
            return step_of(killed) >= begun + 2 and (saving(killed) or not in_save)

        thread = kill_one_rank(number // 2 % 2, moment, lambda: in_saves.append(saving(killed)))
        with pytest.raises(RunError, match="was killed by SIGKILL"):
            train(overrides, killed)
        thread.join()
        kept, damaged = newest_intact(killed / "checkpoints")
        assert damaged == [], "a checkpoint is there whole or not at all"
        assert kept is None or int(kept.name[-8:]) >= step_of(killed) - 4
    assert len(in_saves) == 10
    assert sum(in_saves) >= 3, "kills were in the middle of a save"
    train(overrides, killed)
    assert read_metrics(killed) == read_metrics(whole)
    tensors = [read_tensors(list_checkpoints(run / "checkpoints")[-1], "") for run in (whole, killed)]
    torch.testing.assert_close(tensors[0], tensors[1], rtol=0, atol=0)
    assert not saving(killed), "left behind by a killed rank"


def test_the_command_says_which_rank_died_and_how_to_go_on(overrides, tmp_path):
    run = tmp_path / "run"
    command = Forked("mohge-train", [*overrides, f"paths.run_dir={run}", "trainer.max_steps=2000"], tmp_path)
    while step_of(run) < 6:
        assert command.running
        time.sleep(0.05)
    # Each rank leads a session of its own.
    family = psutil.Process(command.pid).children(recursive=True)
    ranks = sorted(process.pid for process in family if os.getsid(process.pid) == process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    finished = command.wait()
    assert finished.status == 1
    assert "error: rank 1 was killed by SIGKILL" in finished.stderr
    assert f"resume={run}" in finished.stderr
    assert RunFolder(run).read_status()["state"] == "failed"

    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, "no orphans"
