"""What real commands leave in MLflow: one run for each job, and parents for jobs that belong together."""

import json
import signal
import time

import pytest
from commands import Forked, run_forked
from mlflow.tracking import MlflowClient
from tiny_runs import TINY_MODEL, read_metrics, tiny_data, tiny_run, write_corpus

pytestmark = pytest.mark.slow

PARENT = "mlflow.parentRunId"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "work"
    write_corpus(folder / "corpus")
    return folder


def settings(folder, *extra):
    lengths = ("trainer.val_every=20", "trainer.checkpoint_every=10")
    return [*tiny_run(folder / "corpus", folder / "cache"), "logger=mlflow", *lengths, *extra]


def stored_runs(folder):
    client = MlflowClient(f"sqlite:///{folder}/outputs/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client, client.search_runs(experiments)


def test_jobs_of_a_multirun_are_children_of_one_run(folder):
    arguments = settings(folder, "trainer.max_steps=8", "optim.lr=1e-3,3e-3")
    finished = run_forked("mohge-train", ["-m", *arguments], folder)
    assert finished.status == 0, finished.stderr
    _, runs = stored_runs(folder)
    (parent,) = (run for run in runs if PARENT not in run.data.tags)
    children = [run for run in runs if run is not parent]
    (sweep,) = (folder / "outputs" / "multirun").iterdir()
    assert parent.info.run_name == f"multirun/{sweep.name}"
    assert {run.data.tags[PARENT] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.params["optim.lr"] for run in children} == {"0.001", "0.003"}
    assert {run.info.run_name for run in children} == {
        f"nano-mohge-seed1234 optim.lr={rate}" for rate in ("0.001", "0.003")
    }
    for number, run in enumerate(reversed(children)):  # the newest is the first
        assert f"`mohge-report runs={sweep / str(number)}`" in run.data.tags["mlflow.note.content"]


def test_a_comparison_is_one_run_with_its_arms_and_results(folder):
    lengths = ("trainer.max_steps=8", "trainer.val_every=4", "trainer.log_every=1")
    data = tiny_data(folder / "corpus", folder / "cache")
    arguments = ["experiment=quickstart", *TINY_MODEL, *data, *lengths, "callbacks=none"]
    finished = run_forked("mohge-train", arguments, folder)
    assert finished.status == 0, finished.stderr
    client, runs = stored_runs(folder)
    (parent,) = (run for run in runs if PARENT not in run.data.tags)
    assert {run.info.run_name for run in runs if run is not parent} == {
        "nano-mohge-seed1234",
        "nano-moe-seed1234",
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"comparison.json", "config.yaml", "loss_curves.png"} <= artifacts
    assert "| moe (baseline) |" in parent.data.tags["mlflow.note.content"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_has_each_step_once_after_it_continued(folder, number):
    run = folder / "run"
    command = Forked("mohge-train", settings(folder, "trainer.max_steps=200", f"paths.run_dir={run}"), folder)
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while command.running and not (metrics.exists() and metrics.read_bytes().count(b"\n") > 25):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    command.kill(number)
    command.wait()
    _, (stopped,) = stored_runs(folder)
    assert stopped.info.status == ("KILLED" if number == signal.SIGTERM else "RUNNING")

    finished = run_forked("mohge-train", [f"resume={run}"], folder)
    assert finished.status == 0, finished.stderr
    client, (continued,) = stored_runs(folder)
    assert continued.info.run_id == stopped.info.run_id
    assert continued.info.status == "FINISHED"
    points = client.get_metric_history(continued.info.run_id, "train/loss")
    expected = [(record["step"], record["train/loss"]) for record in read_metrics(run)]
    assert sorted((point.step, point.value) for point in points) == expected
    assert len(expected) == 200
    inputs = {item.dataset.name: item.dataset.digest for item in continued.inputs.dataset_inputs}
    fingerprint = json.loads((run / "data.json").read_text())["fingerprint"]
    assert inputs == {"text_files": fingerprint[:36], "text_files held out": fingerprint[:36]}
