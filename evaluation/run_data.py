"""Reading a run's folder, with every way it can be damaged told in one sentence."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from mohge.config.schema import TrainConfig
from mohge.errors import UserError

T = TypeVar("T")


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

    @property
    def growing(self) -> bool:
        """Whether the run may go on, so that the last line of a file may be half a line."""
        return self.status.get("state") != "finished"

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

    routing.jsonl may be missing only where nothing wrote it: in a dense run, with callbacks.routing=null, or
    before the first validation of a run that goes on.

    Raises:
        UserError: the folder or a file of it is missing, cut short or not what it should be.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no run folder: give the folder of a run of mohge-train")
    try:
        # Not mohge.config.load.typed: that also checks that the data is where the run found it, and a run
        # can be read on another machine.
        config = TypeAdapter(TrainConfig).validate_python(read_object(path / "config.yaml"))
    except ValidationError as error:
        raise _damaged(path / "config.yaml", f"{error.error_count()} keys do not fit") from error
    has_routing = config.experts.num_experts > 0 and config.callbacks.routing is not None
    status = read_object(path / "status.json")
    growing = status.get("state") != "finished"
    run = RunData(
        name=name,
        path=path,
        config=config,
        status=status,
        budget=read_object(path / "budget.json"),
        metrics=read_lines(path / "metrics.jsonl", growing=growing),
        routing=read_lines(path / "routing.jsonl", growing=growing) if has_routing else [],
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


def read_object(path: Path) -> dict[str, Any]:
    """The object that a .json or .yaml file holds.

    Raises:
        UserError: it is missing or damaged.
    """
    text = _read(path)
    try:
        value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise _damaged(path, str(error).splitlines()[0]) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it holds no object")
    return value


def read_lines(
    path: Path,
    *,
    needs: Collection[str] = ("step", "tokens"),
    growing: bool = False,
    most: int | None = None,
) -> list[dict[str, Any]]:
    """The objects of a .jsonl file, one per line.

    Args:
        path: of the file.
        needs: keys that every object has.
        growing: whether the run goes on or was killed, so that the file may not be there yet, and its last
            line may be half a line.
        most: read this many lines at most, spread evenly from the first to the last; None for all.

    Raises:
        UserError: the file is missing or damaged.
    """
    if growing and not path.exists():
        return []
    text = _read(path)
    lines = list(enumerate(text.splitlines(), start=1))
    if growing and lines and not text.endswith("\n"):
        lines.pop()
    rows = []
    for number, line in spread(lines, most) if most else lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _damaged(path, f"line {number} is not JSON") from error
        if not isinstance(row, dict) or not set(needs) <= row.keys():
            raise _damaged(path, f"line {number} has no {' and '.join(needs)}")
        rows.append(row)
    return rows


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most this many of the items, spread evenly; the first and the last are among them."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[-1]]
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}): resume the run, or run it again")
