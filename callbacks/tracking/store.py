"""The MLflow store or server: reached, made and opened by one process at a time, with failures told apart."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from mohge.config.schema import LoggerConfig, TrainConfig
from mohge.errors import UserError, first_line
from mohge.files import locked

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_T = TypeVar("_T")
_SQLITE = "sqlite:///"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # pages for training, not for chat traces
_CONNECT_SECONDS = 5
_LOCK_WAITS = (0.5, 1, 2, 4)  # seconds between attempts, on top of the 20 that MLflow itself waits for a lock
_PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED")
_LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def store_uri(cfg: LoggerConfig, train: TrainConfig) -> str:
    """`tracking_uri`, else the environment's MLFLOW_TRACKING_URI, else a sqlite file in `output_dir`."""
    uri = cfg.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or f"{_SQLITE}{train.paths.output_dir}/mlflow.db"


def with_store(uri: str, use: Callable[[MlflowClient], _T]) -> _T:
    """What `use` makes of a client of the store, which is made if it is a sqlite file that is not there.

    Args:
        uri: of the store or server.
        use: called again while another process holds the file.

    Raises:
        UserError: the store cannot be used.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a training run reports to nobody
    # Requests are made again by the writer, which can tell the user and be stopped.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    for chatty in ("mlflow.store.db.utils", "alembic"):  # they tell each step of a new database
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        _check_reachable(uri)
        with _alone(uri):
            return _when_unlocked(lambda: use(_client(uri)))
    except failures() as error:
        raise UserError(
            f"logger.tracking_uri={uri} cannot be used ({first_line(error)}): "
            "name a store that can be written, such as sqlite:///mlflow.db, or pass logger=csv or logger=none"
        ) from error


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """Id of the experiment, made if need be; beside a sqlite file go its artifacts, not where we are.

    Raises:
        UserError: the experiment was deleted.
    """
    from mlflow.exceptions import MlflowException

    known = client.get_experiment_by_name(name)
    if known is not None and known.lifecycle_stage == "deleted":
        raise UserError(f"logger.experiment={name} was deleted in MLflow: restore it or choose another name")
    if known is not None:
        return known.experiment_id
    location = None
    if uri.startswith(_SQLITE):
        location = (Path(uri.removeprefix(_SQLITE)).absolute().parent / "mlflow_artifacts").as_uri()
    try:
        return client.create_experiment(name, artifact_location=location, tags=_KIND)
    except MlflowException:
        made = client.get_experiment_by_name(name)
        if made is None:  # else another run has just made it
            raise
        return made.experiment_id


def failures() -> tuple[type[Exception], ...]:
    """What MLflow raises when a store or server does not do its part."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def may_pass(error: Exception) -> bool:
    """Whether the same call may succeed later: a locked file, a server that is away, a full disk."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in _PASSING
    return isinstance(error, failures()) and not isinstance(error, _LASTING)


def _client(uri: str) -> MlflowClient:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


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
        except failures() as error:
            if "database is locked" not in str(error):
                raise
            time.sleep(wait)
    return call()
