"""Every token is accounted for (DESIGN §8.2), checked against sums written out by hand."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mohge.metrics.counts import RoutingCounts


def decision(expert_ids_TK, groups, per_group):
    """The parts of a RoutingDecision that are counted, by a slow and plain definition."""
    groups_TK = expert_ids_TK // per_group
    return SimpleNamespace(
        expert_ids_TK=expert_ids_TK,
        expert_counts_E=torch.tensor([int((expert_ids_TK == e).sum()) for e in range(groups * per_group)]),
        group_counts_G=torch.tensor([int((groups_TK == g).any(dim=1).sum()) for g in range(groups)]),
    )


def random_decision(tokens, groups, per_group, top_k, seed):
    generator = torch.Generator().manual_seed(seed)
    scores_TE = torch.rand(tokens, groups * per_group, generator=generator)
    return decision(scores_TE.topk(top_k).indices, groups, per_group)


@given(
    layers=st.integers(1, 3),
    groups=st.integers(1, 4),
    per_group=st.integers(1, 4),
    batches=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    data=st.data(),
)
def test_rows_are_all_accounted_for(layers, groups, per_group, batches, data):
    top_k = data.draw(st.integers(1, groups * per_group))
    counts = RoutingCounts(layers, groups, per_group)
    for seed, tokens in enumerate(batches):
        counts.add([random_decision(tokens, groups, per_group, top_k, 10 * seed + n) for n in range(layers)])
    counts.check()
    assert counts.tokens == sum(batches)
    assert counts.expert_LE.sum(dim=1).tolist() == [sum(batches) * top_k] * layers


def test_a_small_example():
    counts = RoutingCounts(1, 2, 2)
    counts.add([decision(torch.tensor([[0, 1], [0, 2], [0, 3]]), 2, 2)])
    assert counts.expert_LE.tolist() == [[3, 1, 1, 1]]
    assert counts.group_LG.tolist() == [[3, 2]]


def test_reset_forgets_everything_in_place():
    counts = RoutingCounts(1, 2, 2)
    before = counts.expert_LE
    counts.add([decision(torch.tensor([[0, 1]]), 2, 2)])
    counts.reset()
    assert counts.expert_LE is before
    assert (counts.tokens, counts.rows, int(before.sum()), int(counts.group_LG.sum())) == (0, 0, 0, 0)


def test_a_lost_row_is_noticed():
    counts = RoutingCounts(2, 2, 2)
    counts.add([decision(torch.tensor([[0, 1], [2, 3]]), 2, 2)] * 2)
    counts.expert_LE[1, 3] -= 1
    with pytest.raises(AssertionError, match="4 rows"):
        counts.check()


def test_a_dense_model_counts_nothing():
    counts = RoutingCounts(2, 0, 0)
    counts.add([])
    counts.check()
    assert (counts.tokens, counts.rows) == (0, 0)


def test_one_decision_per_layer():
    with pytest.raises(AssertionError, match="one decision per layer"):
        RoutingCounts(3, 2, 2).add([decision(torch.tensor([[0]]), 2, 2)])
