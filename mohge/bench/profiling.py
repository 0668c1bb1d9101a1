"""bench=profile: where the time and memory of a training step go, on the real data of the configuration.

Shapes: B batch, S sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mohge.bench.chart import draw_parts
from mohge.bench.experts import DTYPES
from mohge.bench.flops import step_flops
from mohge.bench.memory import step_peak_bytes
from mohge.bench.parts import PartTimes, profile_step
from mohge.bench.progress import say
from mohge.bench.rows import Measured, Row
from mohge.bench.sizes import shape_name
from mohge.bench.timing import Timing, Variant, interleave
from mohge.bench.training_step import TrainingStep
from mohge.config.bench_schema import ProfileBenchConfig
from mohge.config.schema import TrainConfig
from mohge.config.targets import build

STEP, PEAK, MEMORY = "step", "matmul_peak", "peak_memory"
MakeRow = Callable[..., Row]
"""Makes a row of what all rows share and the arguments."""


def measure_profile(config: TrainConfig, bench: ProfileBenchConfig, device: torch.device) -> Measured:
    """Rows of the parts of a step, of its speed beside the machine's peak, and of its memory.

    Raises:
        UserError: wrong data, or the chart cannot be written.
    """
    batches = _Batches(config, device)
    step = TrainingStep(config, device)
    routed_flops: list[float] = []

    def make_step() -> None:
        step(batches.current)

    def new_round() -> None:
        routed_flops.append(step.routed_flops)  # of the round before
        batches.renew()

    say(f"profile: {bench.rounds} steps, then {bench.profiled_steps} under the profiler")
    dtype = DTYPES[config.trainer.precision]
    products = {size: Variant(_SquareProduct(size, dtype, device)) for size in bench.matmul_sizes}
    timings = interleave(
        {STEP: Variant(make_step)} | {f"{PEAK} {size}": product for size, product in products.items()},
        rounds=bench.rounds,
        warmup=bench.warmup,
        device=device,
        new_round=new_round,
    )
    routed_flops.append(step.routed_flops)
    profiles = []
    for _ in range(bench.profiled_steps):
        batches.renew()
        profiles.append(profile_step(step, batches.current, device))
    peak = step_peak_bytes(make_step, step.drop_gradients, device)

    row = partial(
        Row,
        bench="profile",
        shape=shape_name(config),
        dtype=config.trainer.precision,
        kernel=config.experts.kernel,
        threads=torch.get_num_threads(),
    )
    whole, wait = timings[STEP], Timing(batches.waits[bench.warmup :])
    first = row(
        part=STEP,
        against=STEP,
        ratio=1.0,
        timing=whole,
        tokens_per_second=config.tokens_per_step / whole.median,
    )
    parts = [
        *_part_rows(row, profiles, whole),
        row(part="data wait", against=STEP, ratio=wait.median / whole.median, timing=wait),
    ]
    if bench.chart is not None:
        draw_parts(first, parts, bench.chart)
    routed = float(np.median(routed_flops[1:]))  # before the first round there was no step
    rows = [first, *parts, *_speed_rows(row, config, timings, routed), *_memory_rows(row, step, peak)]
    slower = float(np.median([each.total for each in profiles])) / whole.median
    notes = [
        f"parts are shares of a step under the profiler, which took {slower:.2f} of a plain one",
        "step FLOP/s counts attention over all pairs of positions; causal, over those that the mask leaves",
    ]
    return Measured(rows, notes)


def _part_rows(row: MakeRow, profiles: Sequence[PartTimes], step: Timing) -> list[Row]:
    """A row for each part, the longest first; times are shares of the plain step's."""
    rows = []
    for part in profiles[0].names():
        shares = [each.of(part) / each.total for each in profiles]
        forward = [each.forward.get(part, 0.0) / each.total for each in profiles]
        rows.append(
            row(
                part=part,
                against=STEP,
                ratio=float(np.median(shares)),
                timing=Timing([share * step.median for share in shares]),
                forward_seconds=float(np.median(forward)) * step.median,
            )
        )
    return sorted(rows, key=lambda made: made.ratio or 0.0, reverse=True)


def _speed_rows(
    row: MakeRow, config: TrainConfig, timings: dict[str, Timing], routed_flops: float
) -> list[Row]:
    """The step's FLOP/s beside those of the fastest square product."""
    speeds = {
        name: 2 * int(name.removeprefix(PEAK)) ** 3 / timing.median
        for name, timing in timings.items()
        if name != STEP
    }
    fastest = max(speeds, key=lambda name: speeds[name])
    found = {
        "step FLOP/s": (step_flops(config, routed_flops, causal=False), STEP),
        "step FLOP/s, causal": (step_flops(config, routed_flops, causal=True), STEP),
        PEAK: (speeds[fastest] * timings[fastest].median, fastest),
    }
    return [
        row(
            part=part,
            against=PEAK,
            ratio=flops / timings[name].median / speeds[fastest],
            unit="FLOP/s",
            timing=timings[name],
            gflops=flops / timings[name].median / 1e9,
        )
        for part, (flops, name) in found.items()
    ]


def _memory_rows(row: MakeRow, step: TrainingStep, peak: int) -> list[Row]:
    """Bytes at the worst moment of a step by what they are for; `peak` leaves out weights and moments."""
    weights = sum(_bytes(parameter) for parameter in step.model.parameters())
    moments = [value for state in step.optimizer.state.values() for value in state.values()]
    held = {
        "weights": weights,
        "optimizer state": sum(_bytes(value) for value in moments if isinstance(value, Tensor)),
        "gradients": weights,
        "activations and work space": max(peak - weights, 0),
    }
    held[MEMORY] = sum(held.values())
    return [
        row(part=part, against=MEMORY, ratio=each / held[MEMORY], unit="bytes", peak_bytes=each)
        for part, each in held.items()
    ]


class _Batches:
    """Micro-batches from the data module that mohge-train reads, and the seconds that each step waited."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        data = build("data", config.data.target, config.data, config.seed)
        data.prepare(progress=True)
        self._batches: Iterator[dict[str, Tensor]] = iter(data.train_dataloader())
        self._number = config.trainer.accumulate
        self._device = device
        self.waits: list[float] = []

    def renew(self) -> None:
        """Fetch the next step's."""
        start = time.perf_counter()
        fetched = [next(self._batches)["tokens"] for _ in range(self._number)]
        self.waits.append(time.perf_counter() - start)
        self.current = [tokens_BS.to(self._device) for tokens_BS in fetched]


class _SquareProduct:
    """A product of two square matrices, into one that is there already."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._a, self._b = (torch.randn(size, size).to(device, dtype) for _ in range(2))
        self._out = torch.empty_like(self._a)

    def __call__(self) -> None:
        torch.mm(self._a, self._b, out=self._out)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
