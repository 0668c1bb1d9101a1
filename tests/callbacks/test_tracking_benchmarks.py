"""Evaluations in a real MLflow store, under the run that has trained the model."""

import copy
import dataclasses
import json

import pytest
from fabricated_runs import train_config
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from tiny_runs import tiny_run, train_here, write_corpus

from callbacks.tracking import mlflow_logger
from callbacks.tracking.benchmarks import record_evaluation
from mohge.config.load import as_dict
from mohge.training.run_folder import RunFolder

METRICS = {
    "acc": {"value": 0.75, "stderr": 0.25},
    "exact_match/strict, first": {"value": 0.5, "stderr": None},
    "perplexity": {"value": float("inf"), "stderr": None},
}
COST = {
    "tokens": 900,
    "tokens_per_second": 1500.0,
    "active_parameters": 1.5e6,
    "group_shares": [0.25, 0.25, 0.5, 0.0],
}
RESULTS = {
    "format": "mohge-eval-1",
    "suite": "made_up",
    "name": "nano-mohge-seed1234",
    "step": 20,
    "widths": [48, 80, 112, 144],
    "settings": {"limit": None},
    "tasks": {
        "numbers": {"status": "done", "primary": "acc", "metrics": METRICS, "cost": COST},
        "words": {"status": "failed", "error": "no items", "label": "words"},
    },
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


@pytest.fixture
def trained(config):
    """A finished run in MLflow; returns its id."""
    logger = mlflow_logger(config.logger, config, None)
    logger.log_metrics({"train/loss": 3.0}, step=20)
    logger.finalize("success")
    write_run(config, logger.run_id)
    return logger.run_id


def write_run(config, run_id):
    run = RunFolder(config.paths.run_dir)
    run.write_config(as_dict(config))
    run.update_status(mlflow_run_id=run_id)


def evaluation(config, folder, **changes):
    """Results and their folder, as mohge-eval leaves them."""
    results = {**copy.deepcopy(RESULTS), "run": config.paths.run_dir, **changes}
    folder.mkdir(exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results))
    return results, folder


def history(client, run_id, name):
    points = client.get_metric_history(run_id, name)
    return [(point.step, point.value) for point in sorted(points, key=lambda point: point.timestamp)]


def scores(client, run_id):
    metrics = client.get_run(run_id).data.metrics
    return {name: value for name, value in metrics.items() if name.startswith("eval/")}


def test_scores_errors_and_cost_are_in_the_run_that_trained(config, client, trained, tmp_path):
    results, folder = evaluation(config, tmp_path / "made_up")
    (folder / "comparison.md").write_text("| numbers | 0.75 |")
    (folder / "samples").mkdir()
    assert record_evaluation(results, folder) is None
    assert scores(client, trained) == {
        "eval/made_up/numbers/acc": 0.75,
        "eval/made_up/numbers/acc_stderr": 0.25,
        "eval/made_up/numbers/exact_match/strict_ first": 0.5,
        "eval/made_up/numbers/tokens_per_second": 1500.0,
        "eval/made_up/numbers/active_parameters": 1.5e6,
        "eval/made_up/numbers/mean_width": 88.0,  # 12 + 20 + 56
    }
    assert history(client, trained, "eval/made_up/numbers/acc") == [(20, 0.75)]
    place = "evaluations/step_00000020/made_up"
    artifacts = {item.path for item in client.list_artifacts(trained, place)}
    assert artifacts == {f"{place}/results.json", f"{place}/comparison.md"}
    assert client.get_run(trained).info.status == "FINISHED"


def test_the_same_evaluation_again_adds_nothing(config, client, trained, tmp_path):
    results, folder = evaluation(config, tmp_path / "made_up")
    for speed in (1500.0, 1700.0):
        results["tasks"]["numbers"]["cost"]["tokens_per_second"] = speed
        assert record_evaluation(results, folder) is None
    assert len(scores(client, trained)) == 6
    for name in scores(client, trained):
        assert len(history(client, trained, name)) == 1, name
    assert scores(client, trained)["eval/made_up/numbers/tokens_per_second"] == 1500.0


def test_a_changed_score_is_the_newest(config, client, trained, tmp_path):
    results, folder = evaluation(config, tmp_path / "made_up")
    assert record_evaluation(results, folder) is None
    results["tasks"]["numbers"]["metrics"]["acc"]["value"] = 0.5
    results, folder = evaluation(config, tmp_path / "made_up", tasks=results["tasks"])
    assert record_evaluation(results, folder) is None
    name = "eval/made_up/numbers/acc"
    assert history(client, trained, name) == [(20, 0.75), (20, 0.5)]
    assert scores(client, trained)[name] == 0.5
    kept = client.download_artifacts(trained, "evaluations/step_00000020/made_up/results.json")
    with open(kept) as file:
        assert json.load(file)["tasks"]["numbers"]["metrics"]["acc"]["value"] == 0.5


def test_tables_of_several_checkpoints_go_to_the_run_of_each(config, client, trained, tmp_path):
    results, folder = evaluation(config, tmp_path / "made_up")
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "comparison.md").write_text("several")
    assert record_evaluation(results, folder, tables) is None
    place = "evaluations/step_00000020/made_up"
    names = {item.path for item in client.list_artifacts(trained, place)}
    assert names == {f"{place}/results.json", f"{place}/comparison.md"}


def test_checkpoints_in_any_order_and_samples_of_items_are_told_apart(config, client, trained, tmp_path):
    for step, limit in ((20, None), (10, None), (20, 7)):
        name = "made_up" if limit is None else f"made_up-limit{limit}"
        assert record_evaluation(*evaluation(config, tmp_path / name, step=step)) is None
    assert history(client, trained, "eval/made_up/numbers/acc") == [(20, 0.75), (10, 0.75)]
    assert history(client, trained, "eval/made_up-limit7/numbers/acc") == [(20, 0.75)]


def test_dense_models_and_tasks_of_a_tag_have_no_cost_to_tell(config, client, trained, tmp_path):
    results, folder = evaluation(config, tmp_path / "made_up", widths=[])
    cost = {**COST, "tokens": 0, "tokens_per_second": None, "group_shares": []}
    results["tasks"] = {"numbers": {**results["tasks"]["numbers"], "cost": cost}}
    assert record_evaluation(results, folder) is None
    assert {name.rpartition("/")[2] for name in scores(client, trained)} == {
        *("acc", "acc_stderr", "strict_ first")
    }


def test_a_store_that_is_locked_is_asked_again(config, client, trained, tmp_path, monkeypatch):
    """After the scores, so that they are sent twice."""
    log_artifact, waits = MlflowClient.log_artifact, []

    def locked_once(self, *arguments):
        if not waits:
            raise MlflowException("(sqlite3.OperationalError) database is locked")
        log_artifact(self, *arguments)

    monkeypatch.setattr(MlflowClient, "log_artifact", locked_once)
    monkeypatch.setattr("callbacks.tracking.store.time.sleep", waits.append)
    assert record_evaluation(*evaluation(config, tmp_path / "made_up")) is None
    assert waits == [0.5]
    assert history(client, trained, "eval/made_up/numbers/acc") == [(20, 0.75)]
    assert client.list_artifacts(trained, "evaluations/step_00000020/made_up")


@pytest.mark.parametrize("logger", ["csv", "none"])
def test_other_loggers_get_nothing(tmp_path, logger):
    config = train_config(f"logger={logger}", f"paths.run_dir={tmp_path / 'run'}")
    write_run(config, "0123")
    assert record_evaluation(*evaluation(config, tmp_path / "made_up")) is None


def test_a_model_without_a_run_gets_nothing(config, tmp_path):
    results, folder = evaluation(config, tmp_path / "made_up", run=None, step=None)
    assert record_evaluation(results, folder) is None


def test_a_store_that_is_gone_is_a_sentence_and_not_made_again(tmp_path):
    config = train_config(f"paths.output_dir={tmp_path}", f"paths.run_dir={tmp_path / 'run'}")
    write_run(config, "0123")
    results, folder = evaluation(config, tmp_path / "made_up")
    assert record_evaluation(results, folder) == (
        "MLflow has no scores of nano-mohge-seed1234 at step 20: its store "
        f"sqlite:///{tmp_path}/mlflow.db is gone; {folder} has them"
    )
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_that_was_deleted_is_a_sentence(config, client, trained, tmp_path):
    client.delete_run(trained)
    told = record_evaluation(*evaluation(config, tmp_path / "made_up"))
    assert f"its run {trained} is there no longer" in told


def test_a_server_that_is_away_is_a_sentence_without_its_password(tmp_path):
    config = train_config(f"paths.run_dir={tmp_path / 'run'}")
    uri = "http://someone:s3cret@127.0.0.1:9"
    config = dataclasses.replace(config, logger=dataclasses.replace(config.logger, tracking_uri=uri))
    write_run(config, "0123")
    told = record_evaluation(*evaluation(config, tmp_path / "made_up"))
    assert "tracking_uri=http://127.0.0.1:9 cannot be used" in told
    assert "s3cret" not in told
    assert "someone" not in told


def test_a_damaged_run_is_a_sentence(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("- no configuration")
    told = record_evaluation(*evaluation(config, tmp_path / "made_up"))
    assert told.startswith("MLflow has no scores of nano-mohge-seed1234 at step 20: ")
    assert "is damaged" in told


def test_scores_during_training_are_metrics_and_artifacts_of_the_run(client, store, tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    overrides = [
        *(*tiny_run(corpus, tmp_path / "cache"), "logger=mlflow", "trainer.max_steps=4"),
        *(f"paths.output_dir={store}", "callbacks=default", "callbacks.benchmarks.every=2"),
        *("callbacks.benchmarks.suite.name=made_up", "callbacks.progress=null", "callbacks.plots=null"),
        "callbacks.benchmarks.evaluator=benchmarks_targets.careless",
    ]
    train_here(tmp_path / "run", *overrides)
    run_id = RunFolder(tmp_path / "run").read_status()["mlflow_run_id"]
    assert history(client, run_id, "eval/text/acc") == [(2, 0.5), (4, 0.5)]
    for step in (2, 4):
        (item,) = client.list_artifacts(run_id, f"evaluations/step_0000000{step}/made_up-limit100")
        assert item.path.endswith("results.json")
