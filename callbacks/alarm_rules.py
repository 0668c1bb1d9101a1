"""When a run's records call for an alarm, and what it says.

The rules know nothing but the configuration and the records of metrics.jsonl, in order: fed with them again,
they raise the same alarms.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mohge.config.schema import TrainConfig

Record = Mapping[str, Any]
"""An object of metrics.jsonl: `step`, `tokens`, and metrics by name."""

IN_A_ROW = 5
"""Records that a lasting state must hold before it is told."""
AWAY = 10
"""Records without it before it may be told again."""
SETTLING = 100
"""Optimizer steps after warm-up in which uneven routing is no news: it evens out by itself, or does not."""
COLLAPSED = 0.9
"""Collapse is so far on the way from an even load, 0, to all tokens at the same K experts, 1."""
STALLED = 0.1
"""Share of a step's time that waiting for data may take."""
UNEVEN = 1.2
"""Largest over mean of the ranks' expert FLOPs that is still even."""
CHANCE = 0.01
"""Idle experts are no news where even routing would leave so many idle, by chance, in a step."""
SPIKE_WINDOW = 32
"""Newest records, with whose losses the next is compared."""
SPIKE_HISTORY = 16
"""Records that the window must hold before a loss is called a spike."""
SPIKE_DEVIATIONS = 6.0
"""Standard deviations above the median, estimated as 1.4826 median absolute deviations, that are a spike."""
SPIKE_LEAST = 0.05
"""Rise over the median, as a share of it, below which nothing is a spike, however quiet the run."""

_RANKS = "ranks/expert_flops_max_over_mean"
_VIOLATION = "routing/max_violation"
_IDLE = "routing/dead_experts"


@dataclass(frozen=True)
class Alarm:
    """Something that a user should look at."""

    step: int
    """Optimizer steps done."""
    tokens: int
    """Tokens learned from."""
    kind: str
    """What it is about, a name."""
    text: str
    """What was seen, and what to change, in one sentence."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        return asdict(self)


Look = Callable[[Record], str | None]
"""What is wrong in a record, in words; None where nothing is."""


class Watch:
    """Tells a state once, when it has lasted, and again only after it was away for `AWAY` records.

    Args:
        kind: of alarm.
        metric: that must be in a record for the state to be known; other records change nothing.
        look: at a record that has it.
        after: this step; records up to it do not count.
        in_a_row: records in a row that must be in the state.
    """

    def __init__(self, kind: str, metric: str, look: Look, after: int = 0, in_a_row: int = IN_A_ROW) -> None:
        self.kind = kind
        self._metric, self._look, self._after, self._in_a_row = metric, look, after, in_a_row
        self._lasted, self._away, self._told = 0, 0, False

    def feed(self, record: Record) -> str | None:
        """The text of an alarm, if this record calls for one."""
        if self._metric not in record or record["step"] <= self._after:
            return None
        text = self._look(record)
        if text is None:
            self._lasted = 0
            self._away += 1
            self._told = self._told and self._away < AWAY
            return None
        self._lasted += 1
        self._away = 0
        if self._told or self._lasted < self._in_a_row:
            return None
        self._told = True
        return text


class AlarmRules:
    """All rules that apply to a run.

    Args:
        train: configuration of the run.
        warmup_steps: of its learning rate, in which the loss may do what it likes.
    """

    def __init__(self, train: TrainConfig, warmup_steps: int) -> None:
        settled = warmup_steps + SETTLING
        self._watches = [
            Watch("loss_spike", "train/loss", _LossSpike(train), warmup_steps, in_a_row=1),
            Watch("loader_stall", "time/data_share", _loader_stall(train)),
            Watch("rank_imbalance", _RANKS, _rank_imbalance(train), settled),
        ]
        if 0 < train.router.expert_top_k < train.experts.num_experts:
            self._watches.append(Watch("collapse", _VIOLATION, _collapse(train), settled))
        if train.experts.num_experts and _idle_by_chance(train) < CHANCE:
            self._watches.append(Watch("idle_experts", _IDLE, _idle_experts(train), settled))

    def feed(self, record: Record) -> list[Alarm]:
        """Alarms that the next record of the run calls for."""
        return [
            Alarm(record["step"], record["tokens"], watch.kind, text)
            for watch in self._watches
            if (text := watch.feed(record)) is not None
        ]


class _LossSpike:
    """A loss far above those before it: robustly, since a spike in the window must not hide the next."""

    def __init__(self, train: TrainConfig) -> None:
        self._losses: deque[float] = deque(maxlen=SPIKE_WINDOW)
        optim, trainer = train.optim, train.trainer
        self._remedy = (
            "if it does not come back, continue from a checkpoint before it with a lower "
            f"optim.lr ({optim.lr:g}) or trainer.clip ({trainer.clip})"
        )

    def __call__(self, record: Record) -> str | None:
        loss = record["train/loss"]
        text = None
        if len(self._losses) >= SPIKE_HISTORY:
            median = statistics.median(self._losses)
            deviation = 1.4826 * statistics.median(abs(each - median) for each in self._losses)
            if loss > median + max(SPIKE_DEVIATIONS * deviation, SPIKE_LEAST * median):
                text = (
                    f"train/loss is {loss:.3f}, and the median of the {len(self._losses)} records before is "
                    f"{median:.3f}: {self._remedy}"
                )
        self._losses.append(loss)
        return text


def _collapse(train: TrainConfig) -> Look:
    """Near the bounds of MaxVio (arXiv 2408.15664), E/K - 1, or of the entropy of experts, log K / log E."""
    E, K = train.experts.num_experts, train.router.expert_top_k
    lowest_entropy = math.log(K) / math.log(E)

    def look(record: Record) -> str | None:
        violation = record[_VIOLATION]
        of_load = violation / (E / K - 1)
        entropy = record.get("routing/expert_entropy", 1.0)
        of_entropy = (1 - entropy) / (1 - lowest_entropy)
        if max(of_load, of_entropy) < COLLAPSED:
            return None
        return (
            f"routing collapses: the busiest expert has {violation + 1:.1f} times the mean load, where "
            f"{E / K:.1f} means that all tokens take the same experts: {_raise_balance(train)}, or lower "
            f"optim.lr ({train.optim.lr:g})"
        )

    return look


def _idle_experts(train: TrainConfig) -> Look:
    experts = train.experts.num_experts * train.model.layers

    def look(record: Record) -> str | None:
        idle = round(record[_IDLE])
        if not idle:
            return None
        return (
            f"{idle} of {experts} experts got no token in this step, and some were idle in each of the "
            f"newest {IN_A_ROW} records: {_raise_balance(train)}, or optim.warmup_fraction "
            f"({train.optim.warmup_fraction:g})"
        )

    return look


def _idle_by_chance(train: TrainConfig) -> float:
    """Experts that even routing leaves idle in a step, of all layers: each is missed as by Poisson's law."""
    E = train.experts.num_experts
    rows = train.tokens_per_step * train.router.expert_top_k / E
    return train.model.layers * E * math.exp(-rows)


def _loader_stall(train: TrainConfig) -> Look:
    def look(record: Record) -> str | None:
        share = record["time/data_share"]
        if share <= STALLED:
            return None
        return (
            f"training waits for data {share:.0%} of the time: raise data.workers ({train.data.workers}), or "
            "put paths.cache_dir on a faster disk"
        )

    return look


def _rank_imbalance(train: TrainConfig) -> Look:
    def look(record: Record) -> str | None:
        uneven = record[_RANKS]
        if uneven <= UNEVEN:
            return None
        return (
            f"the busiest rank computes {uneven:.2f} times the mean expert FLOPs, and the others wait: "
            f"{_raise_balance(train)}, and compare values of parallel.placement with mohge-plan "
            "replay=RUN_DIR"
        )

    return look


def _raise_balance(train: TrainConfig) -> str:
    """What balances experts: those of each width group, or all."""
    if train.router.kind == "two_level":
        return f"raise loss.intra_weight ({train.loss.intra_weight:g})"
    if train.router.bias_rate:
        return f"raise router.bias_rate ({train.router.bias_rate:g})"
    if train.loss.penalty_weight:
        return f"raise loss.penalty_weight ({train.loss.penalty_weight:g})"
    return f"raise loss.balance_weight ({train.loss.balance_weight:g})"
