"""How evenly ranks worked: as recorded where there were several, replayed where there was one process.

Shape suffixes: S steps, R ranks.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from evaluation.run_data import RunData, read_lines
from mohge.parallel.replay import replay_run

LAST = 0.1
"""Share of a run's steps, at its end, that balance is told of."""
RECORDED = "as trained"


@dataclass(frozen=True)
class RankBalance:
    """Expert FLOPs of ranks in the last tenth of a run's steps."""

    run: str
    recorded: bool
    """Whether these ranks worked; else it is a replay of the routing."""
    max_over_mean: dict[str, float]
    """Largest over mean of the ranks' FLOPs per step, mean over steps; by placement, or `as trained`."""
    shares: dict[str, list[float]]
    """Load of each rank over the mean load, over all those steps."""
    steps_S: list[int]
    """Steps of `history_S`; none in a replay."""
    history_S: list[float]
    """Largest over mean in each of them."""

    @property
    def ranks(self) -> int:
        """R."""
        return len(next(iter(self.shares.values())))

    @property
    def main(self) -> str:
        """The placement that training has."""
        return RECORDED if self.recorded else "all_size"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "ranks": self.ranks,
            "recorded": self.recorded,
            "max_over_mean": self.max_over_mean,
            "load_per_rank": self.shares,
        }


def rank_balance(run: RunData, ranks: int) -> RankBalance | None:
    """Balance of the ranks that trained a run, or of `ranks` ranks that would have.

    None for a dense run, or one whose routing nobody watched.

    Raises:
        UserError: what was recorded is damaged, or too little for a replay; or the ranks do not divide the
            experts.
    """
    if not run.config.experts.num_experts:
        return None
    path = run.path / "rank_load.jsonl"
    if path.exists():
        lines = read_lines(path, needs=("step", "expert_flops"), growing=run.growing)
        # A run that went on with one process has newer steps than these.
        newest = lines and lines[-1]["step"] + run.config.trainer.log_every >= run.metrics[-1]["step"]
        if newest and len(lines[-1]["expert_flops"]) > 1:
            return recorded_balance(run.name, lines)
    if run.config.callbacks.routing is None:
        return None
    replay = replay_run(run.path, ranks, LAST)
    return RankBalance(
        run=run.name,
        recorded=False,
        max_over_mean={name: load.flops.per_step for name, load in replay.loads.items()},
        shares={name: [share * ranks for share in load.flops_share_R] for name, load in replay.loads.items()},
        steps_S=[],
        history_S=[],
    )


def recorded_balance(run: str, lines: Sequence[dict[str, Any]]) -> RankBalance:
    """Balance of recorded steps, each with a list `expert_flops` over ranks.

    A run that went on with another number of ranks is judged by the newest.
    """
    ranks = len(lines[-1]["expert_flops"])
    lines = [line for line in lines if len(line["expert_flops"]) == ranks]
    last_step = lines[-1]["step"]
    newest = [line for line in lines if last_step - line["step"] < Fraction(str(LAST)) * last_step]
    load_R = [sum(line["expert_flops"][rank] for line in newest) for rank in range(ranks)]
    return RankBalance(
        run=run,
        recorded=True,
        max_over_mean={RECORDED: statistics.mean(_max_over_mean(line["expert_flops"]) for line in newest)},
        shares={RECORDED: [load * ranks / max(sum(load_R), 1) for load in load_R]},
        steps_S=[line["step"] for line in lines],
        history_S=[_max_over_mean(line["expert_flops"]) for line in lines],
    )


def _max_over_mean(load_R: Sequence[float]) -> float:
    return max(load_R) * len(load_R) / max(sum(load_R), 1)
