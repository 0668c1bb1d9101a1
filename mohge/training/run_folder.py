"""A run's folder: what was asked for, on what machine, what came of it.

config.yaml          resolved configuration
overrides.json       the command line's overrides
environment.json     versions, platform, git revision and whether it was dirty
budget.json          parameters, FLOPs and memory expected
resumes.jsonl        overrides and environment of each continuation
data.json            documents, bytes and tokens of the corpus
status.json          state, step, tokens, last and best metrics, checkpoints, MLflow run id, seed
metrics.jsonl        an object per logged step
routing.jsonl        expert and group counts at each validation
routing_steps.jsonl  expert counts of each logged step
routing_layers.jsonl metrics of each layer at each logged step
alarms.jsonl         warnings, with the step of each
rank_load.jsonl      what each rank had to do in each step, if there are several
checkpoints/         step_00000100/, …
plots/               pictures
tokens/              who goes where: one folder for each step that mohge-tokens or mohge-report looked at
eval/                benchmarks: one folder for each step that was evaluated, and in it one for each suite
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from mohge.errors import UserError
from mohge.files import write_json_atomically, write_text_atomically

CONFIG = "config.yaml"
STATUS = "status.json"
RESULTS = "results.json"
"""Of an evaluation, in its folder below eval/."""


_OF_METRICS = ("step", "tokens", "last", "best")
"""Fields of status.json that follow from metrics.jsonl."""
_QUALITY = "val/bits_per_byte"


class RunFolder:
    """Reads and writes the files above.

    Args:
        path: the folder; it is made by the first write.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl"""
        return self.path / "metrics.jsonl"

    @property
    def routing_path(self) -> Path:
        """routing.jsonl"""
        return self.path / "routing.jsonl"

    @property
    def routing_steps_path(self) -> Path:
        """routing_steps.jsonl"""
        return self.path / "routing_steps.jsonl"

    @property
    def routing_layers_path(self) -> Path:
        """routing_layers.jsonl"""
        return self.path / "routing_layers.jsonl"

    @property
    def alarms_path(self) -> Path:
        """alarms.jsonl"""
        return self.path / "alarms.jsonl"

    @property
    def tokens_dir(self) -> Path:
        """tokens/"""
        return self.path / "tokens"

    @property
    def eval_dir(self) -> Path:
        """eval/"""
        return self.path / "eval"

    @property
    def rank_load_path(self) -> Path:
        """rank_load.jsonl"""
        return self.path / "rank_load.jsonl"

    @property
    def plots_dir(self) -> Path:
        """plots/"""
        return self.path / "plots"

    @property
    def checkpoints_dir(self) -> Path:
        """checkpoints/"""
        return self.path / "checkpoints"

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / CONFIG).is_file()

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes config.yaml."""
        write_text_atomically(self.path / CONFIG, yaml.safe_dump(config, sort_keys=False))

    def read_config(self) -> dict[str, Any]:
        """The plain configuration of the run.

        Raises:
            UserError: the folder holds no run, or its config.yaml is damaged.
        """
        path = self.path / CONFIG
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{self.path} holds no run ({CONFIG} is missing): give the folder that mohge-train printed"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is damaged and cannot be read: start the run anew") from error
        if not isinstance(config, dict):
            raise UserError(f"{path} is damaged, it holds no configuration: start the run anew")
        return config

    def write_json(self, name: str, value: Any) -> None:
        """Writes one JSON file of the folder."""
        write_json_atomically(self.path / name, value)

    def add_resume(self, facts: dict[str, Any]) -> None:
        """Adds a line to resumes.jsonl: one for each time that the run was continued."""
        path = self.path / "resumes.jsonl"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        write_text_atomically(path, before + json.dumps(facts) + "\n")

    def read_resumes(self) -> list[dict[str, Any]]:
        """What `add_resume` has kept.

        Raises:
            UserError: resumes.jsonl is damaged.
        """
        path = self.path / "resumes.jsonl"
        if not path.exists():
            return []
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise UserError(f"{path} is damaged: delete it, and the run continues as it began") from error

    def read_overrides(self) -> list[str]:
        """The overrides that the run was started with.

        Raises:
            UserError: overrides.json is missing or damaged.
        """
        path = self.path / "overrides.json"
        try:
            overrides: list[str] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is missing or damaged: start the run anew") from error
        return overrides

    def read_status(self) -> dict[str, Any]:
        """status.json, empty before the run has started.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path / STATUS
        if not path.exists():
            return {}
        try:
            status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(status, dict):
                raise ValueError("it holds no object")
        except ValueError as error:
            raise UserError(f"{path} is damaged: delete it, and the run continues without it") from error
        return status

    def update_status(self, **fields: Any) -> None:
        """Replaces some fields of status.json."""
        write_json_atomically(self.path / STATUS, {**self.read_status(), **fields})

    def renew_status(self) -> None:
        """Makes status.json say of metrics what metrics.jsonl says: it may be ahead of it, or deleted."""
        if not self.metrics_path.exists():
            return
        told: dict[str, Any] = {}
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines():
            told = after_record(told, json.loads(line))
        rest = {name: value for name, value in self.read_status().items() if name not in _OF_METRICS}
        write_json_atomically(self.path / STATUS, {**rest, **told})

    def append(self, path: Path, record: dict[str, Any]) -> None:
        """Adds a line to one of the .jsonl files, or nothing.

        Raises:
            UserError: the disk refuses.
        """
        line = json.dumps(record) + "\n"
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            with suppress(OSError):
                os.truncate(path, size)
            raise UserError(
                f"cannot write {path}: {error.strerror}; free space, then continue with resume={self.path}"
            ) from error

    def remove_leftovers(self) -> None:
        """Removes the temporary names of a process that was killed while it wrote."""
        for path in self.path.rglob(".*.tmp"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def forget_after(self, step: int) -> None:
        """Drops records of later steps than `step`, which a resumed run will make again, and half a line."""
        for path in (
            self.metrics_path,
            self.routing_path,
            self.routing_steps_path,
            self.routing_layers_path,
            self.rank_load_path,
            self.alarms_path,
        ):
            if not path.exists():
                continue
            kept = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    break  # the last line of a killed run may be half a line
                if record["step"] <= step:
                    kept.append(line + "\n")
            write_text_atomically(path, "".join(kept))


def after_record(status: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What status.json says of metrics after one more record: step, tokens, the last and the best of them.

    Args:
        status: before it; may be empty.
        record: a line of metrics.jsonl.
    """
    metrics = {name: value for name, value in record.items() if name not in ("step", "tokens")}
    fields = {
        "step": record["step"],
        "tokens": record["tokens"],
        "last": {**status.get("last", {}), **metrics},
    }
    best = status.get("best")
    score = metrics.get(_QUALITY)
    if score is not None and (best is None or score < best[_QUALITY]):
        best = {"step": record["step"], _QUALITY: score}
    return fields if best is None else {**fields, "best": best}
