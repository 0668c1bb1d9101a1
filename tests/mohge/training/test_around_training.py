"""Before and after the steps of a run: Ctrl-C, and what Lightning would find out by itself."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
from composing import composed
from tiny_runs import tiny_run, train_here, write_corpus

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.errors import Interrupted
from mohge.training.run import train
from mohge.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    return [*tiny_run(write_corpus(folder / "corpus"), folder / "cache"), "trainer.max_steps=2"]


@pytest.mark.parametrize("moment", ["on_fit_start", "on_fit_end"])
def test_ctrl_c_outside_of_the_steps_ends_the_run_as_interrupted(tiny, tmp_path, moment):
    def press(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    pressing = type("Pressing", (pl.Callback,), {moment: press})()
    config = typed(TrainConfig, composed(*tiny, f"paths.run_dir={tmp_path}"))
    with pytest.raises(Interrupted) as left:
        train(config, RunFolder(tmp_path), tiny, callbacks=[pressing])
    assert left.value.signal == signal.SIGINT
    assert RunFolder(tmp_path).read_status()["state"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(train_here(tmp_path, *tiny, f"resume={tmp_path}")) == 2


@pytest.mark.parametrize("more", [{}, {"SLURM_NTASKS_PER_NODE": "8"}])
def test_one_process_in_the_shell_of_a_slurm_job_is_one_process(tiny, tmp_path: Path, monkeypatch, more):
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "8", "SLURM_NNODES": "1", **more}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)}
    assert len(train_here(tmp_path, *tiny)) == 2
    assert {number: signal.getsignal(number) for number in before} == before
