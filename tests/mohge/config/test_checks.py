from __future__ import annotations

import dataclasses
import math

import pytest
from composing import composed
from hypothesis import given
from hypothesis import strategies as st

from mohge.config.checks import check, remarks
from mohge.config.load import as_dict, known_keys, typed
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


def test_numbers_are_finite_but_for_a_bound_that_then_binds_nothing():
    accepted = []
    for key in known_keys(TrainConfig):
        for value in (math.inf, math.nan):
            tree = as_dict(BASE)
            *parents, leaf = key.split(".")
            place = tree
            for parent in parents:
                place = place.get(parent) or {}
            if leaf not in place:
                continue  # of a part that is off
            place[leaf] = value
            try:
                typed(TrainConfig, tree)
            except UserError:
                continue
            accepted.append((key, value))
    assert accepted == [("trainer.clip", math.inf)]


@pytest.mark.parametrize("key", ["loss.width_interval", "model.norm_eps", "optim.eps"])
def test_infinity_is_told_to_be_no_number(key):
    group, leaf = key.split(".")
    tree = as_dict(BASE)
    tree[group][leaf] = math.inf
    with pytest.raises(UserError, match=f"{key}=inf is not valid: it should be a finite number"):
        typed(TrainConfig, tree)


ONE_EXPERT = "router.expert_top_k=1 gives the one expert of a token the weight 1"
ONE_GROUP = "router.group_top_k=1 lets the weight of the one group of a token cancel out"


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        (["model=nano"], []),
        (["arch=dense"], []),
        (
            ["router.expert_top_k=1"],
            [(ONE_EXPERT, "and the intra-group loss give", "only loss.group_weight gives")],
        ),
        (
            ["router.group_top_k=1"],
            [(ONE_GROUP, "the choice of groups", "only loss.group_weight gives one; use")],
        ),
        (["router.group_top_k=1", "router.expert_top_k=1"], [(ONE_EXPERT,), (ONE_GROUP,)]),
        (["router.group_top_k=1", "experts.widths=[64]"], []),  # no group to choose
        (
            ["arch=moe", "router.expert_top_k=1", "loss.z_weight=1e-3"],
            [
                (
                    ONE_EXPERT,
                    "cross-entropy gives",
                    "only loss.balance_weight and loss.z_weight give one; use at least 2",
                )
            ],
        ),
        (
            ["arch=loss_free", "router.expert_top_k=1"],
            [(ONE_EXPERT, "no other loss gives one, and router.bias_rate=0.001 moves its choice")],
        ),
        (["arch=moe", "router.expert_top_k=1", "router._target_=my.Router"], []),  # its weights may be others
        (["arch=moe", "router.expert_top_k=1", "experts.widths=[64]", "experts.per_group=1"], []),
    ],
)
def test_what_leaves_a_router_without_a_teacher_is_remarked_on(overrides, fragments):
    found = remarks(typed(TrainConfig, composed(*overrides)))
    assert len(found) == len(fragments)
    for remark, parts in zip(found, fragments, strict=True):
        assert "\n" not in remark
        for part in parts:
            assert part in remark
