"""Reading a run's folder, with every way it can be damaged told in one sentence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from mohge.config.schema import TrainConfig
from mohge.errors import UserError


@dataclass(frozen=True)
class RunData:
    """What a run's folder says. `metrics` and `routing` hold one dict per line, steps increasing."""

    name: str
    path: Path
    config: TrainConfig
    status: dict[str, Any]
    budget: dict[str, Any]
    metrics: list[dict[str, Any]]
    routing: list[dict[str, Any]]

    def series(self, metric: str, over: str = "tokens") -> tuple[list[float], list[float]]:
        """`over` ("tokens" or "step") and the values of a metric, where it was recorded."""
        rows = [row for row in self.metrics if metric in row]
        return [row[over] for row in rows], [row[metric] for row in rows]

    def last(self, metric: str) -> float | None:
        """The newest value of a metric, or None when it was never recorded."""
        values = self.series(metric)[1]
        return values[-1] if values else None

    def rows_share(self) -> list[float] | None:
        """Share of all routed rows that each width group computed in the last validation, or None."""
        if not self.routing:
            return None
        per_group = self.config.experts.per_group
        layers = self.routing[-1]["expert_counts"]
        total = sum(map(sum, layers))
        starts = range(0, self.config.experts.num_experts, per_group)
        return [sum(sum(counts[start : start + per_group]) for counts in layers) / total for start in starts]


def read_run(name: str, path: Path) -> RunData:
    """Read a run's folder.

    routing.jsonl may be missing only where nothing wrote it: in a dense run, or with callbacks.routing=null.

    Raises:
        UserError: the folder or a file of it is missing, cut short or not what it should be.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no run folder: give the folder of a run of mohge-train")
    try:
        # Not mohge.config.load.typed: that also checks that the data is where the run found it, and a run
        # can be read on another machine.
        config = TypeAdapter(TrainConfig).validate_python(_mapping(path / "config.yaml"))
    except ValidationError as error:
        raise _damaged(path / "config.yaml", f"{error.error_count()} keys do not fit") from error
    has_routing = config.experts.num_experts > 0 and config.callbacks.routing is not None
    run = RunData(
        name=name,
        path=path,
        config=config,
        status=_mapping(path / "status.json"),
        budget=_mapping(path / "budget.json"),
        metrics=_lines(path / "metrics.jsonl"),
        routing=_lines(path / "routing.jsonl") if has_routing else [],
    )
    _check(run)
    return run


def _check(run: RunData) -> None:
    """Refuse content that later arithmetic would stumble over."""
    for group, key in (("parameters", "total"), ("active_parameters", "expected")):
        value = run.budget.get(group)
        if not isinstance(value, dict) or not isinstance(value.get(key), int | float):
            raise _damaged(run.path / "budget.json", f"it has no {group}.{key}")
    if not run.metrics:
        raise UserError(f"{run.path / 'metrics.jsonl'} is empty: the run has recorded nothing yet")
    experts, layers = run.config.experts, run.config.model.layers
    for row in run.routing:
        counts = row.get("expert_counts")
        if not isinstance(counts, list) or [len(layer) for layer in counts] != [experts.num_experts] * layers:
            reason = f"step {row['step']} lacks counts of {layers} layers x {experts.num_experts} experts"
            raise _damaged(run.path / "routing.jsonl", reason)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: give the folder of a run of mohge-train") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error


def _mapping(path: Path) -> dict[str, Any]:
    text = _read(path)
    try:
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no object")
    return value


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _damaged(path, f"line {number} is not JSON") from error
        if not isinstance(row, dict) or not {"step", "tokens"} <= row.keys():
            raise _damaged(path, f"line {number} has no step and tokens")
        rows.append(row)
    return rows


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}): resume the run, or run it again")
