"""Each operation of a step belongs to a part, backward ones to that of their forward operation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from composing import composed
from tiny_runs import TINY_EXPERTS, TINY_MODEL, TINY_ROUTER

import mohge.training.module
from mohge.bench import parts
from mohge.bench.training_step import TrainingStep
from mohge.config.load import typed
from mohge.config.schema import TrainConfig

CPU = torch.device("cpu")
BOTH_WAYS = {parts.HEAD, parts.RESIDUAL, parts.ATTENTION, parts.ROUTER, parts.EXPERTS, parts.SHARED}


def step_of(*overrides: str) -> TrainingStep:
    config = typed(TrainConfig, composed(*TINY_MODEL, *overrides))
    return TrainingStep(config, CPU)


def profiled(step: TrainingStep) -> parts.PartTimes:
    batch = torch.randint(300, (2, 33), generator=torch.Generator().manual_seed(1))
    step([batch])
    return parts.profile_step(step, [batch], CPU)


@pytest.mark.parametrize("kernel", ["loop", "grouped", "fused"])
@pytest.mark.parametrize("recompute", ["true", "false"])
def test_every_part_is_found_in_both_passes(kernel: str, recompute: str):
    step = step_of(
        *TINY_EXPERTS,
        *TINY_ROUTER,
        f"experts.kernel={kernel}",
        f"model.activation_checkpointing={recompute}",
    )
    times = profiled(step)
    once = {parts.CLIPPING, parts.OPTIMIZER}
    assert {*times.forward} == {*BOTH_WAYS, parts.EMBEDDING, parts.AUXILIARY, *once}
    assert {*times.backward} == {*BOTH_WAYS, parts.EMBEDDING, parts.AUXILIARY, parts.OTHER}
    assert times.total == pytest.approx(sum(map(times.of, times.names())))
    assert all(times.of(part) > 0 for part in times.names())


def test_a_dense_model_has_no_router():
    times = profiled(step_of("arch=dense", "experts.shared_width=8"))
    assert not {parts.ROUTER, parts.EXPERTS, parts.AUXILIARY} & {*times.names()}
    assert times.backward[parts.SHARED] > 0


def test_the_backward_pass_of_an_own_function_belongs_where_it_was_called(monkeypatch: pytest.MonkeyPatch):
    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            for _ in range(200):
                gradient = gradient + torch.zeros(100_000).sum()
            return gradient

    step = step_of(*TINY_EXPERTS, *TINY_ROUTER, "experts.kernel=loop")
    block = step.model.get_submodule("blocks.0")
    inner = block.attention.forward
    monkeypatch.setattr(block.attention, "forward", lambda x, table, cache: Slow.apply(inner(x, table)))
    times = profiled(step)
    assert times.backward[parts.ATTENTION] > 0.5 * sum(times.backward.values())


def test_nothing_stays_marked(tmp_path: Path):
    step = step_of(*TINY_EXPERTS, *TINY_ROUTER)
    plain = mohge.training.module.auxiliary_losses
    profiled(step)
    assert mohge.training.module.auxiliary_losses is plain
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in step.model.modules())
