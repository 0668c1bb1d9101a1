"""Placement of experts on ranks: All-size Group-decoupling Allocation (MoHGE, arXiv 2604.23108).

Every rank holds experts of different widths, so that the cost of a token's widths is spread evenly.
"""

from __future__ import annotations

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
    if num_groups < 1 or experts_per_group < 1:
        raise ValueError(f"{num_groups} groups of {experts_per_group} experts: both numbers must be positive")
    groups = [i // 2 if i % 2 == 0 else num_groups - 1 - i // 2 for i in range(num_groups)]
    return [(group, n) for n in range(experts_per_group) for group in groups]


def place(num_groups: int, experts_per_group: int, ranks: int) -> list[list[Slot]]:
    """Give each rank a contiguous run of the slots of `all_size_order`.

    With N divisible by `ranks`, each rank holds N / ranks experts of every width.

    Args:
        num_groups: G.
        experts_per_group: N.
        ranks: devices that share the experts.

    Returns:
        For each rank, its (group, n) pairs in slot order.

    Raises:
        ValueError: if the ranks do not divide the G * N experts; the message names the numbers that do.
    """
    slots = all_size_order(num_groups, experts_per_group)
    if ranks < 1 or len(slots) % ranks:
        divisors = ", ".join(str(d) for d in range(1, len(slots) + 1) if len(slots) % d == 0)
        raise ValueError(
            f"{len(slots)} experts ({num_groups} groups of {experts_per_group}) do not divide among "
            f"{ranks} ranks; use one of {divisors} "
            f"(a divisor of {experts_per_group} gives each rank the same widths)"
        )
    run = len(slots) // ranks
    return [slots[rank * run : (rank + 1) * run] for rank in range(ranks)]
