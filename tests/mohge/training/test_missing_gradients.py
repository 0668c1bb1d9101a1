"""Runs in which the weights of the routers have no gradients."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import TINY_MODEL, tiny_data, train_here, write_corpus
from torch import Tensor

from mohge.moe.decision import RoutingDecision
from mohge.moe.routers import TopKRouter
from mohge.training.checkpoint import read_tensors

ROUTER_WEIGHT = "blocks.0.ffn.router.expert_weight"


class ByChance(TopKRouter):
    """Has the run's random generator choose."""

    def forward(self, x_TD: Tensor) -> RoutingDecision:
        return self.decide(torch.randn(x_TD.shape[0], self.expert_weight.shape[0]))


class AsDrawn(TopKRouter):
    """Chooses by weights that stay as they are drawn."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.requires_grad_(False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a tiny run."""
    folder = tmp_path_factory.mktemp("data")
    return [
        *("arch=moe", *TINY_MODEL, "experts.widths=[8]", "experts.per_group=4", "experts.shared_width=8"),
        *("router.expert_top_k=2", "loss=none", "logger=none", "callbacks=none", "trainer.log_every=1"),
        *("trainer.max_steps=4", "trainer.checkpoint_every=2", "trainer.accumulate=2"),
        *tiny_data(write_corpus(folder / "corpus"), folder / "cache"),
    ]


@pytest.mark.parametrize(("router", "decays"), [(ByChance, True), (AsDrawn, False)])
def test_a_continued_run_is_the_whole_one_bit_for_bit(
    tmp_path: Path, run: list[str], router: type, decays: bool
) -> None:
    own = f"router._target_={__name__}.{router.__name__}"
    records = train_here(tmp_path, *run, own)
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    half, last = (tmp_path / "checkpoints" / f"step_0000000{step}" for step in (2, 4))
    before, whole = read_tensors(half, ""), read_tensors(last, "")
    shutil.rmtree(last)
    assert train_here(tmp_path, *run, own, f"resume={tmp_path}") == records
    torch.testing.assert_close(read_tensors(last, ""), whole, rtol=0, atol=0)

    # Weights without a gradient decay as all others do, and those that are not learned are left alone.
    name = f"model.{ROUTER_WEIGHT}"
    assert (whole[name].norm() < before[name].norm()) == decays
    assert torch.equal(whole[name], before[name]) != decays
    assert (f"optimizer.exp_avg.{ROUTER_WEIGHT}" in whole) == decays
