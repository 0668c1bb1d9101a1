"""Matched models cost what their reference does, to half a percent, or do not call themselves matched."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import pytest
from hydra import compose, initialize_config_module
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mohge.budget import budget
from mohge.config.load import group_choices, typed
from mohge.config.matching import COSTS, describe_match, matched
from mohge.config.schema import ExpertsConfig, MatchConfig, TrainConfig
from mohge.errors import UserError

ARCHS = group_choices("arch")


@functools.cache
def preset(arch: str, size: str = "nano") -> TrainConfig:
    return typed(TrainConfig, compose("train", overrides=[f"arch={arch}", f"model={size}"]))


@pytest.fixture(autouse=True, scope="module")
def _hydra() -> Iterator[None]:
    """As in a command."""
    with initialize_config_module("conf", version_base="1.3"):
        yield


def match(config: TrainConfig, by: str, to: str = "mohge", **experts: object) -> TrainConfig:
    pool = dataclasses.replace(config.experts, **experts)
    return matched(dataclasses.replace(config, experts=pool, match=MatchConfig(by=by, to=to)))


def cost(config: TrainConfig, by: str) -> int:
    return COSTS[by][1](budget(config))


@pytest.mark.parametrize("size", ["nano", "paper_3b"])
@pytest.mark.parametrize("to", ["mohge", "moe"])
@pytest.mark.parametrize("by", ["total", "active", "flops"])
def test_every_architecture_can_cost_as_much(by, to, size):
    target = cost(preset(to, size), by)
    for arch in ARCHS:
        config = match(preset(arch, size), by, to)
        assert cost(config, by) == pytest.approx(target, rel=0.005), arch
        assert config.match.difference == pytest.approx(cost(config, by) / target - 1, abs=1e-6)


def test_the_three_arms_that_settle_the_claim():
    moe, mohge = preset("moe"), preset("mohge")
    shrunk = match(moe, "total")
    assert cost(mohge, "total") < 0.82 * cost(moe, "total")
    assert shrunk.experts.widths == (96,)  # 16 of 96 are 4 of each of 48, 80, 112 and 144
    assert describe_match(moe) is None
    assert describe_match(shrunk) == (
        "Matched to arch=mohge in total parameters, -0.06%: widths 96; shared experts of 64."
    )


def test_what_does_not_fit_in_widths_is_made_up_by_shared_experts():
    moe = preset("moe")
    five = dataclasses.replace(moe, router=dataclasses.replace(moe.router, expert_top_k=5))
    # By hand: 4 of 96 and a shared one of 64 are 448 units of width; 5 of 76 leave 68 for the shared one. A
    # unit is 1,536 of 1.42 M parameters: with 64, 4 units (0.43%) and the group router (0.14%) are missing.
    config = match(five, "active")
    assert config.experts.widths == (76,)
    assert config.experts.shared_width == 68


@given(
    half=st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True),
    to=st.sampled_from(["mohge", "moe"]),
)
@settings(max_examples=50, deadline=None)
def test_pairs_of_one_sum_stay_so(half, to):
    lower = sorted(8 * unit for unit in half)
    total = 2 * max(lower) + 16
    widths = (*lower, *(total - width for width in reversed(lower)))
    try:
        config = match(preset("sizes_only"), "total", to, widths=widths, per_group=4)
    except UserError:
        assume(False)  # such sizes do not fit; that they are refused is said elsewhere
    found = config.experts.widths
    assert len(set(found)) == len(set(widths))
    assert len({low + high for low, high in zip(found, reversed(found), strict=True)}) == 1
    assert list(found) == sorted(found)


@pytest.mark.parametrize("widths", [(88, 92, 100, 104), (80, 88, 104, 112), (40, 92, 100, 152)])
def test_widths_that_were_different_stay_different(widths):
    assert match(preset("sizes_only"), "total", widths=widths).experts.widths == widths


def test_widths_that_were_equal_stay_equal():
    assert match(preset("moge"), "total").experts.widths == (96, 96, 96, 96)


def test_in_bfloat16_widths_are_multiples_of_eight():
    moe = preset("moe")
    bf16 = dataclasses.replace(moe, trainer=dataclasses.replace(moe.trainer, precision="bf16"))
    assert match(bf16, "total", widths=(100,)).experts.widths == (96,)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["match=total", "match.to=mohg"], "match.to=mohg is no preset to match: choose one of deepseek"),
        (["match=total", "model.name=mine"], "model.name=mine is no preset to match: choose one of nano"),
        (["match.difference=0.001"], "match.difference=0.001 is found, not given"),
        (["match=total", "match.difference=0.001"], "match.difference=0.001 is found, not given"),
        (["match=total", "match.difference=0.1"], "match.difference=0.1 is found, not given"),
    ],
)
def test_wrong_settings_are_refused(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        matched(typed(TrainConfig, compose("train", overrides=overrides)))


def test_what_cannot_be_matched_is_refused():
    coarse = ExpertsConfig(widths=(8,), per_group=256)
    with pytest.raises(
        UserError,
        match=r"match.by=total match.to=mohge finds no widths for arch=moe: the nearest, "
        r"experts.widths=\[\d+\] experts.shared_width=0, differ by [-+]\d.* in total parameters, and more "
        r"than 0.5% is not matched; choose other widths, numbers of experts or shared experts",
    ):
        matched(dataclasses.replace(preset("moe"), experts=coarse, match=MatchConfig(by="total")))
