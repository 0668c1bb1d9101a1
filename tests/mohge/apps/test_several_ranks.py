"""A run on several ranks looks like a run: one folder, one log, one MLflow run, whoever starts the ranks."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Finished, run_forked
from refusals import contents
from tiny_runs import read_metrics, tiny_run, write_corpus

from mohge.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

SETTINGS = ("trainer.accelerator=cpu", "trainer.max_steps=12", "trainer.val_every=5")
WATCHED = ("logger=mlflow", "callbacks=default")  # as by default


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a corpus."""
    folder = tmp_path / "work"
    write_corpus(folder / "corpus")
    return folder


def settings(*extra: str) -> list[str]:
    return [*tiny_run(Path("corpus"), Path("cache")), *SETTINGS, *extra]


def torchrun(folder: Path, *arguments: str) -> Finished:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", "mohge.apps.train", *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def assert_is_one_run(folder: Path, finished: Finished) -> Path:
    """Nothing was done or said twice; returns the run's folder."""
    assert finished.status == 0, finished.stdout + finished.stderr
    assert finished.stderr == ""
    lines = [line for line in finished.stdout.splitlines() if line]
    assert len(lines) == len(set(lines))
    for beginning in ("experts.kernel=auto uses ", "Done: step 12, ", "Run folder: ", "Train longer: "):
        assert len([line for line in lines if line.startswith(beginning)]) == 1, finished.stdout
    assert "rank" not in finished.stdout

    (run,) = (folder / "outputs" / "nano-mohge").iterdir()
    status = RunFolder(run).read_status()
    assert (status["state"], status["step"]) == ("finished", 12)
    assert status["mesh"] == {"dp_replicate": 1, "dp_shard": 1, "expert_parallel": 2}
    assert len(json.loads((run / "overrides.json").read_text(encoding="utf-8"))) > 10
    assert not list(run.rglob(".*")), "locks and temporary files are gone"
    with sqlite3.connect(folder / "outputs" / "mlflow.db") as store:
        assert store.execute("select run_uuid, status from runs").fetchall() == [
            (status["mlflow_run_id"], "FINISHED")
        ]
        logged = store.execute("select step from metrics where key = 'train/loss' order by step").fetchall()
    assert [step for (step,) in logged] == list(range(1, 13))
    return run


def assert_same_records(folder: Path, run: Path) -> None:
    """They are those of one process."""
    assert run_forked("mohge-train", settings("paths.run_dir=alone"), folder).status == 0
    records, expected = read_metrics(run), read_metrics(folder / "alone")
    assert [record["step"] for record in records] == [record["step"] for record in expected]
    for record, other in zip(records, expected, strict=True):
        assert {name: record[name] for name in other} == pytest.approx(other, abs=1e-5)


def test_by_itself(folder):
    finished = run_forked("mohge-train", settings("parallel=ep", "trainer.devices=2", *WATCHED), folder)
    assert_same_records(folder, assert_is_one_run(folder, finished))


def test_copies_that_train_together_are_one_mlflow_run(folder):
    finished = run_forked("mohge-train", settings("parallel=ddp", "trainer.devices=2", *WATCHED), folder)
    assert finished.status == 0, finished.stdout + finished.stderr
    with sqlite3.connect(folder / "outputs" / "mlflow.db") as store:
        ((run_id, status),) = store.execute("select run_uuid, status from runs").fetchall()
        tags = dict(store.execute("select key, value from tags").fetchall())
        logged = store.execute("select step from metrics where key = 'train/loss' order by step").fetchall()
    (run,) = (folder / "outputs" / "nano-mohge").iterdir()
    assert (RunFolder(run).read_status()["mlflow_run_id"], "FINISHED") == (run_id, status)
    assert (tags["ranks"], tags["parallel"]) == ("2", "ddp 2x1x1")
    assert [step for (step,) in logged] == list(range(1, 13))


def test_by_torchrun(folder):
    run = assert_is_one_run(folder, torchrun(folder, *settings("parallel=ep", *WATCHED)))
    assert_same_records(folder, run)

    before = contents(folder)
    refused = torchrun(folder, *settings("parallel=ep", f"paths.run_dir={run}"))
    assert refused.status != 0
    sentence = (
        f"error: paths.run_dir={run} holds a run already: continue it with resume={run}, or give another"
    )
    assert sentence in refused.stderr.splitlines()
    assert "mohge/apps/" not in refused.stderr, "the only traceback is that of torchrun"
    assert contents(folder) == before
