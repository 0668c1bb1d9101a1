"""Arms that are one training at first, until a loss that tells them apart is switched on.

They have the noise of their common part in common: each by itself tells nothing more of it, and differences
between them are less noisy than others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from evaluation.sweeps.pairing import Pairs
from evaluation.sweeps.study import Study


def begun_as(study: Study) -> dict[str, str]:
    """For each arm the first one that it begins like with some seed; itself if there is none before it.

    Two begin alike if their first validations are equal, to the last digit.
    """
    first = _first_validations(study)
    found: dict[str, str] = {}
    for arm in study.arms:
        leaders = [other for other, leader in found.items() if other == leader]
        found[arm] = next((other for other in leaders if first[arm].items() & first[other].items()), arm)
    return found


def parted(study: Study) -> dict[tuple[str, ...], list[str]]:
    """Arms that begin alike with some seeds and not with others.

    So it is where one of them was trained on a processor that rounds differently.

    Returns:
        By the first of these arms, followed by the seeds: the others.
    """
    first = _first_validations(study)
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for arm, leader in begun_as(study).items():
        seeds = [
            str(seed)
            for seed, validation in first[arm].items()
            if seed in first[leader] and validation != first[leader][seed]
        ]
        if seeds:
            found[leader, *seeds].append(arm)
    return found


def share_noise(begun: Mapping[str, str], pairs: Pairs) -> bool:
    """Whether the arms of some pair begin alike; `begun` is of `begun_as`."""
    return any(begun.get(first, first) == begun.get(second, second) for first, second in pairs)


def _first_validations(study: Study) -> dict[str, dict[int, tuple[float, float]]]:
    """By arm and seed, tokens and bits per byte of the first validation after the start."""
    found: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for point in study.curves:  # by rising tokens; the untrained model tells nothing
        if point.tokens:
            found[point.arm].setdefault(point.seed, (point.tokens, point.bits_per_byte))
    return found
