"""Placement of experts on ranks: an order of all experts, of which each rank holds a contiguous run.

`all_size` is All-size Group-decoupling Allocation (MoHGE, arXiv 2604.23108): every rank holds experts of
different widths, so that the cost of a token's widths is spread evenly. `contiguous` and `pairs` are what it
is compared with.

Shapes: G groups of increasing width, N experts per group.
"""

from __future__ import annotations

from collections.abc import Callable

from mohge.config.schema import Placement
from mohge.parallel.remedies import divisors

Slot = tuple[int, int]
"""(group, index of the expert in its group)."""


def all_size_order(num_groups: int, experts_per_group: int) -> list[Slot]:
    """All experts in slot order: index by index, groups alternating between narrow and wide.

    For 8 groups the order of groups within one index is [0, 7, 1, 6, 2, 5, 3, 4]. When widths are an
    arithmetic series, two neighbours (0, 7), (1, 6), ... have widths of one constant sum.

    Args:
        num_groups: G, in increasing width.
        experts_per_group: N.

    Returns:
        G * N pairs (group, n).

    Raises:
        ValueError: if a number is not positive.
    """
    _check(num_groups, experts_per_group)
    groups = [i // 2 if i % 2 == 0 else num_groups - 1 - i // 2 for i in range(num_groups)]
    return [(group, n) for n in range(experts_per_group) for group in groups]


def contiguous_order(num_groups: int, experts_per_group: int) -> list[Slot]:
    """All experts in slot order: group by group, as expert ids count them.

    The plain layout, which ignores widths: a rank then holds experts of one or few widths, and ranks differ
    in parameters and in work.

    Args:
        num_groups: G, in increasing width.
        experts_per_group: N.

    Returns:
        G * N pairs (group, n).

    Raises:
        ValueError: if a number is not positive.
    """
    _check(num_groups, experts_per_group)
    return [(group, n) for group in range(num_groups) for n in range(experts_per_group)]


def pairs_order(num_groups: int, experts_per_group: int) -> list[Slot]:
    """All experts in slot order: pair by pair, group i with group G - 1 - i (MoDSE, arXiv 2409.12210).

    The pairs of two groups follow one another: (0, G - 1) for every n, then (1, G - 2), and so on to the
    middle. When widths are an arithmetic series, as in MoDSE, every pair has the same sum of widths. A run
    of an even length keeps pairs together. With odd G, the experts of the middle group pair with each other,
    and one is left over if N is odd too.

    Args:
        num_groups: G, in increasing width.
        experts_per_group: N.

    Returns:
        G * N pairs (group, n).

    Raises:
        ValueError: if a number is not positive.
    """
    _check(num_groups, experts_per_group)
    slots = [
        (group, n)
        for narrow in range(num_groups // 2)
        for n in range(experts_per_group)
        for group in (narrow, num_groups - 1 - narrow)
    ]
    middle = range(num_groups // 2, num_groups - num_groups // 2)
    return slots + [(group, n) for group in middle for n in range(experts_per_group)]


_ORDERS: dict[Placement, Callable[[int, int], list[Slot]]] = {
    "all_size": all_size_order,
    "contiguous": contiguous_order,
    "pairs": pairs_order,
}


def place(
    num_groups: int, experts_per_group: int, ranks: int, placement: Placement = "all_size"
) -> list[list[Slot]]:
    """Give each rank a contiguous run of the slots in the order of a placement.

    Under `all_size`, with N divisible by `ranks`, each rank holds N / ranks experts of every width.

    Args:
        num_groups: G.
        experts_per_group: N.
        ranks: devices that share the experts.
        placement: the order: `all_size_order`, `contiguous_order` or `pairs_order`.

    Returns:
        For each rank, its (group, n) pairs in slot order.

    Raises:
        ValueError: if the ranks do not divide the G * N experts; the message names the numbers that do.
    """
    slots = _ORDERS[placement](num_groups, experts_per_group)
    if ranks < 1 or len(slots) % ranks:
        fitting = ", ".join(map(str, divisors(len(slots))))
        same_widths = f" (a divisor of {experts_per_group} gives each rank the same widths)"
        raise ValueError(
            f"{len(slots)} experts ({num_groups} groups of {experts_per_group}) do not divide among "
            f"{ranks} ranks; use one of {fitting}{same_widths if placement == 'all_size' else ''}"
        )
    run = len(slots) // ranks
    return [slots[rank * run : (rank + 1) * run] for rank in range(ranks)]


def _check(num_groups: int, experts_per_group: int) -> None:
    if num_groups < 1 or experts_per_group < 1:
        raise ValueError(f"{num_groups} groups of {experts_per_group} experts: both numbers must be positive")
