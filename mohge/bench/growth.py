"""bench=growth: what a layer, a block or a model costs as one thing grows and the others stay.

Shapes: T tokens, B batch, S sequence, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mohge.bench.progress import say
from mohge.bench.rows import Measured, Row
from mohge.bench.sizes import growing
from mohge.bench.timing import Variant, interleave
from mohge.bench.training_step import TrainingStep, precision
from mohge.config.bench_schema import GrowthBenchConfig
from mohge.config.schema import TrainConfig
from mohge.model.rope import rotary_table
from mohge.model.transformer import TransformerBlock
from mohge.moe.layer import MoELayer


@dataclass(frozen=True)
class Series:
    """Values of what grows, and how to measure at one of them."""

    name: str
    """What grows."""
    values: tuple[int, ...]
    """In the order to show them; ratios are to the first."""
    make: Callable[[int], ModuleRun | ModelRun]
    """What to time at a value."""
    unit: str = "seconds"
    """What ratios are of."""
    tokens_grow: bool = False
    """Whether the value is a number of tokens, and not one of something that all tokens pass."""

    def units(self, value: int) -> int:
        """What the median is divided by for the ratio."""
        return 1 if self.unit == "seconds" else value


def measure_growth(config: TrainConfig, bench: GrowthBenchConfig, device: torch.device) -> Measured:
    """Rows of four series: experts and tokens of a MoE layer, sequences through a block, layers of a model.

    Raises:
        UserError: the kernel cannot compute these sizes.
    """
    measured = Measured()
    for series in _all_series(config, bench, device):
        measured.rows += _measure_series(series, config, bench, device)
    return measured


def _measure_series(
    series: Series, config: TrainConfig, bench: GrowthBenchConfig, device: torch.device
) -> Iterator[Row]:
    say(f"growth of {series.name}: {', '.join(map(str, series.values))}, {bench.rounds} rounds")
    runs = {str(value): series.make(value) for value in series.values}
    timings = interleave(
        {name: Variant(run, run.reset) for name, run in runs.items()},
        rounds=bench.rounds,
        warmup=bench.warmup,
        device=device,
    )
    first = series.values[0]
    for value in series.values:
        timing, base = timings[str(value)], timings[str(first)]
        yield Row(
            bench="growth",
            shape=f"{series.name}={value}",
            dtype=config.trainer.precision,
            kernel=config.experts.kernel,
            against=f"{series.name}={first}",
            ratio=(timing.median / series.units(value)) / (base.median / series.units(first)),
            unit=series.unit,
            timing=timing,
            threads=torch.get_num_threads(),
            tokens_per_second=(value if series.tokens_grow else bench.batch_tokens) / timing.median,
        )


def _all_series(config: TrainConfig, bench: GrowthBenchConfig, device: torch.device) -> list[Series]:
    experts, length = bench.experts[0], bench.sequence[0]

    def layer(experts: int, tokens: int) -> ModuleRun:
        sized = growing(config, bench, experts=experts, layers=1, context=length)
        module = MoELayer(bench.d_model, sized.experts, sized.router)
        return ModuleRun(module, module, (tokens, bench.d_model), sized, device)

    def block(length: int) -> ModuleRun:
        sized = growing(config, bench, experts=experts, layers=1, context=length)
        module = TransformerBlock(sized.model, sized.experts, sized.router)
        width = bench.d_model // bench.heads
        table = rotary_table(length, width, sized.model.rope_base, dtype=torch.float32, device=device)
        shape = (sized.data.batch_sequences, length, bench.d_model)
        return ModuleRun(module, lambda x_BSD: module(x_BSD, table), shape, sized, device)

    def model(layers: int) -> ModelRun:
        return ModelRun(growing(config, bench, experts=experts, layers=layers, context=length), device)

    return [
        Series("experts", bench.experts, lambda value: layer(value, bench.batch_tokens)),
        Series("tokens", bench.tokens, lambda value: layer(experts, value), "seconds per token", True),
        Series("sequence", bench.sequence, block),
        Series("layers", bench.layers, model, "seconds per layer"),
    ]


class ModuleRun:
    """Forward and backward of a layer or block on random input.

    Args:
        module: whose parameters take gradients.
        forward: calls it, and returns its output first and its decision second.
        shape: of input and output, ending with D.
        config: seed and precision.
        device: where.
    """

    def __init__(
        self,
        module: nn.Module,
        forward: Callable[[Tensor], tuple[Tensor, object]],
        shape: Sequence[int],
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self._module = module.to(device)
        self._forward, self._shape, self._device = forward, tuple(shape), device
        self._generator = torch.Generator().manual_seed(config.seed)
        self._precision = precision(config, device)
        self._gradient = self._normal()

    def reset(self) -> None:
        """Drop gradients, and draw new input, which is routed in another way."""
        self._module.zero_grad(set_to_none=True)
        self._x = self._normal().requires_grad_()

    def __call__(self) -> None:
        """Compute, and go back with gradients of input and parameters."""
        with self._precision:
            y, _ = self._forward(self._x)
        y.backward(self._gradient.to(y.dtype))

    def _normal(self) -> Tensor:
        return torch.randn(self._shape, generator=self._generator).to(self._device)


class ModelRun:
    """A whole training step on random tokens.

    Args:
        config: sizes.
        device: where.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self._step = TrainingStep(config, device)
        self._shape = (config.data.batch_sequences, config.data.context + 1)
        self._vocab_size, self._device = config.model.vocab_size, device
        self._generator = torch.Generator().manual_seed(config.seed)

    def reset(self) -> None:
        """Draw new tokens."""
        tokens_BS = torch.randint(self._vocab_size, self._shape, generator=self._generator)
        self._tokens_BS = tokens_BS.to(self._device)

    def __call__(self) -> None:
        """Make the step."""
        self._step([self._tokens_BS])
