"""Configurations whose sizes a benchmark chooses by itself, and the name of one that it is given."""

from __future__ import annotations

import dataclasses

from mohge.config.bench_schema import GrowthBenchConfig, StepBenchConfig
from mohge.config.checks import check
from mohge.config.schema import ExpertsConfig, LossConfig, RouterConfig, TrainConfig


def shape_name(config: TrainConfig) -> str:
    """Model, architecture, and what a step reads: sequences x tokens x micro-batches."""
    return (
        f"{config.model.name} {config.arch_name} {config.data.batch_sequences}x{config.data.context}"
        f"x{config.trainer.accumulate}"
    )


def homogeneous(config: TrainConfig, bench: StepBenchConfig) -> TrainConfig:
    """The standard MoE of bench=step: one width, one flat choice, the balance loss.

    Raises:
        UserError: the kernel cannot compute these sizes.
    """
    return _sized(
        config,
        bench,
        layers=bench.layers,
        tied_head=bench.tied_head,
        context=bench.context,
        batch_sequences=bench.batch_sequences,
        experts=_pool(config, (bench.width,), bench.experts),
        router=RouterConfig(kind="top_k", expert_top_k=bench.top_k),
        loss=LossConfig(balance_weight=bench.balance_weight),
    )


def heterogeneous(config: TrainConfig, bench: StepBenchConfig) -> TrainConfig:
    """MoHGE with as many experts, of several widths and the same mean width, and both its losses.

    Raises:
        UserError: the kernel cannot compute these sizes.
    """
    return dataclasses.replace(
        homogeneous(config, bench),
        experts=_pool(config, bench.widths, bench.experts // len(bench.widths)),
        router=_two_level(bench),
        loss=LossConfig(
            group_weight=bench.balance_weight, group_start=0.0, intra_weight=bench.balance_weight
        ),
    )


def growing(
    config: TrainConfig, bench: GrowthBenchConfig, *, experts: int, layers: int, context: int
) -> TrainConfig:
    """MoHGE of the sizes of bench=growth, without auxiliary losses.

    Raises:
        UserError: the kernel cannot compute these sizes.
    """
    return _sized(
        config,
        bench,
        layers=layers,
        tied_head=True,
        context=context,
        batch_sequences=bench.batch_tokens // context,
        experts=_pool(config, bench.widths, experts // len(bench.widths)),
        router=_two_level(bench),
        loss=LossConfig(),
    )


def _sized(
    config: TrainConfig,
    bench: StepBenchConfig | GrowthBenchConfig,
    *,
    layers: int,
    tied_head: bool,
    context: int,
    batch_sequences: int,
    experts: ExpertsConfig,
    router: RouterConfig,
    loss: LossConfig,
) -> TrainConfig:
    model = dataclasses.replace(
        config.model,
        name="bench",
        vocab_size=bench.vocab_size,
        context=context,
        d_model=bench.d_model,
        layers=layers,
        heads=bench.heads,
        kv_heads=bench.kv_heads,
        attention="gqa",
        tied_head=tied_head,
    )
    data = dataclasses.replace(
        config.data, vocab_size=bench.vocab_size, context=context, batch_sequences=batch_sequences
    )
    trainer = dataclasses.replace(config.trainer, accumulate=1)
    sized = dataclasses.replace(
        config, model=model, experts=experts, router=router, loss=loss, data=data, trainer=trainer
    )
    check(sized)
    return sized


def _pool(config: TrainConfig, widths: tuple[int, ...], per_group: int) -> ExpertsConfig:
    return ExpertsConfig(widths=widths, per_group=per_group, kernel=config.experts.kernel)


def _two_level(bench: StepBenchConfig | GrowthBenchConfig) -> RouterConfig:
    return RouterConfig(kind="two_level", group_top_k=bench.group_top_k, expert_top_k=bench.top_k)
