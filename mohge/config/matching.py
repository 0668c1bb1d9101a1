"""Fair by construction: widths that make a model cost what a reference does.

The cost is linear in the mean width of the routed experts and in that of the shared ones, so that the right
mean follows from two evaluations of `mohge.budget`; what is left is rounding.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from hydra import compose
from hydra.errors import MissingConfigException

from mohge.budget import Budget, budget
from mohge.config.checks import MATCHED, check
from mohge.config.load import group_choices, typed
from mohge.config.schema import ExpertsConfig, TrainConfig
from mohge.errors import UserError

C = TypeVar("C", bound=TrainConfig)

COSTS: dict[str, tuple[str, Callable[[Budget], int]]] = {
    "total": ("total parameters", lambda cost: cost.parameters.total),
    "active": ("expected active parameters", lambda cost: cost.active_parameters.expected),
    "flops": ("expected training FLOPs per token", lambda cost: cost.flops_per_token.train),
}
"""What can be equal: its name for people, and where a budget has it."""
_STEPS = (16, 8, 4)
"""Multiples of which widths are made, the best for kernels first; 4 numbers of float32 are 16 bytes, the
least that a grouped product takes."""
_BF16_STEPS = (16, 8)


def matched(config: C) -> C:
    """The configuration with widths that make it cost what `match.to` does, if `match.by` says in what.

    Routed experts keep their form: equal widths stay equal, and pairs of one sum stay so. They are rounded
    to a multiple of 16, or of 8 or 4 where that is too coarse; if this is too coarse too, shared experts make
    up the difference. A dense model has only these. It needs Hydra initialised, as it is in every command.

    Args:
        config: checked, and not matched before.

    Raises:
        UserError: `match.difference` is given, the reference is no preset at this size, or no rounded widths
            come within `MATCHED`.
    """
    match = config.match
    if match.by is None or not config.is_run:
        return config
    if match.difference is not None:
        raise UserError(f"match.difference={match.difference} is found, not given: leave it out")
    name, cost_in = COSTS[match.by]
    target = cost_in(budget(_reference(config)))

    def difference(experts: ExpertsConfig) -> float:
        return cost_in(budget(dataclasses.replace(config, experts=experts))) / target - 1

    candidates = list(_candidates(config, lambda experts: target * (1 + difference(experts)), target))
    best = next((one for one in candidates if abs(difference(one)) <= MATCHED), None)
    if best is None:
        nearest = min(candidates, key=lambda one: abs(difference(one)), default=config.experts)
        raise UserError(
            f"match.by={match.by} match.to={match.to} finds no widths for arch={config.arch_name}: the "
            f"nearest, experts.widths={list(nearest.widths)} experts.shared_width={nearest.shared_width}, "
            f"differ by {difference(nearest):+.2%} in {name}, and more than {MATCHED:.1%} is not matched; "
            "choose other widths, numbers of experts or shared experts"
        )
    found = dataclasses.replace(match, difference=round(difference(best), 6))
    result = dataclasses.replace(config, experts=best, match=found)
    check(result)
    return result


def describe_match(config: TrainConfig) -> str | None:
    """One sentence on a matched configuration, None for others."""
    match = config.match
    if match.by is None or match.difference is None:
        return None
    experts = config.experts
    pool = f"widths {', '.join(map(str, experts.widths))}; " if experts.widths else ""
    shared = f"shared experts of {experts.shared_width}" if experts.shared else "no shared experts"
    return f"Matched to arch={match.to} in {COSTS[match.by][0]}, {match.difference:+.2%}: {pool}{shared}."


def _reference(config: TrainConfig) -> TrainConfig:
    """The preset `match.to`, in all else like the configuration."""
    size, arch = config.model.name, config.match.to
    try:
        preset = _preset(size, arch)
    except MissingConfigException as error:  # of conf/ or of a folder of the user's
        for key, value, group in (("model.name", size, "model"), ("match.to", arch, "arch")):
            if error.missing_cfg_file == f"{group}/{value}":
                choices = sorted({*group_choices(group), *map(str, error.options or ())})
                raise UserError(
                    f"{key}={value} is no preset to match: choose one of {', '.join(choices)}"
                ) from error
        raise
    return dataclasses.replace(config, experts=preset.experts, router=preset.router)


@functools.cache
def _preset(size: str, arch: str) -> TrainConfig:
    return typed(TrainConfig, compose("train", overrides=[f"model={size}", f"arch={arch}"]))


def _candidates(
    config: TrainConfig, cost_of: Callable[[ExpertsConfig], float], target: float
) -> Iterator[ExpertsConfig]:
    """Pools near the target, better ones first."""
    experts = config.experts
    steps = _BF16_STEPS if config.trainer.precision == "bf16" else _STEPS
    if not experts.widths:
        for step in steps:
            yield from _with_shared(experts, cost_of, target, step)
        return
    mean = sum(experts.widths) / len(experts.widths)
    doubled = dataclasses.replace(experts, widths=tuple(2 * width for width in experts.widths))
    slope = (cost_of(doubled) - cost_of(experts)) / mean
    wanted = mean + (target - cost_of(experts)) / slope
    pools = [
        dataclasses.replace(experts, widths=widths)
        for step in steps
        for rounded in _nearest(wanted, step)
        if (widths := _scaled(experts.widths, mean, rounded, step)) is not None
    ]
    yield from pools
    if experts.shared:
        made_up = [one for pool in pools for one in _with_shared(pool, cost_of, target, steps[-1])]
        yield from sorted(made_up, key=lambda one: abs(one.shared_width - experts.shared_width))


def _with_shared(
    experts: ExpertsConfig, cost_of: Callable[[ExpertsConfig], float], target: float, step: int
) -> Iterator[ExpertsConfig]:
    """The same with the shared experts' width that comes nearest the target."""
    width = experts.shared_width
    wider = dataclasses.replace(experts, shared_width=2 * width)
    slope = (cost_of(wider) - cost_of(experts)) / width
    nearest = next(_nearest(width + (target - cost_of(experts)) / slope, step))
    if nearest > 0:
        yield dataclasses.replace(experts, shared_width=nearest)


def _nearest(wanted: float, step: int) -> Iterator[int]:
    """The two multiples around a number, the nearer first."""
    below = int(wanted // step) * step
    yield from sorted((below, below + step), key=lambda multiple: abs(multiple - wanted))


def _scaled(widths: Sequence[int], mean: float, new_mean: int, step: int) -> tuple[int, ...] | None:
    """Widths around a new mean, in proportion; None if one would vanish, or different ones become equal.

    Distances from the mean are rounded, not widths: so what is symmetric stays symmetric.
    """
    scale = new_mean / mean
    found = tuple(new_mean + step * round(scale * (width - mean) / step) for width in widths)
    return found if min(found) >= step and len(set(found)) == len(set(widths)) else None
