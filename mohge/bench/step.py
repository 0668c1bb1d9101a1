"""bench=step: our training step against transformers' Mixtral, and several widths against one width."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from mohge.bench.memory import step_peak_bytes
from mohge.bench.peers import IMPLEMENTATIONS, MixtralStep, transformers_installed
from mohge.bench.progress import say
from mohge.bench.rows import Measured, Row
from mohge.bench.sizes import heterogeneous, homogeneous
from mohge.bench.timing import Variant, interleave
from mohge.bench.training_step import RandomBatches, TrainingStep
from mohge.config.bench_schema import StepBenchConfig
from mohge.config.schema import TrainConfig

OURS = "mohge"
HETEROGENEOUS, HOMOGENEOUS = "mohge_heterogeneous", "moe_homogeneous"
NO_PEERS = "transformers is not installed, and so is not compared: pip install 'mohge[transformers]'"


def measure_step(config: TrainConfig, bench: StepBenchConfig, device: torch.device) -> Measured:
    """Rows of the models of one width, then of several widths against one at equal active FLOPs.

    Our model of one width is timed once, and is in both comparisons.

    Raises:
        UserError: the kernel cannot compute these sizes.
    """
    plain = homogeneous(config, bench)
    batches = RandomBatches(plain, device)
    ours = {
        OURS: TrainingStep(plain, device),
        HETEROGENEOUS: TrainingStep(heterogeneous(config, bench), device),
    }
    steps: dict[str, TrainingStep | MixtralStep] = {**ours, **_peers(plain, device)}
    parameters = {name: sum(p.numel() for p in step.model.parameters()) for name, step in steps.items()}
    peers = [name for name in steps if name not in ours]
    for name in peers:
        assert abs(parameters[name] / parameters[OURS] - 1) < 0.01, f"models differ in size: {parameters}"

    flops: dict[str, float] = dict.fromkeys(ours, 0.0)

    def add_flops() -> None:
        for name, step in ours.items():
            flops[name] += step.routed_flops

    def new_round() -> None:
        add_flops()  # of the round before
        batches.renew()

    say(f"step: {', '.join(steps)}, {bench.rounds} rounds")
    timings = interleave(
        {name: Variant(partial(_make_step, step, batches)) for name, step in steps.items()},
        rounds=bench.rounds,
        warmup=bench.warmup,
        device=device,
        new_round=new_round,
    )
    add_flops()
    peaks = {
        name: step_peak_bytes(partial(_make_step, step, batches), step.drop_gradients, device)
        for name, step in steps.items()
    }
    best = min(peers, key=lambda name: timings[name].median, default=OURS)
    work = flops[HETEROGENEOUS] / flops[OURS]

    def row(shape: str, name: str, against: str) -> Row:
        return Row(
            bench="step",
            shape=shape,
            dtype=config.trainer.precision,
            kernel=config.experts.kernel if name in ours else None,
            peer=name,
            against=against,
            ratio=timings[name].median / timings[against].median,
            timing=timings[name],
            threads=torch.get_num_threads(),
            tokens_per_second=bench.batch_sequences * bench.context / timings[name].median,
            parameters=parameters[name],
            peak_bytes=peaks[name],
            peak_ratio=peaks[name] / peaks[against],
            peak_against=against,
        )

    rows = [row(_shape_name(bench), name, best) for name in (OURS, *peers)]
    plain_row, mixed_row = (row("equal_active_flops", name, OURS) for name in ours)
    plain_row, mixed_row = (
        replace(each, against=HOMOGENEOUS, peak_against=HOMOGENEOUS) for each in (plain_row, mixed_row)
    )
    rows.append(replace(plain_row, peer=HOMOGENEOUS, flops_ratio=1.0))
    rows.append(replace(mixed_row, flops_ratio=work))
    notes = [
        f"parameters: {', '.join(f'{name} {number:,}' for name, number in parameters.items())}",
        f"work of the routed rows, measured: {HETEROGENEOUS} {work:.3f} of {HOMOGENEOUS}",
    ]
    return Measured(rows, notes if peers else [*notes, NO_PEERS])


def _make_step(step: TrainingStep | MixtralStep, batches: RandomBatches) -> None:
    step(batches.current)


def _peers(config: TrainConfig, device: torch.device) -> dict[str, MixtralStep]:
    if not transformers_installed():
        return {}
    return {f"transformers_{name}": MixtralStep(config, name, device) for name in IMPLEMENTATIONS}


def _shape_name(bench: StepBenchConfig) -> str:
    return (
        f"D{bench.d_model} L{bench.layers} {bench.experts}x{bench.width} top{bench.top_k} "
        f"V{bench.vocab_size} {bench.batch_sequences}x{bench.context}"
    )
