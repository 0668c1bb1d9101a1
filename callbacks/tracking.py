"""Loggers: MLflow made to last, and CSV.

A factory is called with (its configuration, the run's configuration, the MLflow run to continue or None).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import yaml
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from mohge.config.load import as_dict
from mohge.config.schema import LoggerConfig, TrainConfig
from mohge.errors import UserError
from mohge.files import locked

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_T = TypeVar("_T")
_SQLITE = "sqlite:///"
_LONGEST_VALUE = 250  # characters of a parameter that every MLflow server accepts
_BATCH = 100  # parameters that MLflow takes in one request
_CONNECT_SECONDS = 5
_LOCK_WAITS = (0.5, 1, 2, 4)  # seconds between attempts, on top of the 20 that MLflow itself waits for a lock


class TrackingLogger(MLFlowLogger):
    """MLflow's logger of Lightning, which waits for a locked database and never ends a run.

    What MLflow refuses is told as a warning: the same figures are in the run folder's metrics.jsonl.
    """

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step. A step that a resumed run repeats appears twice, with equal values."""
        log_metrics = super().log_metrics
        self._outlive(f"metrics of step {step}", lambda: log_metrics(metrics, step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log nested parameters under dotted names, shortened where MLflow would refuse their length.

        MLflow refuses to change a parameter: a resumed run keeps those that it began with.
        """
        from mlflow.entities import Param

        client, run_id = self._client()
        known = client.get_run(run_id).data.params
        flat = _flatten(vars(params) if isinstance(params, Namespace) else params)
        new = [Param(name, _shorten(value)) for name, value in flat.items() if name not in known]
        for start in range(0, len(new), _BATCH):
            client.log_batch(run_id, params=new[start : start + _BATCH])

    def log_folder(self, folder: Path, name: str) -> None:
        """Log the files of a folder as artifacts under `name`."""
        client, run_id = self._client()
        self._outlive(name, lambda: client.log_artifacts(run_id, str(folder), name))

    def finalize(self, status: str = "success") -> None:
        """Mark the run as finished or failed."""
        finalize = super().finalize
        self._outlive("the end of the run", lambda: finalize(status))

    def _client(self) -> tuple[MlflowClient, str]:
        return cast("MlflowClient", self.experiment), cast(str, self.run_id)

    def _outlive(self, what: str, call: Callable[[], None]) -> None:
        try:
            _when_unlocked(call)
        except _failures() as error:
            rank_zero_warn(f"MLflow did not take {what}: {_first_line(error)}; metrics.jsonl has all metrics")


def mlflow_logger(cfg: LoggerConfig, train: TrainConfig, run_id: str | None) -> TrackingLogger:
    """Begin an MLflow run, or continue one, with the configuration as parameters and as an artifact.

    Without `tracking_uri`, the environment's MLFLOW_TRACKING_URI counts, else a sqlite file in
    `paths.output_dir`.

    Args:
        cfg: store, experiment and run name.
        train: configuration of the run.
        run_id: the MLflow run to continue.

    Raises:
        UserError: the store cannot be used, or does not hold the run to continue.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a training run reports to nobody
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # tells each step of a new database
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri = cfg.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    uri = uri or f"{_SQLITE}{train.paths.output_dir}/mlflow.db"
    try:
        _check_reachable(uri)
        with _alone(uri):
            return _when_unlocked(lambda: _open(uri, cfg, train, run_id))
    except _failures() as error:
        raise UserError(
            f"logger.tracking_uri={uri} cannot be used ({_first_line(error)}): "
            "name a store that can be written, such as sqlite:///mlflow.db, or pass logger=csv or logger=none"
        ) from error


def csv_logger(cfg: LoggerConfig, train: TrainConfig, run_id: str | None) -> CSVLogger:
    """Write metrics.csv and hparams.yaml into csv/version_<n> of the run's folder.

    Each start of a run, resumed ones too, has a version of its own: Lightning would delete an older file.
    """
    assert train.paths.run_dir is not None, "the run's folder is settled before its logger"
    logger = CSVLogger(train.paths.run_dir, name="csv", flush_logs_every_n_steps=1)
    logger.log_hyperparams(as_dict(train))
    return logger


def _open(uri: str, cfg: LoggerConfig, train: TrainConfig, run_id: str | None) -> TrackingLogger:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    if run_id is None:
        _make_experiment(client, uri, cfg.experiment)
    else:
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            raise UserError(
                f"MLflow run {run_id}, which the run folder continues, is not in logger.tracking_uri={uri}: "
                "name the store where the run began, or pass logger=csv or logger=none"
            ) from error
        if run.info.lifecycle_stage == "deleted":
            raise UserError(f"MLflow run {run_id} was deleted: restore it, or pass logger=csv or logger=none")
        client.update_run(run_id, status="RUNNING")
    name = cfg.run_name or f"{train.model.name}-{train.arch_name}-seed{train.seed}"
    logger = TrackingLogger(cfg.experiment, run_name=name, tracking_uri=uri, run_id=run_id)
    config = as_dict(train)
    # The arms of a comparison describe other runs, under names that MLflow may refuse.
    logger.log_hyperparams({key: value for key, value in config.items() if key != "comparison"})
    client.log_text(cast(str, logger.run_id), yaml.safe_dump(config, sort_keys=False), "config.yaml")
    return logger


def _make_experiment(client: MlflowClient, uri: str, name: str) -> None:
    """See that the experiment exists; beside a sqlite file go its artifacts, not into the current folder."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        raise UserError(f"logger.experiment={name} was deleted in MLflow: restore it or choose another name")
    if experiment is not None:
        return
    location = None
    if uri.startswith(_SQLITE):
        location = (Path(uri.removeprefix(_SQLITE)).absolute().parent / "mlflow_artifacts").as_uri()
    try:
        client.create_experiment(name, artifact_location=location)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run has just made it
            raise


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Let one process at a time open a sqlite file: two that make its tables together leave it broken.

    A new file is taken away if that fails: with half of its tables it would fail the next run too.
    """
    if not uri.startswith(_SQLITE):
        yield
        return
    path = Path(uri.removeprefix(_SQLITE))
    with locked(path.with_name(f"{path.name}.lock"), f"opening {path}"):
        new = not path.exists()
        try:
            yield
        except BaseException:
            if new:
                path.unlink(missing_ok=True)
            raise


def _check_reachable(uri: str) -> None:
    """Fail in seconds where MLflow would retry for minutes, and make the folder of a sqlite file."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    elif uri.startswith(_SQLITE):
        Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)


def _when_unlocked(call: Callable[[], _T]) -> _T:
    """Call again while another process holds the sqlite file."""
    for wait in _LOCK_WAITS:
        try:
            return call()
        except _failures() as error:
            if "database is locked" not in str(error):
                raise
            time.sleep(wait)
    return call()


def _failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when a store or server does not do its part."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shorten(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
