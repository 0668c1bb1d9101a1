"""What MLflow is told of a run, in a real sqlite store, and CSV."""

import csv
import dataclasses
import json
import socket
import sqlite3
import threading
import time

import pytest
import yaml
from fabricated_runs import train_config, write_run
from fake_training import FakeModule, FakeTrainer
from mlflow.tracking import MlflowClient

from callbacks import PlotsCallback
from callbacks.tracking import csv_logger, mlflow_logger
from mohge.config.load import as_dict
from mohge.errors import UserError
from mohge.training.run_folder import RunFolder

ENVIRONMENT = {"versions": {"mohge": "0.1.0"}, "git": {"revision": "0123456789abcdef", "dirty": True}}
DATA = {
    "corpus": "text_files",
    "folder": "/corpora/x",
    "fingerprint": "f" * 64,
    "licences": ["CC0-1.0"],
    "train_tokens": 900,
    "validation_tokens": 100,
    "domains": {"prose": {"train": {"tokens": 900}, "validation": {"tokens": 100}}},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A folder with a store that the tests of this module share: making one takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def config(store, tmp_path):
    return train_config(f"paths.output_dir={store}", f"paths.run_dir={tmp_path / 'run'}")


@pytest.fixture
def client(config):
    return MlflowClient(config.logger.tracking_uri)


def begin(config, run_id=None, **changes):
    """A logger, in the state in which training gets it."""
    config = dataclasses.replace(config, logger=dataclasses.replace(config.logger, **changes))
    logger = mlflow_logger(config.logger, config, run_id)
    run = RunFolder(config.paths.run_dir)
    run.write_config(as_dict(config))
    run.write_json("overrides.json", ["arch=mohge", "seed=1234"])
    run.write_json("environment.json", ENVIRONMENT)
    run.write_json("data.json", DATA)
    logger.log_hyperparams(as_dict(config))
    return logger


def record(config, **values):
    """What training appends to metrics.jsonl before it logs."""
    run = RunFolder(config.paths.run_dir)
    run.append(run.metrics_path, {"tokens": 0, **values})


def steps_of(client, logger, name="train/loss"):
    return [point.step for point in client.get_metric_history(logger.run_id, name)]


def read_artifact(client, logger, name):
    with open(client.download_artifacts(logger.run_id, name)) as file:
        return file.read()


def test_a_run_has_its_configuration_metrics_and_name(config, client):
    logger = begin(config)
    logger.log_metrics({"train/loss": 2.5, "val/bits_per_byte/code (C++)": 1.5}, step=10)
    logger.finalize("success")
    run = client.get_run(logger.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "nano-mohge-seed1234"
    assert run.data.params["experts.widths"] == "[48, 80, 112, 144]"
    assert run.data.params["arch_name"] == "mohge"
    assert run.data.params["loss.group_weight"] == "1e-05"
    assert run.data.metrics == {"train/loss": 2.5, "val/bits_per_byte/code _C___": 1.5}
    assert yaml.safe_load(read_artifact(client, logger, "config.yaml"))["experts"]["widths"][0] == 48


def test_tags_and_note_tell_runs_apart(config, client):
    logger = begin(config)
    logger.set_tag("alarm.collapse", "step 120: " + "x" * 9000)
    logger.finalize("success")
    tags = client.get_run(logger.run_id).data.tags
    expected = {
        "arch": "mohge",
        "model": "nano",
        "router": "two_level",
        "widths": "48,80,112,144",
        "experts": "4x4",
        "parallel": "single 1x1x1",
        "ranks": "1",
        "data": "python_stdlib",
        "seed": "1234",
        "git": "0123456789",
        "git_dirty": "yes",
        "mohge": "0.1.0",
        "mlflow.source.name": "mohge-train",
        "mlflow.source.git.commit": "0123456789abcdef",
    }
    assert {name: tags[name] for name in expected} == expected
    assert tags["alarm.collapse"].startswith("step 120: xxx")
    note = tags["mlflow.note.content"]
    assert "4 experts of each width (48, 80, 112, 144)" in note
    assert f"`mohge-report runs={config.paths.run_dir}`" in note
    assert "`arch=mohge seed=1234`" in note
    found = client.search_runs(
        [logger_experiment(client)], "tags.widths = '48,80,112,144' and tags.git = '0123456789'"
    )
    assert logger.run_id in {run.info.run_id for run in found}


def logger_experiment(client):
    return client.get_experiment_by_name("mohge").experiment_id


def test_the_corpus_is_an_input_once_however_often_a_run_is_continued(config, client):
    logger = begin(config)
    logger.finalize("failed")
    begin(config, run_id=logger.run_id).finalize("success")
    inputs = client.get_run(logger.run_id).inputs.dataset_inputs
    seen = {
        item.dataset.name: (item.dataset.digest, json.loads(item.dataset.profile), item) for item in inputs
    }
    assert len(inputs) == len(seen) == 2
    for name, context, tokens in (("text_files", "train", 900), ("text_files held out", "validation", 100)):
        digest, profile, item = seen[name]
        assert digest == "f" * 36
        assert (profile["tokens"], profile["licences"]) == (tokens, ["CC0-1.0"])
        assert [(tag.key, tag.value) for tag in item.tags] == [("mlflow.data.context", context)]


def test_artifacts_hold_the_files_of_the_run_and_are_beside_the_store(
    config, client, store, monkeypatch, tmp_path
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    logger = begin(config)
    record(config, step=1, **{"train/loss": 3.0})
    (tmp_path / "run" / "routing.jsonl").write_text("{}\n")
    (tmp_path / "table.csv").write_text("a,b\n")
    logger.log_file(tmp_path / "table.csv", "tables")
    logger.finalize("success")
    assert client.get_run(logger.run_id).info.artifact_uri.startswith(store.as_uri())
    assert list(here.iterdir()) == []
    facts = {"config.yaml", "overrides.json", "environment.json", "data.json"}
    names = {item.path for item in client.list_artifacts(logger.run_id)}
    assert names == facts | {"metrics.jsonl", "routing.jsonl", "tables"}
    assert read_artifact(client, logger, "tables/table.csv") == "a,b\n"
    assert json.loads(read_artifact(client, logger, "metrics.jsonl"))["train/loss"] == 3.0


def test_long_values_are_cut_as_parameters_and_whole_as_artifact(config, client):
    widths = tuple(range(8, 8 * 120, 8))
    long = dataclasses.replace(config, experts=dataclasses.replace(config.experts, widths=widths))
    logger = begin(long)
    logger.finalize("success")
    value = client.get_run(logger.run_id).data.params["experts.widths"]
    assert len(json.dumps(widths)) > 250
    assert len(value) == 250
    assert value.endswith("…")
    assert yaml.safe_load(read_artifact(client, logger, "config.yaml"))["experts"]["widths"] == list(widths)


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
    assert steps_of(client, first) == [10, 20]
    assert run.data.params["trainer.max_steps"] == "null"
    assert yaml.safe_load(read_artifact(client, first, "config.yaml"))["trainer"]["max_steps"] == 77


@pytest.mark.parametrize("told", [50, 20])
def test_a_killed_run_has_each_step_once_after_it_was_continued(config, client, told):
    """Killed at step 60 with a checkpoint at 40; MLflow was told of 50 steps before, or of 20."""
    killed = begin(config)
    for step in range(10, told + 1, 10):
        killed.log_metrics({"train/loss": float(step)}, step=step)
    killed.finalize("failed")  # all that reached MLflow
    for step in range(10, 41, 10):  # as `forget_after` leaves it
        record(config, step=step, **{"train/loss": float(step)})
    continued = begin(config, run_id=killed.run_id)
    for step in range(50, 81, 10):
        continued.log_metrics({"train/loss": float(step)}, step=step)
    continued.finalize("success")
    points = client.get_metric_history(killed.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [
        (step, float(step)) for step in range(10, 81, 10)
    ]


def test_a_later_end_corrects_an_earlier_one(config, client):
    logger = begin(config)
    logger.finalize("failed")  # by Lightning, for whatever exception
    logger.finalize("KILLED")
    assert client.get_run(logger.run_id).info.status == "KILLED"


def test_pictures_become_artifacts(config, client, tmp_path):
    logger = begin(config)
    run = RunFolder(write_run(tmp_path / "drawn"))
    callback = PlotsCallback(config.callbacks.plots, config)
    callback.on_fit_end(FakeTrainer(loggers=[logger]), FakeModule(run=run))
    logger.finalize("success")
    assert len(client.list_artifacts(logger.run_id, "plots")) == 3


def test_names_of_run_and_experiment_can_be_chosen(config, client):
    logger = begin(config, experiment="ablation", run_name="mine")
    logger.finalize("success")
    run = client.get_run(logger.run_id)
    assert run.info.run_name == "mine"
    assert client.get_experiment(run.info.experiment_id).name == "ablation"


def test_a_run_that_the_store_does_not_hold_is_refused(config):
    with pytest.raises(UserError, match=r"MLflow run f{32}.*name the store"):
        begin(config, run_id="f" * 32)


def test_a_deleted_run_or_experiment_is_refused(config, client):
    logger = begin(config, experiment="gone")
    logger.finalize("success")
    client.delete_run(logger.run_id)
    with pytest.raises(UserError, match="was deleted"):
        begin(config, run_id=logger.run_id)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
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


def test_a_locked_store_is_waited_for_at_the_end_and_not_before(config, client, store):
    logger = begin(config)
    logger.finalize("success")
    lock = sqlite3.connect(store / "mlflow.db", check_same_thread=False, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    logger.log_metrics({"train/loss": 1.0}, step=1)
    assert time.monotonic() - started < 0.1
    release = threading.Timer(1.0, lambda: lock.execute("COMMIT"))
    release.start()
    logger.finalize("success")
    release.join()
    lock.close()
    assert client.get_run(logger.run_id).data.metrics == {"train/loss": 1.0}


def test_csv_keeps_each_start_of_a_run(tmp_path):
    config = train_config("logger=csv", f"paths.run_dir={tmp_path}")
    for start in (0, 1):
        logger = csv_logger(config.logger, config, None)
        logger.log_hyperparams(as_dict(config))
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
