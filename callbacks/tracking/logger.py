"""The MLflow logger of a run."""

from __future__ import annotations

import json
import math
import re
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

from callbacks.tracking.facts import (
    NOTE,
    PARENT,
    common_tags,
    config_tags,
    dataset_inputs,
    environment_tags,
    parameters,
    read_json,
    run_note,
    tag_value,
)
from callbacks.tracking.group import COLOUR, is_active, next_colour, parent_run, settle_parent
from callbacks.tracking.store import experiment_id, store_uri, with_store
from callbacks.tracking.writer import Writer, whole_steps
from mohge.config.run_names import run_name
from mohge.config.schema import LoggerConfig, TrainConfig
from mohge.errors import UserError
from mohge.parallel.sizes import mesh_sizes
from mohge.training.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

_BATCH = 100  # parameters or tags that MLflow takes in one request
_FACTS = ("config.yaml", "overrides.json", "environment.json", "budget.json", "data.json", "resumes.jsonl")
_STATUS = {"success": "FINISHED", "finished": "FINISHED", "failed": "FAILED", "KILLED": "KILLED"}


class TrackingLogger(Logger):
    """Writes to MLflow in the background: it never holds up a run, and never ends one.

    What MLflow does not take is told once as a warning; metrics.jsonl has all metrics.

    Args:
        client: of the store.
        run_id: of the MLflow run.
        train: configuration of the run, whose folder is known.
        known_step: the last one whose metrics MLflow has, 0 at the start. A resumed run repeats steps after
            its checkpoint, and MLflow would show them twice.
        parent: the MLflow run of the group, if the run belongs to one.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        train: TrainConfig,
        known_step: int = 0,
        parent: str | None = None,
    ) -> None:
        super().__init__()
        assert train.paths.run_dir is not None, "the run's folder is settled before its logger"
        self._client = client
        self._run_id = run_id
        self._train = train
        self._run = RunFolder(train.paths.run_dir)
        self._known_step = known_step
        self._parent = parent
        self._files_are_older = True
        self._writer = Writer(self._send)

    @property
    def name(self) -> str:
        """Of the experiment."""
        return self._train.logger.experiment

    @property
    def version(self) -> str:
        """Id of the MLflow run."""
        return self._run_id

    @property
    def run_id(self) -> str:
        """Id of the MLflow run."""
        return self._run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the metrics of a step, unless MLflow has them since before the run was resumed."""
        if step is not None and step <= self._known_step:
            return
        self._files_are_older = True
        self._writer.add_metrics(_metrics(metrics, step or 0, _now()))

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log what is known before training: the configuration, and the files of the run's folder.

        MLflow refuses to change a parameter: a resumed run keeps those that it began with. Steps that are
        in the run's folder and not in MLflow, since the run was killed or had another logger, are added.
        """
        config = vars(params) if isinstance(params, Namespace) else params
        # The arms of a comparison describe other runs, under names that MLflow may refuse.
        flat = parameters({key: value for key, value in config.items() if key != "comparison"})
        self._writer.add_call("the configuration", lambda: self._write_parameters(flat))
        for name in _FACTS:
            if (self._run.path / name).exists():
                self.log_file(self._run.path / name)
        self._writer.add_call("tags and datasets", self._write_facts)
        if self._run.metrics_path.exists():
            now, size = _now(), self._run.metrics_path.stat().st_size  # later lines are told by training
            self._writer.add_call("earlier metrics", lambda: self._write_earlier_metrics(size, now))

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """Log a file, which must stay until the run ends, as an artifact in `folder`."""
        self._writer.add_call(path.name, lambda: self._client.log_artifact(self._run_id, str(path), folder))

    def log_folder(self, path: Path, name: str) -> None:
        """Log the files of a folder, which must stay until the run ends, as artifacts under `name`."""
        self._writer.add_call(name, lambda: self._client.log_artifacts(self._run_id, str(path), name))

    def set_tag(self, name: str, value: str) -> None:
        """Set a tag; its last value counts."""
        text = tag_value(value)
        self._writer.add_call(f"tag {name}", lambda: self._client.set_tag(self._run_id, name, text))

    def finalize(self, status: str = "success") -> None:
        """Log the records of the run's folder, mark the run as ended, and wait until all is written.

        Where other ranks wait for this one, it waits for half of `parallel.timeout` at most, and `drain` for
        the rest.

        Args:
            status: success, finished, failed, or KILLED; a later call corrects an earlier one.
        """
        if self._files_are_older:
            for path in sorted(self._run.path.glob("*.jsonl")):
                self.log_file(path)
            self._files_are_older = False
        self._writer.add_call("the end of the run", lambda: self._end(_STATUS[status]))
        alone = mesh_sizes(self._train).world == 1
        self._writer.drain(math.inf if alone else self._train.parallel.timeout / 2)

    def drain(self) -> None:
        """Wait until all is written, or MLflow has taken nothing for a minute."""
        self._writer.drain()

    def _send(self, metrics: list[Metric]) -> None:
        self._client.log_batch(self._run_id, metrics=metrics, synchronous=True)

    def _write_parameters(self, flat: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        known = self._client.get_run(self._run_id).data.params
        new = [Param(name, value) for name, value in flat.items() if name not in known]
        for start in range(0, len(new), _BATCH):
            self._client.log_batch(self._run_id, params=new[start : start + _BATCH], synchronous=True)

    def _write_facts(self) -> None:
        from mlflow.entities import RunTag

        folder = self._run.path
        tags = config_tags(self._train)
        if (folder / "environment.json").exists():
            tags |= environment_tags(read_json(folder / "environment.json"))
        if (folder / "overrides.json").exists():
            tags[NOTE] = run_note(self._train, self._run.read_overrides())
        batch = [RunTag(name, tag_value(value)) for name, value in tags.items()]
        self._client.log_batch(self._run_id, tags=batch, synchronous=True)
        if (folder / "data.json").exists():
            self._client.log_inputs(self._run_id, datasets=dataset_inputs(read_json(folder / "data.json")))

    def _write_earlier_metrics(self, size: int, now: int) -> None:
        with self._run.metrics_path.open("rb") as file:
            lines = file.read(size).splitlines()
        steps = []
        for record in map(json.loads, lines):
            step = record.pop("step")
            record.pop("tokens")
            if step > self._known_step:
                steps.append(_metrics(record, step, now))
        for group in whole_steps(steps):
            self._send([metric for metrics in group for metric in metrics])

    def _end(self, status: str) -> None:
        self._client.set_terminated(self._run_id, status)
        if self._parent is not None:
            settle_parent(self._client, self._parent)


def mlflow_logger(cfg: LoggerConfig, train: TrainConfig, run_id: str | None) -> TrackingLogger:
    """Begin an MLflow run, or continue one.

    Args:
        cfg: store, experiment, run name and group.
        train: configuration of the run.
        run_id: the MLflow run to continue.

    Raises:
        UserError: the store cannot be used, or does not hold the run to continue.
    """
    uri = store_uri(cfg, train)

    def open_run(client: MlflowClient) -> TrackingLogger:
        if run_id is not None:
            parent = _continue(client, uri, run_id)
            return TrackingLogger(client, run_id, train, _last_step(client, run_id), parent)
        experiment = experiment_id(client, uri, cfg.experiment)
        tags = {**common_tags(), **config_tags(train)}
        if cfg.group is not None:
            parent = parent_run(client, experiment, Path(cfg.group), Path(train.paths.output_dir))
            tags |= {PARENT: parent, COLOUR: next_colour(client, experiment, parent)}
        tags = {name: tag_value(value) for name, value in tags.items()}
        run = client.create_run(experiment, run_name=run_name(train), tags=tags)
        return TrackingLogger(client, run.info.run_id, train, parent=tags.get(PARENT))

    return with_store(uri, open_run)


def _continue(client: MlflowClient, uri: str, run_id: str) -> str | None:
    """Marks a run, and its parent if it has one, as running again; returns the parent's id."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(
            f"MLflow run {run_id}, which the run folder continues, is not in logger.tracking_uri={uri}: "
            "name the store where the run began, or pass logger=csv or logger=none"
        ) from error
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"MLflow run {run_id} was deleted: restore it, or pass logger=csv or logger=none")
    client.update_run(run_id, status="RUNNING")
    parent: str | None = run.data.tags.get(PARENT)
    if parent is None or not is_active(client, parent):
        return None
    client.update_run(parent, status="RUNNING")
    return parent


def _last_step(client: MlflowClient, run_id: str) -> int:
    """The last step that MLflow has: every record holds the training loss, and arrives as a whole."""
    return max((point.step for point in client.get_metric_history(run_id, "train/loss")), default=0)


def _metrics(values: Mapping[str, float], step: int, now: int) -> list[Metric]:
    from mlflow.entities import Metric

    # Names of domains are names of folders, in which more is allowed.
    return [
        Metric(re.sub(r"[^/\w.\- :]", "_", name), float(value), now, step) for name, value in values.items()
    ]


def _now() -> int:
    return time.time_ns() // 1_000_000
