"""What a user sees after `make ui`: the pages of MLflow, in a real browser."""

import dataclasses
import math

import pytest
from browser import page
from fabricated_runs import train_config, write_run
from mlflow.tracking import MlflowClient
from mlflow_here import serving
from test_tracking import DATA, ENVIRONMENT

from callbacks.tracking import log_group_results, mlflow_logger
from callbacks.tracking.ui import view_url
from evaluation.comparison import compare
from mohge.config.load import as_dict
from mohge.config.run_names import as_arm
from mohge.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

WAIT = 60_000  # milliseconds, for a machine that does much else


def _train(folder, name, *overrides):
    """A run of a comparison, as training would leave it."""
    config = train_config(f"arch={name}", f"paths.output_dir={folder.parents[1]}", *overrides)
    config = as_arm(config, name, folder)
    run_dir = write_run(folder / name, f"arch={name}")
    config = dataclasses.replace(config, paths=dataclasses.replace(config.paths, run_dir=str(run_dir)))
    logger = mlflow_logger(config.logger, config, None)
    run = RunFolder(run_dir)
    for file, content in (("overrides.json", [f"arch={name}"]), ("environment.json", ENVIRONMENT)):
        run.write_json(file, content)
    run.write_json("data.json", DATA)
    logger.log_hyperparams(as_dict(config))
    for step in range(10, 201, 10):
        loss = 3 + 4 * math.exp(-step / 60) + (0.1 if name == "moe" else 0)
        logger.log_metrics(
            {"train/loss": loss, "val/bits_per_byte": loss / 2.2, "routing/dead_experts": 0}, step=step
        )
    logger.finalize("success")
    return config, logger.run_id


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def runs(folder):
    """The parent's id and the children's, of a finished comparison."""
    whole = folder / "quickstart" / "2026-01-31_12-00-00"
    whole.mkdir(parents=True)
    config, mohge = _train(whole, "mohge", "logger.experiment=quickstart")
    _, moe = _train(whole, "moe", "logger.experiment=quickstart")
    compare({name: whole / name for name in ("mohge", "moe")}, "moe", whole)
    config = dataclasses.replace(config, paths=dataclasses.replace(config.paths, run_dir=str(whole)))
    log_group_results(config.logger, config)
    client = MlflowClient(config.logger.tracking_uri)
    return client.get_run(mohge).data.tags["mlflow.parentRunId"], mohge, moe


def test_pages_show_names_tags_curves_and_the_comparison(folder, runs, tmp_path):
    parent, mohge, _ = runs
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("quickstart").experiment_id
    with serving(folder / "mlflow.db") as port, page((1500, 950), network=True) as browser:
        browser.set_default_timeout(WAIT)
        run_page = f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs"

        browser.goto(view_url(port, experiment))
        for text in ("nano-mohge-seed1234", "nano-moe-seed1234"):
            browser.get_by_role("link", name=text).first.wait_for()
        browser.locator(".js-plotly-plot .scatterlayer .js-line").first.wait_for(state="attached")
        browser.screenshot(path=tmp_path / "charts.png")
        names = browser.get_by_role("link", name="nano-").all_inner_texts()
        assert [name.strip() for name in names] == ["nano-mohge-seed1234", "nano-moe-seed1234"]  # best first

        browser.goto(f"{run_page}/{mohge}")
        browser.get_by_text("4 experts of each width (48, 80, 112, 144)").wait_for()
        browser.get_by_text("48,80,112,144").first.wait_for()
        browser.get_by_text("train/loss").first.wait_for()
        browser.screenshot(path=tmp_path / "run.png")

        browser.goto(f"{run_page}/{mohge}/model-metrics")
        browser.locator(".js-plotly-plot .scatterlayer .js-line").first.wait_for(state="attached")
        browser.screenshot(path=tmp_path / "metrics.png")

        browser.goto(f"{run_page}/{parent}")
        browser.get_by_role("heading", name="quickstart/2026-01-31_12-00-00").wait_for()
        browser.get_by_text("moe (baseline)").wait_for()
        browser.screenshot(path=tmp_path / "comparison.png")
