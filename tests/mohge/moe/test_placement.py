from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mohge.moe.placement import all_size_order, place


@settings(deadline=None)
@given(groups=st.integers(1, 12), per_group=st.integers(1, 12))
def test_order_holds_every_expert_once(groups: int, per_group: int) -> None:
    slots = all_size_order(groups, per_group)
    assert sorted(slots) == [(g, n) for g in range(groups) for n in range(per_group)]
    assert [n for _, n in slots] == sorted(n for _, n in slots)


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


@pytest.mark.parametrize(("groups", "per_group"), [(0, 2), (2, 0)])
def test_no_experts_are_refused(groups: int, per_group: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        all_size_order(groups, per_group)
