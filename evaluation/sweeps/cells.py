"""The figures of one training of a sweep."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.run_data import RunData, read_lines, read_object, read_run
from mohge.config.load import as_dict
from mohge.parallel.replay import replay_run
from mohge.sweep.same_data import read_settings
from mohge.training.run_folder import RunFolder

QUALITY = "bits_per_byte"
"""The figure that arms are compared by: of the last validation, less is better."""
DOMAIN = f"{QUALITY}/"
"""Of one domain of the held-out text: its name follows."""
RANKS = 8
"""GPUs that the recorded routing is replayed on, as many as the paper's table of loads has."""
BUSIEST = "busiest_rank/"
"""Of these, the busiest one's FLOPs over the mean, by step: the placement of experts follows."""
_LATE = 0.1
"""Share of a run, at its end, that noisy figures of training are averaged over."""
_LAST = {
    QUALITY: "val/bits_per_byte",
    "val_loss": "val/loss",
    "perplexity": "val/perplexity",
    "active_validation": "val/routing/active_parameters",
    "max_violation": "val/routing/max_violation",
    "load_variation": "val/routing/load_variation",
    "idle_experts": "val/routing/dead_experts",
    "group_entropy": "val/routing/group_entropy",
    "expert_entropy": "val/routing/expert_entropy",
}
"""Figures of the last validation, by the metric of the run."""
_AVERAGED = {
    "train_loss": "train/loss",
    "active_measured": "routing/active_parameters",
    "flops_measured": "routing/flops_per_token",
}
"""Figures of the last tenth of the training."""
TEXTS = ("arch", "model", "widths", "match", "revision", "data")
"""What is no number: arch and model; widths of the groups; what the model is matched to; git revisions of its
beginning and continuations, with spaces between them, each with a plus if the tree had changes; a checksum of
what was read in which order, but for the seed."""
_DIGITS = 9
"""Significant digits of a figure, which are what the compact table keeps: it says what the folders say."""


@dataclass(frozen=True)
class Cell:
    """A finished training.

    `figures` by name: those above; `steps`, `tokens`, `total_parameters`, `active_expected`, `flops_expected`
    (of training on a token), `tokens_per_second` (median), `seconds` (of all steps), `mean_width` (of the
    experts that computed a row), `match_difference`; `bits_per_byte/DOMAIN`, `share/G` (of the rows, of group
    G), `aux/LOSS` (raw, over the last tenth), `busiest_rank/PLACEMENT` (likewise). What a run did not record,
    or what is no finite number, is absent. A dense model's measured figures are the expected ones.
    """

    arm: str
    seed: int
    id: str
    texts: dict[str, str]
    figures: dict[str, float]


@dataclass(frozen=True)
class CurvePoint:
    """A validation on the way."""

    arm: str
    seed: int
    tokens: float
    bits_per_byte: float
    active_measured: float | None
    """Parameters that a token of the validation used."""


def read_cell(arm: str, seed: int, id: str, path: Path) -> tuple[Cell, RunData]:
    """The figures of a finished run, and the run.

    Raises:
        UserError: a file of the folder is missing or damaged.
    """
    run = read_run(f"{arm} seed {seed}", path)
    texts = {
        "arch": run.config.arch_name,
        "model": run.config.model.name,
        "widths": " ".join(map(str, run.config.experts.widths)),
        "match": f"{run.config.match.by} of {run.config.match.to}" if run.config.match.by else "",
        "revision": _revision(path),
        "data": _data_checksum(run),
    }
    found = _figures(run)
    figures = {
        name: rounded(value)
        for name in in_order(found)
        if (value := found[name]) is not None and math.isfinite(value)
    }
    return Cell(arm, seed, id, texts, figures), run


def in_order(names: Iterable[str]) -> list[str]:
    """Names of figures, those of parts (`share/0`) last, as the compact table has them."""
    return sorted(names, key=lambda name: ("/" in name, name))


def curve(arm: str, seed: int, run: RunData) -> list[CurvePoint]:
    """Every validation of a run."""
    return [
        CurvePoint(
            arm,
            seed,
            float(row["tokens"]),
            rounded(row["val/bits_per_byte"]),
            rounded(row["val/routing/active_parameters"]) if "val/routing/active_parameters" in row else None,
        )
        for row in run.metrics
        if math.isfinite(row.get("val/bits_per_byte", math.nan))
    ]


def rounded(value: float) -> float:
    """What the compact table has of a figure; an integer stays what it is."""
    return float(value) if float(value).is_integer() else float(f"{value:.{_DIGITS}g}")


def _figures(run: RunData) -> dict[str, float | None]:
    flops = run.budget.get("flops_per_token", {}).get("train")
    expected = run.budget["active_parameters"]["expected"]
    speeds = run.series("speed/tokens_per_second")[1]
    steps, paces = run.metrics[-1]["step"], run.series("speed/seconds_per_step")[1]
    figures: dict[str, float | None] = {
        "steps": steps,
        "tokens": run.metrics[-1]["tokens"],
        "total_parameters": run.budget["parameters"]["total"],
        "active_expected": expected,
        "flops_expected": flops,
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "seconds": steps * statistics.mean(paces) if paces else None,
        "match_difference": run.config.match.difference,
    }
    figures |= {name: run.last(metric) for name, metric in _LAST.items()}
    figures |= {name: _late(run, metric) for name, metric in _AVERAGED.items()}
    if not run.config.experts.num_experts:
        figures |= {"active_measured": expected, "active_validation": expected, "flops_measured": flops}
    for name in sorted({name for row in run.metrics for name in row}):
        if name.startswith("val/bits_per_byte/"):
            figures[name.removeprefix("val/")] = run.last(name)
        elif name.startswith("aux/"):
            figures[name] = _late(run, name)
    shares = run.rows_share() or []
    figures |= {f"share/{group}": share for group, share in enumerate(shares)}
    if shares:
        widths = run.config.experts.widths
        figures["mean_width"] = sum(share * width for share, width in zip(shares, widths, strict=True))
    return figures | _busiest(run)


def _busiest(run: RunData) -> dict[str, float]:
    """The busiest of `RANKS` ranks, by placement, if steps were recorded and the ranks divide the experts."""
    experts = run.config.experts.num_experts
    if not experts or experts % RANKS or not RunFolder(run.path).routing_steps_path.exists():
        return {}
    loads = replay_run(run.path, RANKS, _LATE).loads
    return {f"{BUSIEST}{placement}": load.flops.per_step for placement, load in loads.items()}


def _late(run: RunData, metric: str) -> float | None:
    """Mean of a metric over the last tenth of the steps; None where it was not recorded there."""
    steps, values = run.series(metric, over="step")
    begin = (1 - _LATE) * run.metrics[-1]["step"]
    late = [value for step, value in zip(steps, values, strict=True) if step > begin]
    return statistics.fmean(late) if late else None


def _revision(path: Path) -> str:
    """Short git revisions that a run was begun and continued at, with a plus if the tree had changes.

    Each once, with a space between them; empty if none is known.
    """
    environments = [read_object(path / "environment.json")] if (path / "environment.json").exists() else []
    continued = read_lines(path / "resumes.jsonl", needs=("environment",), growing=True)
    environments += [line["environment"] for line in continued]
    states = [git for one in environments if (git := one.get("git") or {}).get("revision")]
    shown = [f"{git['revision'][:10]}{'+' if git.get('dirty') else ''}" for git in states]
    return " ".join(dict.fromkeys(shown))


def _data_checksum(run: RunData) -> str:
    """The same for runs that, with one seed, learn from the same tokens in the same order.

    It has the held-out text in it: bits per byte of other text are not to be compared either.
    """
    path = run.path / "data.json"
    config = as_dict(run.config)
    read: dict[str, Any] = {
        "fingerprint": read_object(path).get("fingerprint") if path.exists() else None,
        "data": read_settings(config["data"]),
        "accumulate": run.config.trainer.accumulate,
        "val_sequences": run.config.trainer.val_sequences,
    }
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:12]
