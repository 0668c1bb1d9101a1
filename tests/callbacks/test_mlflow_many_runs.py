"""Sixteen runs write to one sqlite file at once, and nothing is lost."""

import multiprocessing
import sqlite3
import warnings

import pytest
from fabricated_runs import train_config

from callbacks.tracking import mlflow_logger
from callbacks.tracking import writer as writer_module

pytestmark = pytest.mark.slow

RUNS, STEPS, METRICS = 16, 40, 15
# What takes seconds to import is imported once, in the process that the others are forked from.
PRELOAD = ["callbacks.tracking", "mlflow.store.tracking.sqlalchemy_store", "fabricated_runs"]


def value(run, step, metric):
    """A number that no other run, step or metric has."""
    return run + step / 100 + metric / 10_000


def _train(folder, run, barrier):
    warnings.simplefilter("error", UserWarning)  # it would say that something was not taken
    writer_module._EVERY = 0.05  # many transactions, as of a long run
    config = train_config(
        f"paths.output_dir={folder}", f"paths.run_dir={folder}/{run}", f"logger.run_name=run{run}"
    )
    barrier.wait()
    logger = mlflow_logger(config.logger, config, None)
    logger.log_hyperparams({"seed": run})
    barrier.wait()
    for step in range(1, STEPS + 1):
        logger.log_metrics({f"metric_{k}": value(run, step, k) for k in range(METRICS)}, step=step)
        barrier.wait()  # all write at the same moment
        if step % 10 == 0:
            logger.set_tag("progress", str(step))
    logger.finalize("success")


def test_sixteen_runs_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    barrier = context.Barrier(RUNS)
    runs = [context.Process(target=_train, args=(tmp_path, run, barrier)) for run in range(RUNS)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(200)
    assert [run.exitcode for run in runs] == [0] * RUNS
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        stored = store.execute(
            "select name, key, step, value from metrics join runs using (run_uuid)"
        ).fetchall()
        ends = store.execute(
            "select name, status, value from runs join tags using (run_uuid) where key = 'progress'"
        ).fetchall()
    assert sorted(stored) == sorted(
        (f"run{run}", f"metric_{metric}", step, value(run, step, metric))
        for run in range(RUNS)
        for step in range(1, STEPS + 1)
        for metric in range(METRICS)
    )
    assert sorted(ends) == sorted((f"run{run}", "FINISHED", str(STEPS)) for run in range(RUNS))
