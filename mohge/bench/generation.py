"""bench=generation: our generation against transformers' on the same weights, and its cost as context grows.

Shapes: B batch, S sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mohge.bench.exported import OURS, against_the_best, peers, untrained
from mohge.bench.progress import say
from mohge.bench.rows import Measured, Row
from mohge.bench.step import NO_PEERS
from mohge.bench.timing import Variant, interleave
from mohge.config.bench_schema import GenerationBenchConfig
from mohge.config.schema import TrainConfig
from mohge.config.targets import build
from mohge.errors import RunError
from mohge.model.cache import KeyValueCache
from mohge.model.transformer import TransformerLM

_SAME = 0.99
"""Share of tokens that must be: a tie of two logits may turn on the last bit."""
NOTES = (
    "tokens are the most probable ones of an untrained model, and both libraries have its weights; the time "
    "of a generation includes reading the prompts",
    "context: ratios are of the time of a new token after so many tokens, without reading those",
)


def measure_generation(config: TrainConfig, bench: GenerationBenchConfig, device: torch.device) -> Measured:
    """Rows of the libraries, then of contexts."""
    longest = max(bench.prompt + bench.new_tokens, max(bench.contexts) + bench.steps)
    config, ours = untrained(config, longest, device)
    drawn = torch.Generator().manual_seed(config.seed)
    prompts_BS = torch.randint(
        1, config.model.vocab_size, (bench.batch, max(bench.prompt, *bench.contexts)), generator=drawn
    ).to(device)
    measured = _libraries(config, bench, ours, prompts_BS[:, : bench.prompt], device)
    measured.rows += _contexts(config, bench, ours, prompts_BS, device)
    measured.notes += NOTES
    return measured


def _libraries(
    config: TrainConfig,
    bench: GenerationBenchConfig,
    ours: TransformerLM,
    prompts_BS: Tensor,
    device: torch.device,
) -> Measured:
    ways: dict[str, Callable[[], Tensor]] = {
        OURS: build("bench.ours", bench.ours.target, ours, prompts_BS, bench.new_tokens)
    }
    theirs = peers(config, ours)
    ways |= {name: partial(_generate, model, prompts_BS, bench.new_tokens) for name, model in theirs.items()}
    say(f"generation: {', '.join(ways)}, {bench.rounds} rounds")
    made = {name: way() for name, way in ways.items()}
    tokens = bench.batch * bench.new_tokens
    parameters = sum(parameter.numel() for parameter in ours.parameters())
    shape = f"{bench.batch}x{bench.prompt}+{bench.new_tokens}"
    rows = against_the_best(ways, tokens, "generation", shape, config, bench, device, parameters)
    if not theirs:
        return Measured(rows, [NO_PEERS])
    same = {name: float((made[name] == made[OURS]).double().mean()) for name in theirs}
    if min(same.values()) < _SAME:
        raise RunError(f"transformers generates other tokens than ours, so that nothing is compared: {same}")
    shown = ", ".join(f"{name} {share:.1%}" for name, share in same.items())
    return Measured(rows, [f"generated tokens that are ours: {shown}"])


def _generate(model: Any, prompts_BS: Tensor, new_tokens: int) -> Tensor:
    """What transformers generates, (B, new tokens)."""
    made: Tensor = model.generate(
        prompts_BS,
        attention_mask=torch.ones_like(prompts_BS),
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    return made[:, prompts_BS.shape[1] :]


def _contexts(
    config: TrainConfig,
    bench: GenerationBenchConfig,
    ours: TransformerLM,
    prompts_BS: Tensor,
    device: torch.device,
) -> list[Row]:
    runs = {length: AfterContext(ours, prompts_BS[:, :length], bench.steps) for length in bench.contexts}
    say(f"generation: contexts of {', '.join(map(str, runs))} tokens, {bench.rounds} rounds")
    timings = interleave(
        {str(length): Variant(run, run.read) for length, run in runs.items()},
        rounds=bench.rounds,
        warmup=bench.warmup,
        device=device,
    )
    first = timings[str(bench.contexts[0])]
    return [
        Row(
            bench="generation",
            shape=f"context={length}",
            dtype="fp32",
            kernel=config.experts.kernel,
            against=f"context={bench.contexts[0]}",
            ratio=timings[str(length)].median / first.median,
            unit="seconds per token",
            timing=timings[str(length)],
            threads=torch.get_num_threads(),
            tokens_per_second=bench.batch * bench.steps / timings[str(length)].median,
        )
        for length in runs
    ]


class AfterContext:
    """New tokens after a context that has been read.

    Args:
        model: for inference.
        prompts_BS: the context.
        steps: new tokens of each row.
    """

    def __init__(self, model: TransformerLM, prompts_BS: Tensor, steps: int) -> None:
        self._model, self._prompts_BS, self._steps = model, prompts_BS, steps

    @torch.inference_mode()
    def read(self) -> None:
        """Read the context."""
        rows, length = self._prompts_BS.shape
        self._cache = KeyValueCache(rows, length + self._steps)
        self._next_B1 = self._model(self._prompts_BS, cache=self._cache, last=True).logits_BSV.argmax(dim=2)

    @torch.inference_mode()
    def __call__(self) -> None:
        """Generate."""
        for _ in range(self._steps):
            output = self._model(self._next_B1, cache=self._cache, last=True)
            self._next_B1 = output.logits_BSV.argmax(dim=2)
