"""Runs that log to a real MLflow server instead of a file."""

import dataclasses

import pytest
from fabricated_runs import train_config
from mlflow.tracking import MlflowClient
from mlflow_here import serving

from callbacks.tracking import mlflow_logger
from mohge.config.load import as_dict
from mohge.config.run_names import as_arm
from mohge.training.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with serving(folder / "mlflow.db", "--artifacts-destination", str(folder / "artifacts")) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def config(server, tmp_path):
    config = train_config(
        f"logger.tracking_uri={server}", f"paths.output_dir={tmp_path}", "logger.experiment=served"
    )
    arm = as_arm(config, "mohge", tmp_path)
    return dataclasses.replace(arm, paths=dataclasses.replace(arm.paths, run_dir=str(tmp_path / "mohge")))


def begin(config, run_id=None):
    logger = mlflow_logger(config.logger, config, run_id)
    RunFolder(config.paths.run_dir).write_config(as_dict(config))
    logger.log_hyperparams(as_dict(config))
    return logger


def test_metrics_artifacts_parents_and_resumes_reach_a_server(config, server, tmp_path):
    first = begin(config)
    for step in range(1, 31):
        first.log_metrics(
            {"train/loss": 5.0 / step, "nan": float("nan")} | {f"m{k}": 1.0 for k in range(60)}, step=step
        )
    (tmp_path / "load.png").write_bytes(b"picture")
    first.log_file(tmp_path / "load.png", "pictures")
    first.finalize("failed")

    client = MlflowClient(server)
    run = client.get_run(first.run_id)
    assert run.info.status == "FAILED"
    assert run.data.params["arch_name"] == "mohge"
    assert len(run.data.metrics) == 62
    parent = run.data.tags["mlflow.parentRunId"]
    assert client.get_run(parent).info.status == "FAILED"

    second = begin(config, run_id=first.run_id)
    for step in range(25, 41):  # from a checkpoint at step 24
        second.log_metrics({"train/loss": 5.0 / step}, step=step)
    second.finalize("success")
    points = client.get_metric_history(first.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [
        (step, 5.0 / step) for step in range(1, 41)
    ]
    assert {client.get_run(each).info.status for each in (first.run_id, parent)} == {"FINISHED"}
    assert {item.path for item in client.list_artifacts(first.run_id)} == {"config.yaml", "pictures"}
    with open(client.download_artifacts(first.run_id, "pictures/load.png"), "rb") as file:
        assert file.read() == b"picture"
