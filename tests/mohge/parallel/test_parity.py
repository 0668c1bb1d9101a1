"""Every mesh trains as one process does: losses, gradients, norms, parameters and counts."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pytest
import torch
from guide_files import write_guide
from ranks_here import run_ranks
from training_targets import MOE, MOHGE, config_of, mesh_overrides, steps, steps_of_each

from mohge.config.load import group_choices
from mohge.config.schema import ParallelConfig

MESHES = [(1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, 2), (1, 2, 2), (2, 1, 2), (1, 1, 4)]
ARMS = {name: (f"arch={name}",) for name in group_choices("arch") if name != "dense"}  # no experts to spread
ARMS["of the guide"] = ("arch=moe", "router._target_=my_routers.SigmoidRouter")
LOSSES, GRADIENTS = 1e-5, 1e-6
# AdamW divides each gradient by its own size: a parameter whose gradient is of the size of rounding errors
# moves by a share of the learning rate, which is 0.001 here. This is a hundredth of it.
PARAMETERS = 1e-5


@cache
def alone(overrides: tuple[str, ...]) -> dict[str, Any]:
    return steps(overrides, None)


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float(abs(ours[name] - theirs[name]).max()) for name in ours)


def check_equal(overrides: tuple[str, ...], mesh: tuple[int, int, int]) -> list[dict[str, Any]]:
    ranks = run_ranks(steps, mesh[0] * mesh[1] * mesh[2], overrides, mesh)
    check_ranks(ranks, alone(overrides))
    return ranks


def check_ranks(ranks: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    ours = ranks[0]
    assert all(rank["losses"] == ours["losses"] and rank["norms"] == ours["norms"] for rank in ranks)
    assert all(torch.equal(rank["counts"], expected["counts"]) for rank in ranks)
    for step in range(len(expected["losses"])):
        for name, loss in expected["losses"][step].items():
            assert ours["losses"][step][name] == pytest.approx(loss, abs=LOSSES), (step, name)
        assert ours["norms"][step] == pytest.approx(expected["norms"][step], abs=GRADIENTS)
        assert largest_difference(ours["gradients"][step], expected["gradients"][step]) <= GRADIENTS
    assert largest_difference(ours["parameters"], expected["parameters"]) <= PARAMETERS
    assert len({rank["bytes"] for rank in ranks}) == 1, "every rank holds as much"


def test_every_architecture_trains_as_in_one_process(tmp_path, monkeypatch):
    """On 4 ranks that are started once. Composed here: each rank would take longer to do so than to train."""
    sizes = ("model.layers=1", "loss.group_start=0", *mesh_overrides((1, 2, 2)))
    write_guide(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # ranks look for modules where this process does
    arms = {name: config_of(*overrides, *sizes) for name, overrides in ARMS.items()}
    ranks = run_ranks(steps_of_each, 4, list(arms.values()), (1, 2, 2), 2)
    for name, found in zip(arms, zip(*ranks, strict=True), strict=True):
        expected = steps(dataclasses.replace(arms[name], parallel=ParallelConfig()), None, 2)
        try:
            check_ranks(found, expected)
        except AssertionError as error:
            raise AssertionError(f"arch={name}") from error
        biases = [tensor for key, tensor in expected["parameters"].items() if key.endswith("expert_bias")]
        assert len(biases) == (1 if arms[name].router.bias_rate else 0), name
        assert all(bias.any() for bias in biases), "it has moved"


@pytest.mark.parametrize("mesh", MESHES, ids=str)
@pytest.mark.parametrize("overrides", [MOHGE, MOE], ids=["mohge", "moe"])
def test_a_mesh_trains_as_one_process_does(overrides, mesh):
    ranks = check_equal(overrides, mesh)
    whole = alone(overrides)["bytes"]
    assert ranks[0]["bytes"] * mesh[1] * mesh[2] == whole, "and nothing twice but the copies"


@pytest.mark.parametrize(
    "change",
    [
        "loss.scope=global_batch",
        "model.activation_checkpointing=true",
        "experts.kernel=loop",
        "experts.kernel=grouped",
        "experts.kernel=fused",
        "router.group_top_k=1",
        "arch=mohge_released",
        "model.attention=mla",
        "model.tied_head=false",
    ],
)
def test_settings_that_meet_parallelism(change):
    check_equal((*MOHGE, change), (1, 2, 2) if change.startswith("model") else (1, 1, 2))


def test_a_dense_model_is_sharded():
    dense = ("arch=dense", "experts.shared_width=16")
    check_equal(dense, (1, 4, 1))


def test_clipping_is_at_work():
    assert max(alone(MOHGE)["norms"]) > 0.5, "or the tests above would not see it"


@pytest.mark.parametrize("mesh", [(1, 2, 2), (2, 1, 2)], ids=str)
def test_bfloat16_trains_alike(mesh):
    overrides = (*MOHGE, "trainer.precision=bf16")
    expected, ranks = alone(overrides), run_ranks(steps, 4, overrides, mesh)
    # Products are rounded, in other orders: close choices of experts may tip.
    for ours, theirs in zip(ranks[0]["losses"], expected["losses"], strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=0.01)
