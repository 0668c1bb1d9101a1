"""bench=experts: the kernels of the experts against dense products of the same work.

Shapes: T tokens, D model width, G groups, N experts per group, W width of a group's experts, R rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from mohge.bench.flops import experts_flops
from mohge.bench.load import ExpertsLoad
from mohge.bench.memory import peak_bytes
from mohge.bench.progress import say
from mohge.bench.rows import Measured, Row
from mohge.bench.timing import Timing, Variant, interleave
from mohge.config.bench_schema import Dtype, ExpertsBenchConfig, ExpertsShape
from mohge.config.schema import Kernel
from mohge.moe.dispatch import sort_rows
from mohge.moe.experts import Experts

DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
BOUND = "dense"
REFERENCE: Kernel = "loop"


def measure_experts(bench: ExpertsBenchConfig, *, seed: int, device: torch.device) -> Measured:
    """Rows of every shape and dtype that is asked for: the dense bound, then the kernels."""
    measured = Measured()
    for name in bench.only or bench.shapes:
        for dtype in bench.dtypes:
            measured.rows += _measure_shape(bench, name, dtype, seed, device)
    return measured


def every_kernel() -> tuple[Kernel, ...]:
    """Values of experts.kernel."""
    return get_args(Kernel)


def _measure_shape(
    bench: ExpertsBenchConfig, name: str, dtype: Dtype, seed: int, device: torch.device
) -> Iterator[Row]:
    shape = bench.shapes[name]
    load = ExpertsLoad(
        shape,
        rounds=bench.warmup + bench.rounds,
        skew=bench.skew,
        dtype=DTYPES[dtype],
        device=device,
        seed=seed,
    )
    torch.manual_seed(seed)
    pool = Experts(shape.d_model, shape.widths, shape.per_group, REFERENCE).to(device, DTYPES[dtype])
    kernels: dict[Kernel, KernelRun] = {}
    refusals: dict[str, str] = {}
    for kernel in bench.kernels or every_kernel():
        try:
            run = KernelRun(shape, kernel, pool, load)
            run.reset()
            run()  # some refusals come only with the data
            kernels[kernel] = run
        except ValueError as error:
            refusals[kernel] = str(error)

    say(f"experts {name} {dtype}: {', '.join([BOUND, *kernels])}, {bench.rounds} rounds")
    dense = DenseRun(pool, load)
    variants = {BOUND: Variant(dense, dense.reset)}
    for kernel, run in kernels.items():
        variants[kernel] = Variant(run, run.reset)
    timings = interleave(
        variants, rounds=bench.rounds, warmup=bench.warmup, device=device, new_round=load.renew
    )
    flops = experts_flops(shape.d_model, shape.widths, load.group_rows)
    peaks: dict[str, int] = {}
    for kernel, run in kernels.items():
        run.reset()
        peaks[kernel] = peak_bytes(run, device)

    def row(kernel: str, timing: Timing | None, note: str | None = None) -> Row:
        return Row(
            bench="experts",
            shape=name,
            dtype=dtype,
            kernel=kernel,
            against=BOUND,
            ratio=timing.median / timings[BOUND].median if timing else None,
            timing=timing,
            threads=torch.get_num_threads(),
            gflops=flops / timing.median / 1e9 if timing else None,
            peak_bytes=peaks.get(kernel),
            peak_ratio=peaks[kernel] / peaks[REFERENCE] if kernel in peaks and REFERENCE in peaks else None,
            peak_against=REFERENCE if kernel in peaks and REFERENCE in peaks else None,
            note=note,
        )

    yield from (row(kernel, timing) for kernel, timing in timings.items())
    yield from (row(kernel, None, sentence) for kernel, sentence in refusals.items())


class KernelRun:
    """Forward and backward of the experts by one kernel, from the decision of a router on.

    Args:
        shape: of the experts.
        kernel: value of experts.kernel.
        pool: whose parameters are used.
        load: tokens and routing.

    Raises:
        ValueError: the kernel cannot compute these widths.
    """

    def __init__(self, shape: ExpertsShape, kernel: Kernel, pool: Experts, load: ExpertsLoad) -> None:
        with torch.device("meta"):
            self.experts = Experts(shape.d_model, shape.widths, shape.per_group, kernel)
        self.experts.groups = pool.groups
        self._load = load

    def reset(self) -> None:
        """Drop gradients, and what was counted of the decision."""
        self._load.x_TD.grad = None
        self.experts.zero_grad(set_to_none=True)
        self._decision = self._load.decision()

    def __call__(self) -> None:
        """What a training step does: sort the rows, compute, and go back."""
        y_TD = self.experts(self._load.x_TD, sort_rows(self._decision))
        y_TD.backward(self._load.grad_TD)


class DenseRun:
    """The bound: as many rows for each group, through one SwiGLU of its width, with nothing to route.

    Their number is the same in every round, as it would be in a dense network: some libraries compile anew
    for each number of rows.

    Args:
        pool: whose first expert of each group is used.
        load: rows of each group.
    """

    def __init__(self, pool: Experts, load: ExpertsLoad) -> None:
        self._weights = [
            tuple(
                group.get_parameter(name)[0].detach().clone().requires_grad_() for name in ("gate_up", "down")
            )
            for group in pool.groups
        ]
        self._load = load
        self._gradients = load.dense_gradients()

    def reset(self) -> None:
        """Drop gradients."""
        self._inputs = self._load.dense_inputs()
        for weight in (weight for pair in self._weights for weight in pair):
            weight.grad = None

    def __call__(self) -> None:
        """Forward and backward, with gradients of inputs and weights."""
        outputs = [_swiglu(x, *pair) for x, pair in zip(self._inputs, self._weights, strict=True)]
        torch.autograd.backward(outputs, self._gradients)


def _swiglu(x_RD: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = F.linear(x_RD, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)
