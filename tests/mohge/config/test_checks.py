from __future__ import annotations

import dataclasses

import pytest
from composing import composed
from hypothesis import given
from hypothesis import strategies as st

from mohge.config.checks import check
from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.errors import UserError

BASE = typed(TrainConfig, composed())


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["model.heads=7"],
            "model.heads=7 does not divide model.d_model=128: choose one of 2, 4, 8,",
        ),
        (["model.kv_heads=3"], "model.kv_heads=3 does not divide model.heads=4: choose one of 1, 2, 4"),
        (["model.heads=128", "model.kv_heads=128"], "model.heads=128 gives heads of odd width 1"),
        (["model.attention=mla", "model.mla.rope_dim=15"], "model.mla.rope_dim=15 is odd"),
        (["experts.groups=3"], r"experts.groups=3 disagrees with experts.widths=\[48, 80, 112, 144\]"),
        (
            ["experts.widths=[80,48]"],
            r"experts.widths=\[80, 48\] is not in increasing order: write \[48, 80\]",
        ),
        (["experts.per_group=0"], "experts.per_group=0 with experts.widths=.* makes no experts"),
        (["experts.shared=0"], "experts.shared=0 with experts.shared_width=64 is half a shared expert"),
        (["experts.widths=[48,82]", "experts.kernel=grouped"], "82 is not a multiple of 4"),
        (
            ["experts.widths=[48,84]", "experts.kernel=grouped", "trainer.precision=bf16"],
            "84 is not a multiple of 8",
        ),
        (
            ["model.d_model=130", "model.heads=1", "model.kv_heads=1", "experts.kernel=grouped"],
            "model.d_model=130 with experts.kernel=grouped",
        ),
        (["router=none"], "router.kind=none leaves the experts"),
        (["arch=dense", "experts.shared=0", "experts.shared_width=0"], "layers without a feed-forward part"),
        (["arch=dense", "router=nano/top_k", "loss=none"], "router.kind=top_k has no experts to choose from"),
        (["router.expert_top_k=0"], "router.expert_top_k=0 picks no expert"),
        (["router.expert_top_k=9"], "router.expert_top_k=9 is above what is reachable, 2 groups of 4: .* 8"),
        (["arch=moe", "router.expert_top_k=17"], "router.expert_top_k=17 is above what is reachable"),
        (["router.group_top_k=5"], "router.group_top_k=5 is not possible with 4 groups: choose 1 to 4"),
        (["router.group_top_k=null"], "router.group_top_k=None is not possible"),
        (["arch=moe", "router.group_top_k=1"], "router.group_top_k=1 has no effect with router.kind=top_k"),
        (["arch=moe", "router.group_score=sigmoid"], "router.group_score=sigmoid has no effect"),
        (["data.subset=en"], "data.subset=en has no effect with data=python_stdlib"),
        (["arch=moe", "loss.group_weight=1e-3"], "loss.group_weight=0.001 needs router.kind=two_level"),
        (["arch=dense", "loss.z_weight=1e-3"], "loss.z_weight=0.001 needs a router"),
        (["data.context=1000"], "data.context=1000 is longer than model.context=256"),
        (["data.vocab_size=5000"], "data.vocab_size=5000 is more than the model's model.vocab_size=4096"),
        (["data.path=x"], "data.path=x has no effect with data=python_stdlib"),
        (["trainer.max_tokens=null"], "trainer.max_steps and trainer.max_tokens are both null"),
        (["trainer.devices=2"], "trainer.devices=2 does not fit parallel=single"),
        (
            ["optim.schedule=wsd", "optim.warmup_fraction=0.9"],
            "optim.warmup_fraction=0.9 and optim.decay_fraction=0.2 add up to more than 1",
        ),
    ],
)
def test_impossible_combinations_are_refused_in_one_sentence(overrides, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        typed(TrainConfig, composed(*overrides))
    assert "\n" not in str(caught.value)


@given(
    groups=st.integers(1, 6),
    per_group=st.integers(1, 5),
    group_top_k=st.integers(1, 6),
    expert_top_k=st.integers(1, 30),
)
def test_routing_is_accepted_exactly_when_enough_experts_are_reachable(
    groups, per_group, group_top_k, expert_top_k
):
    experts = dataclasses.replace(
        BASE.experts, widths=tuple(16 * (g + 1) for g in range(groups)), per_group=per_group
    )
    router = dataclasses.replace(BASE.router, group_top_k=group_top_k, expert_top_k=expert_top_k)
    config = dataclasses.replace(BASE, experts=experts, router=router)
    possible = group_top_k <= groups and expert_top_k <= group_top_k * per_group
    if possible:
        check(config)
    else:
        with pytest.raises(UserError):
            check(config)
