"""MLflow with a real sqlite store, and CSV."""

import csv
import dataclasses
import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
import yaml
from fabricated_runs import train_config, write_run
from fake_training import FakeModule, FakeTrainer
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import OperationalError

from callbacks import PlotsCallback
from callbacks.tracking import csv_logger, mlflow_logger
from mohge.errors import UserError
from mohge.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A folder with a store that the tests of this module share: making one takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def config(store):
    return train_config(f"paths.output_dir={store}")


@pytest.fixture
def client(config):
    return MlflowClient(config.logger.tracking_uri)


def begin(config, run_id=None, **changes):
    return mlflow_logger(dataclasses.replace(config.logger, **changes), config, run_id)


def test_a_run_has_its_configuration_metrics_and_name(config, client):
    logger = begin(config)
    logger.log_metrics({"train/loss": 2.5, "val/bits_per_byte/code": 1.5}, step=10)
    logger.finalize("success")
    run = client.get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "nano-mohge-seed1234"
    assert run.data.params["experts.widths"] == "[48, 80, 112, 144]"
    assert run.data.params["arch_name"] == "mohge"
    assert run.data.params["loss.group_weight"] == "1e-05"
    assert run.data.metrics == {"train/loss": 2.5, "val/bits_per_byte/code": 1.5}
    path = client.download_artifacts(logger.run_id, "config.yaml")
    with open(path) as file:
        assert yaml.safe_load(file)["experts"]["widths"] == [48, 80, 112, 144]


def test_artifacts_are_beside_the_store_and_not_in_the_current_folder(
    config, client, store, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    logger = begin(config)
    assert client.get_run(logger.run_id).info.artifact_uri.startswith(store.as_uri())
    assert list(tmp_path.iterdir()) == []


def test_long_values_are_cut_as_parameters_and_whole_as_artifact(config, client):
    widths = tuple(range(8, 8 * 120, 8))
    long = dataclasses.replace(config, experts=dataclasses.replace(config.experts, widths=widths))
    logger = begin(long)
    value = client.get_run(logger.run_id).data.params["experts.widths"]
    assert len(json.dumps(widths)) > 250
    assert len(value) == 250
    assert value.endswith("…")
    with open(client.download_artifacts(logger.run_id, "config.yaml")) as file:
        assert yaml.safe_load(file)["experts"]["widths"] == list(widths)


def test_a_run_is_continued_with_the_parameters_that_it_began_with(config, client):
    first = begin(config)
    first.log_metrics({"train/loss": 3.0}, step=10)
    first.finalize("failed")
    assert client.get_run(first.run_id).info.status == "FAILED"

    longer = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, max_steps=77))
    second = begin(longer, run_id=first.run_id)
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    second.log_metrics({"train/loss": 2.0}, step=20)
    second.finalize("success")
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [10, 20]
    assert run.data.params["trainer.max_steps"] == "null"
    with open(client.download_artifacts(first.run_id, "config.yaml")) as file:
        assert yaml.safe_load(file)["trainer"]["max_steps"] == 77


def test_pictures_become_artifacts(config, client, tmp_path):
    logger = begin(config)
    run = RunFolder(write_run(tmp_path / "run"))
    callback = PlotsCallback(config.callbacks.plots, config)
    callback.on_fit_end(FakeTrainer(loggers=[logger]), FakeModule(run=run))
    assert len(client.list_artifacts(logger.run_id, "plots")) == 3


def test_names_of_run_and_experiment_can_be_chosen(config, client):
    logger = begin(config, experiment="ablation", run_name="mine")
    run = client.get_run(logger.run_id)
    assert run.info.run_name == "mine"
    assert client.get_experiment(run.info.experiment_id).name == "ablation"


def test_a_run_that_the_store_does_not_hold_is_refused(config):
    with pytest.raises(UserError, match=r"MLflow run f{32}.*name the store"):
        begin(config, run_id="f" * 32)


def test_a_deleted_run_or_experiment_is_refused(config, client):
    logger = begin(config, experiment="gone")
    client.delete_run(logger.run_id)
    with pytest.raises(UserError, match="was deleted"):
        begin(config, run_id=logger.run_id)
    client.delete_experiment(logger.experiment_id)
    with pytest.raises(UserError, match=r"logger\.experiment=gone was deleted"):
        begin(config, experiment="gone")


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////proc/nowhere/mlflow.db",
        "sqlite:///{tmp}/text.db",
        "gopher://store",
        "http://127.0.0.1:{port}",
    ],
)
def test_a_store_that_cannot_be_used_is_told_at_once(config, tmp_path, uri):
    (tmp_path / "text.db").write_text("no database\n" * 100)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = uri.format(tmp=tmp_path, port=unused.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(
            UserError, match=r"logger\.tracking_uri=.* cannot be used .*logger=none"
        ) as refusal:
            begin(config, tracking_uri=uri)
    assert uri in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert time.monotonic() - started < 10


def test_a_locked_store_is_waited_for(config, client, store):
    logger = begin(config)
    lock = sqlite3.connect(store / "mlflow.db", check_same_thread=False, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(1.0, lambda: lock.execute("COMMIT"))
    release.start()
    logger.log_metrics({"train/loss": 1.0}, step=1)
    release.join()
    lock.close()
    assert client.get_run(logger.run_id).data.metrics == {"train/loss": 1.0}


def test_a_store_that_stays_locked_is_tried_again(config, client, monkeypatch):
    monkeypatch.setattr("callbacks.tracking._LOCK_WAITS", (0, 0))
    logger = begin(config)
    log_batch, attempts = logger.experiment.log_batch, []

    def locked_twice(**arguments):
        attempts.append(arguments)
        if len(attempts) < 3:
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))
        log_batch(**arguments)

    monkeypatch.setattr(logger.experiment, "log_batch", locked_twice)
    logger.log_metrics({"train/loss": 4.0}, step=1)
    assert len(attempts) == 3
    assert client.get_run(logger.run_id).data.metrics == {"train/loss": 4.0}


def test_a_store_that_fails_later_does_not_end_the_run(config, monkeypatch):
    logger = begin(config)

    def refuse(**arguments):
        raise OSError("the server has gone")

    monkeypatch.setattr(logger.experiment, "log_batch", refuse)
    with pytest.warns(UserWarning, match=r"metrics of step 7: the server has gone; metrics\.jsonl has all"):
        logger.log_metrics({"train/loss": 1.0}, step=7)


@pytest.mark.slow
def test_runs_that_start_at_once_share_a_new_store(tmp_path):
    """Without a lock, processes that make MLflow's tables together leave a store that none can use."""
    program = (
        "from fabricated_runs import train_config\n"
        "from callbacks.tracking import mlflow_logger\n"
        f"config = train_config('paths.output_dir={tmp_path}')\n"
        "mlflow_logger(config.logger, config, None).log_metrics({'a': 1.0}, step=1)\n"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"}
    runs = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [run.wait(timeout=200) for run in runs] == [0, 0, 0]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("mohge")
    assert len(client.search_runs([experiment.experiment_id])) == 3


def test_csv_keeps_each_start_of_a_run(tmp_path):
    config = train_config("logger=csv", f"paths.run_dir={tmp_path}")
    for start in (0, 1):
        logger = csv_logger(config.logger, config, None)
        logger.log_metrics({"train/loss": 3.0}, step=10 * start)
        logger.log_metrics({"train/loss": 2.0, "val/loss": 2.5}, step=10 * start + 5)
        logger.finalize("success")
    for start in (0, 1):
        folder = tmp_path / "csv" / f"version_{start}"
        with open(folder / "metrics.csv") as file:
            rows = list(csv.DictReader(file))
        assert [row["step"] for row in rows] == [str(10 * start), str(10 * start + 5)]
        assert [row["val/loss"] for row in rows] == ["", "2.5"]
        assert yaml.safe_load((folder / "hparams.yaml").read_text())["seed"] == 1234
