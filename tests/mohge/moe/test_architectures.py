"""Presets of architectures: what each of them is, at every size of model."""

from __future__ import annotations

import dataclasses
import importlib.resources
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from composing import composed

from mohge.budget import budget
from mohge.config.load import as_dict, group_choices, typed
from mohge.config.schema import ExpertsConfig, RouterConfig, TrainConfig
from mohge.moe.placement import place
from mohge.parallel.remedies import divisors

SIZES = group_choices("model")
AS_MOHGE = (
    *("hmoe", "sizes_only", "grouping_only", "fixed_per_group"),
    *("mohge_released", "mohge_no_group_loss", "mohge_no_intra_loss"),
)
"""Built of experts that cost what MoHGE's do."""
AS_MOE = ("modse", "moge", "deepseek", "loss_free")
"""Built of experts that cost what the standard MoE's do."""
CONF = Path(str(importlib.resources.files("conf")))


@cache
def at(size: str, arch: str) -> TrainConfig:
    return typed(TrainConfig, composed(f"model={size}", f"arch={arch}"))


@cache
def preset(arch: str) -> TrainConfig:
    return at("nano", arch)


@cache
def resized(size: str, arch: str) -> TrainConfig:
    """As `at`, without Hydra, which is slow; test_load composes every one of them as users do."""
    preset_file = _yaml(f"arch/{arch}")
    chosen = {key: value for line in preset_file["defaults"] for key, value in line.items()}
    parts = {
        group: _yaml(f"{group}/{chosen[f'override /{group}']}", size) | preset_file.get(group, {})
        for group in ("experts", "router")
    }
    router = RouterConfig(target=parts["router"].pop("_target_"), **parts["router"])
    return dataclasses.replace(at(size, "mohge"), experts=ExpertsConfig(**parts["experts"]), router=router)


def _yaml(name: str, size: str = "") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONF / f"{name.replace('${model}', size)}.yaml").read_text())
    return found


def differences(first: TrainConfig, second: TrainConfig) -> set[str]:
    """Dotted keys in which they differ, but for the name."""
    found = {
        f"{group}.{key}"
        for group, content in as_dict(first).items()
        if isinstance(content, dict)
        for key, value in content.items()
        if value != as_dict(second)[group][key]
    }
    others = {key for key, value in as_dict(first).items() if not isinstance(value, dict)}
    return found | {key for key in others - {"arch_name"} if getattr(first, key) != getattr(second, key)}


def test_every_preset_is_looked_at() -> None:
    assert {*AS_MOHGE, *AS_MOE, "dense", "moe", "mohge"} == set(group_choices("arch"))
    for arch in ("deepseek", "fixed_per_group", "moge"):
        assert resized("nano", arch).experts == preset(arch).experts
        assert resized("nano", arch).router == preset(arch).router


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("arms", "reference"), [(AS_MOHGE, "mohge"), (AS_MOE, "moe")], ids=["mohge", "moe"])
def test_budgets_are_those_of_the_reference(size: str, arms: tuple[str, ...], reference: str) -> None:
    """Exactly in experts; in all, what routers differ in is within 0.5%.

    A router of DeepSeekMoE has twice as many rows, which a small model's active parameters show: they are
    compared below, without the router.
    """
    expected = budget(resized(size, reference))
    for arch in arms:
        found = budget(resized(size, arch))
        assert found.parameters.routed_experts == expected.parameters.routed_experts, arch
        assert found.parameters.total == pytest.approx(expected.parameters.total, rel=0.005), arch
        if arch != "deepseek":
            active, wanted = found.active_parameters, expected.active_parameters
            assert active.expected == pytest.approx(wanted.expected, rel=0.005), arch
            flops, needed = found.flops_per_token, expected.flops_per_token
            assert flops.train == pytest.approx(needed.train, rel=0.005), arch


@pytest.mark.parametrize("size", SIZES)
def test_mohge_is_smaller_than_the_standard_moe(size: str) -> None:
    mohge, moe = (budget(resized(size, arch)).parameters for arch in ("mohge", "moe"))
    assert mohge.routed_experts < 0.85 * moe.routed_experts


def test_hmoe_is_a_flat_router_over_different_widths_with_a_penalty() -> None:
    hmoe = preset("hmoe")
    assert differences(hmoe, preset("sizes_only")) == {"loss.balance_weight", "loss.penalty_weight"}
    assert len(set(hmoe.experts.widths)) > 1
    assert hmoe.router.kind == "top_k"
    loss = hmoe.loss
    assert loss.penalty_weight > 0 == loss.balance_weight == loss.group_weight == loss.intra_weight
    # Equal widths would make the penalty the loss that the standard MoE has, with its weight.
    assert loss.penalty_weight == preset("moe").loss.balance_weight


@pytest.mark.parametrize("size", SIZES)
def test_modse_has_pairs_of_one_sum_that_stay_on_one_rank(size: str) -> None:
    experts, moe = resized(size, "modse").experts, resized(size, "moe").experts
    widths, groups = experts.widths, experts.num_groups
    assert len(set(widths)) == groups
    sums = {narrow + wide for narrow, wide in zip(widths, reversed(widths), strict=True)}
    assert sums == {2 * moe.widths[0]}
    for ranks in divisors(experts.num_experts // 2):
        for held in place(groups, experts.per_group, ranks, "all_size"):  # as training places them
            assert {(groups - 1 - group, n) for group, n in held} == set(held), "whole pairs"
            assert sum(widths[group] for group, _ in held) * ranks == moe.widths[0] * experts.num_experts


def test_modse_is_trained_as_the_standard_moe() -> None:
    assert differences(preset("modse"), preset("moe")) == {"experts.widths", "experts.per_group"}


@pytest.mark.parametrize("size", SIZES)
def test_moge_has_equal_groups_and_takes_equally_many_of_each(size: str) -> None:
    moge, moe = resized(size, "moge"), resized(size, "moe")
    assert (moge.router.selection, moge.router.kind) == ("per_group", "top_k")
    assert moge.experts.num_groups > 1
    assert set(moge.experts.widths) == set(moe.experts.widths)
    assert moge.experts.num_experts == moe.experts.num_experts
    assert moge.router.expert_top_k == moe.router.expert_top_k
    assert moge.router.expert_top_k % moge.experts.num_groups == 0


@pytest.mark.parametrize("size", SIZES)
def test_deepseek_cuts_experts_in_two(size: str) -> None:
    deepseek, moe = resized(size, "deepseek"), resized(size, "moe")
    assert [2 * width for width in deepseek.experts.widths] == list(moe.experts.widths)
    assert deepseek.experts.num_experts == 2 * moe.experts.num_experts
    assert deepseek.router.expert_top_k == 2 * moe.router.expert_top_k
    assert deepseek.experts.shared > 0
    found, expected = budget(deepseek), budget(moe)
    assert found.parameters.router == 2 * expected.parameters.router
    extra = found.parameters.router - expected.parameters.router
    assert found.parameters.total - expected.parameters.total == extra
    assert found.active_parameters.expected - expected.active_parameters.expected == extra


def test_loss_free_is_the_standard_moe_with_a_bias_in_place_of_its_loss() -> None:
    loss_free = preset("loss_free")
    assert differences(loss_free, preset("moe")) == {"router.bias_rate", "loss.balance_weight"}
    assert loss_free.router.bias_rate > 0
    weights = {key: value for key, value in vars(loss_free.loss).items() if key.endswith("_weight")}
    assert len(weights) == 5
    assert not any(weights.values())


def test_sizes_alone_and_grouping_alone() -> None:
    """Each has one half of what makes MoHGE, and the other half of the standard MoE."""
    sizes, grouping, mohge, moe = map(preset, ("sizes_only", "grouping_only", "mohge", "moe"))
    assert (sizes.experts, sizes.router, sizes.loss) == (mohge.experts, moe.router, moe.loss)
    assert differences(grouping, mohge) == {"experts.widths"}
    for size in SIZES:
        equal, different = resized(size, "grouping_only").experts, resized(size, "mohge").experts
        assert len(set(equal.widths)) == 1
        assert sum(equal.widths) == sum(different.widths)
        assert (equal.per_group, equal.num_groups) == (different.per_group, different.num_groups)


@pytest.mark.parametrize(
    ("arch", "keys"),
    [
        ("fixed_per_group", {"router.selection"}),
        ("mohge_no_group_loss", {"loss.group_weight"}),
        ("mohge_no_intra_loss", {"loss.intra_weight"}),
    ],
)
def test_one_change_to_mohge(arch: str, keys: set[str]) -> None:
    assert differences(preset(arch), preset("mohge")) == keys
    changed = preset(arch)
    if arch == "fixed_per_group":
        assert changed.router.selection == "per_group"
    else:
        assert getattr(changed.loss, min(keys).partition(".")[2]) == 0


@pytest.mark.parametrize("size", SIZES)
def test_a_fixed_number_of_experts_fits_the_groups(size: str) -> None:
    """Where it does not divide by MoHGE's groups per token, they are fewer; experts per token stay."""
    fixed, mohge = resized(size, "fixed_per_group").router, resized(size, "mohge").router
    assert fixed.expert_top_k == mohge.expert_top_k
    assert fixed.group_top_k is not None
    assert fixed.expert_top_k % fixed.group_top_k == 0
    if mohge.group_top_k is not None and mohge.expert_top_k % mohge.group_top_k == 0:
        assert fixed.group_top_k == mohge.group_top_k
