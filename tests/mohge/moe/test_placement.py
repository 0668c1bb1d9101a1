from collections import Counter
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mohge.config.schema import Placement
from mohge.moe.placement import Slot, all_size_order, contiguous_order, pairs_order, place

PLACEMENTS: tuple[Placement, ...] = get_args(Placement)
ORDERS = {"all_size": all_size_order, "contiguous": contiguous_order, "pairs": pairs_order}


@pytest.mark.parametrize("order", ORDERS.values())
@settings(deadline=None)
@given(groups=st.integers(1, 12), per_group=st.integers(1, 12))
def test_orders_hold_every_expert_once(
    order: Callable[[int, int], list[Slot]], groups: int, per_group: int
) -> None:
    assert sorted(order(groups, per_group)) == [(g, n) for g in range(groups) for n in range(per_group)]


@settings(deadline=None)
@given(
    placement=st.sampled_from(PLACEMENTS),
    groups=st.integers(1, 9),
    per_group=st.integers(1, 9),
    data=st.data(),
)
def test_ranks_hold_equal_runs_of_the_order(
    placement: Placement, groups: int, per_group: int, data: st.DataObject
) -> None:
    experts = groups * per_group
    ranks = data.draw(st.sampled_from([d for d in range(1, experts + 1) if experts % d == 0]))
    runs = place(groups, per_group, ranks, placement=placement)
    assert [slot for run in runs for slot in run] == ORDERS[placement](groups, per_group)
    assert {len(run) for run in runs} == {experts // ranks}


def test_all_size_is_the_default() -> None:
    assert place(4, 4, 2) == place(4, 4, 2, "all_size")


@settings(deadline=None)
@given(groups=st.integers(1, 12), per_group=st.integers(1, 12))
def test_all_size_goes_index_by_index(groups: int, per_group: int) -> None:
    indices = [n for _, n in all_size_order(groups, per_group)]
    assert indices == sorted(indices)


@settings(deadline=None)
@given(groups=st.integers(1, 12), per_group=st.integers(1, 12))
def test_contiguous_counts_as_expert_ids_do(groups: int, per_group: int) -> None:
    ids = [group * per_group + n for group, n in contiguous_order(groups, per_group)]
    assert ids == list(range(groups * per_group))


@settings(deadline=None)
@given(groups=st.integers(1, 12), per_group=st.integers(1, 12))
def test_pairs_are_of_opposite_groups(groups: int, per_group: int) -> None:
    slots = pairs_order(groups, per_group)
    if len(slots) % 2:
        assert slots.pop()[0] == groups // 2  # the middle group's, which is left over
    pairs = list(zip(slots[::2], slots[1::2], strict=True))
    assert {first + second for (first, _), (second, _) in pairs} <= {groups - 1}
    narrow = [first for (first, _), _ in pairs]
    assert narrow == sorted(narrow)
    assert all(first[1] == second[1] for first, second in pairs if first[0] != second[0])


@settings(deadline=None)
@given(
    groups=st.integers(1, 6).map(lambda half: 2 * half),
    per_rank=st.integers(1, 4),
    ranks=st.integers(1, 6),
    step=st.integers(0, 64),
)
def test_pairs_stay_on_one_rank(groups: int, per_rank: int, ranks: int, step: int) -> None:
    """With arithmetic widths, all ranks then hold as many parameters."""
    runs = place(groups, per_rank * ranks, ranks, "pairs")
    held = [set(run) for run in runs]
    assert all((groups - 1 - group, n) in run for run in held for group, n in run)
    assert len({sum(64 + step * group for group, _ in run) for run in runs}) == 1


def test_order_of_eight_groups() -> None:
    assert [group for group, _ in all_size_order(8, 1)] == [0, 7, 1, 6, 2, 5, 3, 4]
    assert pairs_order(4, 2) == [(0, 0), (3, 0), (0, 1), (3, 1), (1, 0), (2, 0), (1, 1), (2, 1)]
    assert pairs_order(3, 2) == [(0, 0), (2, 0), (0, 1), (2, 1), (1, 0), (1, 1)]


@settings(deadline=None)
@given(groups=st.integers(1, 6).map(lambda half: 2 * half), per_group=st.integers(1, 6))
def test_neighbours_of_arithmetic_widths_add_up_to_a_constant(groups: int, per_group: int) -> None:
    widths = [384 + 128 * g for g in range(groups)]
    ranks = place(groups, per_group, groups * per_group // 2)
    assert {sum(widths[g] for g, _ in rank) for rank in ranks} == {widths[0] + widths[-1]}


@settings(deadline=None)
@given(groups=st.integers(1, 9), per_rank=st.integers(1, 4), ranks=st.integers(1, 6))
def test_ranks_hold_the_same_widths(groups: int, per_rank: int, ranks: int) -> None:
    placement = place(groups, per_rank * ranks, ranks)
    assert [slot for rank in placement for slot in rank] == all_size_order(groups, per_rank * ranks)
    for rank in placement:
        assert Counter(group for group, _ in rank) == dict.fromkeys(range(groups), per_rank)


@pytest.mark.parametrize("ranks", [0, -1, 3, 24])
def test_ranks_that_do_not_divide_are_refused_with_those_that_do(ranks: int) -> None:
    with pytest.raises(ValueError, match=rf"among {ranks} ranks; use one of 1, 2, 4, 8, 16 "):
        place(4, 4, ranks)


def test_only_all_size_is_said_to_give_the_same_widths() -> None:
    with pytest.raises(ValueError, match=r"16 \(a divisor of 4 gives each rank the same widths\)$"):
        place(4, 4, 3)
    with pytest.raises(ValueError, match=r"use one of 1, 2, 4, 8, 16$"):
        place(4, 4, 3, "pairs")


@pytest.mark.parametrize("order", ORDERS.values())
@pytest.mark.parametrize(("groups", "per_group"), [(0, 2), (2, 0)])
def test_no_experts_are_refused(order: Callable[[int, int], list[Slot]], groups: int, per_group: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        order(groups, per_group)
