"""Results of an evaluation, in the MLflow run that has trained the model."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from callbacks.tracking.group import is_active
from callbacks.tracking.store import store_uri, with_store
from mohge.config.schema import TrainConfig
from mohge.errors import UserError, first_line
from mohge.training.checkpoint_names import checkpoint_name
from mohge.training.run_folder import RESULTS, RunFolder

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_SQLITE = "sqlite:///"
_BATCH = 1000  # values that MLflow takes in one request
_MEASURED = "tokens_per_second"  # another one each time: the first stays
_TABLES = "comparison.*"


def record_evaluation(results: Mapping[str, Any], folder: Path, tables: Path | None = None) -> str | None:
    """Adds an evaluation to the MLflow run of its checkpoint; to none, if the run had another logger.

    - `eval/SUITE/TASK/METRIC` and `…_stderr`, at the checkpoint's step; SUITE tells a limit of items.
    - `eval/SUITE/TASK/{tokens_per_second,active_parameters,mean_width}`: what answers cost; the mean is
      over all choices of experts.
    - results.json and the comparison, as artifacts in evaluations/CHECKPOINT/SUITE.

    The same evaluation again adds nothing: a value that the run has at this step already is left out, and so
    is another speed. A score that has changed is added, and is the newest, since MLflow deletes no value.
    Artifacts are replaced.

    Args:
        results: content of results.json.
        folder: that holds it, named by the suite and its limit.
        tables: folder of the comparison, if it is another one.

    Returns:
        A sentence on what MLflow did not take, without passwords; None if all is there, or nothing had to be.
    """
    if results["run"] is None or results["step"] is None:
        return None
    run = RunFolder(results["run"])
    lost = f"MLflow has no scores of {results['name']} at step {results['step']}"
    try:
        train = TypeAdapter(TrainConfig).validate_python(run.read_config())
        run_id = run.read_status().get("mlflow_run_id")
    except (UserError, ValidationError) as error:
        return f"{lost}: {first_line(error)}"
    if train.logger.name != "mlflow" or run_id is None:
        return None
    uri = store_uri(train.logger, train)
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).is_file():
        return f"{lost}: its store {uri} is gone; {folder} has them"

    def add(client: MlflowClient) -> str | None:
        if not is_active(client, run_id):
            return f"{lost}: its run {run_id} is there no longer; {folder} has them"
        _add_metrics(client, run_id, results, folder.name)
        _add_files(client, run_id, results["step"], folder, tables or folder)
        return None

    try:
        return with_store(uri, add)
    except UserError as error:
        return f"{lost}: {_without_secrets(first_line(error), uri)}; {folder} has them"


def _add_metrics(client: MlflowClient, run_id: str, results: Mapping[str, Any], suite: str) -> None:
    from mlflow.entities import Metric

    step, now = results["step"], time.time_ns() // 1_000_000
    known = client.get_run(run_id).data.metrics
    new = []
    for given, value in _values(results, suite):
        name = re.sub(r"[^/\w.\- :]", "_", given)  # what MLflow takes
        time_ms = now
        if name in known:
            here = [point for point in client.get_metric_history(run_id, name) if point.step == step]
            newest = max(here, key=lambda point: point.timestamp, default=None)
            if newest is not None:
                if newest.value == value or name.endswith(f"/{_MEASURED}"):
                    continue
                time_ms = max(now, newest.timestamp + 1)
        new.append(Metric(name, value, time_ms, step))
    for start in range(0, len(new), _BATCH):
        client.log_batch(run_id, metrics=new[start : start + _BATCH], synchronous=True)


def _values(results: Mapping[str, Any], suite: str) -> Iterator[tuple[str, float]]:
    """Finite values by name; MLflow has no others."""
    for task_name, task in results["tasks"].items():
        if task["status"] != "done":
            continue
        prefix = f"eval/{suite}/{task_name}"
        for metric, score in task["metrics"].items():
            yield from _finite(f"{prefix}/{metric}", score["value"])
            yield from _finite(f"{prefix}/{metric}_stderr", score["stderr"])
        cost, widths = task["cost"], results["widths"]
        if cost["tokens"]:  # those of a tag's tasks are not told apart
            yield from _finite(f"{prefix}/{_MEASURED}", cost["tokens_per_second"])
            yield from _finite(f"{prefix}/active_parameters", cost["active_parameters"])
        if cost["group_shares"]:
            width = sum(share * width for share, width in zip(cost["group_shares"], widths, strict=True))
            yield from _finite(f"{prefix}/mean_width", width)


def _finite(name: str, value: float | None) -> Iterator[tuple[str, float]]:
    if value is not None and math.isfinite(value):
        yield name, float(value)


def _add_files(client: MlflowClient, run_id: str, step: int, folder: Path, tables: Path) -> None:
    place = f"evaluations/{checkpoint_name(step)}/{folder.name}"
    for path in (folder / RESULTS, *sorted(tables.glob(_TABLES))):
        if path.is_file():
            client.log_artifact(run_id, str(path), place)


def _without_secrets(text: str, uri: str) -> str:
    """A sentence without the user and password of the store's address."""
    parts = urlsplit(uri)
    login = parts.netloc.rpartition("@")[0]
    for secret in filter(None, (f"{login}@" if login else "", parts.password)):
        text = text.replace(secret, "")
    return text
