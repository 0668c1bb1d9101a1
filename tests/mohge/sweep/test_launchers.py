"""Whoever starts the workers, they do the job."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
import time
from pathlib import Path

import pytest
from fake_cells import cell, job

from mohge.config.sweep_schema import SlurmConfig
from mohge.errors import UserError
from mohge.sweep.attempts import CellFolder
from mohge.sweep.launchers import InJoblib, Launched, Local, Submitted
from mohge.sweep.worker import TRAIN, Job


def unnoted(folder: Path) -> Job:
    """A cell that is done, whose end a worker notes: the least that one can do."""
    run = folder / "cells" / "one"
    run.mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"state": "finished"}))
    return job(folder, cell("one"))


def finish(workers: Launched, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while workers.alive:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (noted,) = CellFolder(folder / "cells", "one").attempts()
    assert (noted.event, noted.status) == ("end", 0)
    assert noted.worker.rpartition(":")[2] != str(os.getpid())
    assert workers.failed() == []


def test_processes_of_this_machine(tmp_path):
    finish(Local(unnoted(tmp_path), workers=2, threads=1), tmp_path)


def test_a_worker_that_fails_is_named_with_its_status(tmp_path):
    full = job(tmp_path, cell("one"))
    CellFolder(tmp_path / "cells", "one").attempts_path.mkdir(parents=True)  # in the way
    workers = Local(full, workers=1, threads=1)
    deadline = time.monotonic() + 60
    while workers.alive:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert workers.failed() == [f"worker {workers.place().removeprefix('processes ')} ended with status 2"]


@pytest.mark.slow
def test_joblib(tmp_path):
    finish(InJoblib(unnoted(tmp_path), workers=1, threads=1), tmp_path)


@pytest.mark.slow
def test_jobs_of_submitit(tmp_path):
    """In its executor for this machine, which takes the same settings as SLURM's."""
    pytest.importorskip("submitit")
    settings = SlurmConfig(minutes=1, notice=30, cpus=1, memory=1, partition="debug")
    workers = Submitted(settings, unnoted(tmp_path), workers=1, cluster="local")
    finish(workers, tmp_path)
    assert workers.outlive
    assert workers.place().startswith("jobs ")


def test_what_slurm_is_asked_for(tmp_path, monkeypatch):
    """The script that submitit hands to sbatch, for which another one stands here."""
    pytest.importorskip("submitit")
    for name in ("sbatch", "srun"):  # submitit looks for both
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text('#!/bin/sh\ncp "$1" "$SENT"\necho Submitted batch job 4711\n')
        command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SENT", str(tmp_path / "sent"))
    settings = SlurmConfig(partition="long", minutes=90, notice=300, cpus=6, gpus=8, memory=500)
    assert Submitted(settings, unnoted(tmp_path), workers=2).place() == "jobs 4711_0, 4711_1"
    lines = (tmp_path / "sent").read_text().splitlines()
    asked = {
        "time=90",
        "signal=USR2@300",
        "cpus-per-task=6",
        "gpus-per-node=8",
        "mem=500GB",
        "partition=long",
    }
    assert {f"#SBATCH --{key}" for key in asked} <= set(lines)
    (started,) = [line for line in lines if line.startswith("srun ")]
    assert "--cpus-per-task=6" in started.partition(sys.executable)[0].split(), "srun does not inherit them"


def test_jobs_that_would_save_as_soon_as_they_begin_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda command: command)
    with pytest.raises(UserError, match=r"slurm\.notice=600 seconds are all of slurm\.minutes=10"):
        Submitted(SlurmConfig(minutes=10, notice=600), unnoted(tmp_path), workers=1)


def test_slurm_is_asked_for_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"launcher=slurm needs SLURM, and there is no sbatch here"):
        Submitted(SlurmConfig(), unnoted(tmp_path), workers=2)


def test_cells_are_trained_by_mohge_train(tmp_path, monkeypatch, capsys):
    """As Python calls it; its primary configuration tells which command it is."""
    program, option, module = TRAIN
    assert (program, option) == (sys.executable, "-m")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [module, "--cfg", "hydra", "--package", "hydra.job"])
    monkeypatch.delitem(sys.modules, module, raising=False)  # else runpy warns that it is there already
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert "config_name: train\n" in capsys.readouterr().out
