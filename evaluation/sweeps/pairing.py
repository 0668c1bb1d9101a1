"""Figures over seeds, and differences of two arms paired by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.statistics.seeds import over_seeds
from evaluation.sweeps.cells import Cell
from evaluation.sweeps.steady import steady
from evaluation.sweeps.study import Study

Pairs = Sequence[tuple[str, str]]
"""Of arms: with and without, treated and reference."""


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds; what fewer than two seeds, or equal ones, do not tell is None."""

    by_seed: dict[int, float]
    mean: float
    deviation: float | None
    low: float | None
    """Ends of the 95% t interval."""
    high: float | None
    p: float | None
    """Two-sided, of a true mean of zero; for differences."""

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.by_seed)


def estimate(by_seed: Mapping[int, float]) -> Estimate | None:
    """Mean and t interval over seeds, steady on any processor; None without any."""
    values = {seed: steady(value) for seed, value in by_seed.items()}
    if not values:
        return None
    found = over_seeds(list(values.values()))
    if found is None:
        return Estimate(values, next(iter(values.values())), None, None, None, None)
    ends = (None if end is None else steady(end) for end in (found.low, found.high, found.p))
    return Estimate(values, steady(found.mean), steady(found.deviation), *ends)


def of_arm(study: Study, arm: str, figure: str) -> Estimate | None:
    """A figure of an arm over its seeds; None where no cell has it."""
    cells = study.of(arm)
    return estimate({seed: cell.figures[figure] for seed, cell in cells.items() if figure in cell.figures})


def difference(study: Study, pairs: Pairs, figure: str, *, relative: bool = False) -> Estimate | None:
    """Mean over pairs of (first - second), paired by seed; None where no seed has all pairs.

    This is the paired t test over seeds: what a seed does to both arms of a pair alike, above all the order
    of the data, cancels.

    Args:
        study: the sweep.
        pairs: of arms; a seed counts if both cells of every pair are finished and read the same data.
        figure: of the cells.
        relative: first / second - 1 instead.
    """
    common = [_ratios_or_differences(study, pair, figure, relative) for pair in pairs]
    if not common:
        return None
    seeds = [seed for seed in common[0] if all(seed in values for values in common)]
    return estimate({seed: sum(values[seed] for values in common) / len(common) for seed in seeds})


def comparable(first: Cell, second: Cell) -> bool:
    """Whether two cells of one seed learned from as many tokens of the same data in the same order."""
    same_length = first.figures.get("tokens") == second.figures.get("tokens")
    return first.texts["data"] == second.texts["data"] and same_length


def same_training(study: Study, first: str, second: str) -> bool:
    """Whether two arms have one configuration, so that they share their cells."""
    ids, others = ({cell.id for cell in study.of(arm).values()} for arm in (first, second))
    return ids == others and bool(ids)


def not_comparable(study: Study, first: str, second: str) -> list[int]:
    """Seeds that both arms have, and which are not paired all the same."""
    cells, others = study.of(first), study.of(second)
    return [seed for seed in cells if seed in others and not comparable(cells[seed], others[seed])]


def _ratios_or_differences(
    study: Study, pair: tuple[str, str], figure: str, relative: bool
) -> dict[int, float]:
    compare: Callable[[float, float], float] = (
        (lambda first, second: first / second - 1) if relative else (lambda first, second: first - second)
    )
    cells, others = (study.of(arm) for arm in pair)
    return {
        seed: compare(cell.figures[figure], others[seed].figures[figure])
        for seed, cell in cells.items()
        if seed in others
        and figure in cell.figures
        and figure in others[seed].figures
        and comparable(cell, others[seed])
        and not (relative and others[seed].figures[figure] == 0)
    }
