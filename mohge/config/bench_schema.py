"""The typed configuration of mohge-bench: a training configuration, and what to measure.

Nothing here imports torch, so that a wrong configuration is refused at once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, field_validator

from mohge.config.schema import (
    Kernel,
    NonNegative,
    Positive,
    ResultConfig,
    Weight,
    config_class,
)

Dtype = Literal["fp32", "bf16"]


@config_class
class TimedConfig:
    """How every benchmark measures time."""

    rounds: Positive
    """Timed rounds; each runs every variant once."""
    warmup: NonNegative
    """Rounds before those, not counted."""
    threads: tuple[Positive, ...] | None
    """Numbers of threads to measure with, one after another; null for what torch takes by itself."""


@config_class
class ExpertsShape:
    """One expert pool and its load."""

    d_model: Positive
    """Width of the tokens (D)."""
    widths: tuple[Positive, ...]
    """Hidden width of each group's experts (W_g)."""
    per_group: Positive
    """Experts in each group (N)."""
    tokens: Positive
    """Tokens in each round (T)."""
    top_k: Positive
    """Experts per token (K)."""


@config_class
class ExpertsBenchConfig(TimedConfig):
    """Kernels of the experts against dense products of the same work."""

    kind: Literal["experts"]
    """Name of the benchmark."""
    shapes: dict[str, ExpertsShape]
    """Shapes by name."""
    only: tuple[str, ...] | None
    """Names of the shapes to measure; null for all."""
    dtypes: tuple[Dtype, ...]
    """Number formats of tokens and weights."""
    kernels: tuple[Kernel, ...] | None
    """Values of experts.kernel to measure; null for all."""
    skew: Weight
    """Zipf exponent of the experts' popularity; 0 makes them equally popular."""


@config_class
class StepBenchConfig(TimedConfig):
    """A training step against transformers' Mixtral, and of different widths against one width."""

    kind: Literal["step"]
    """Name of the benchmark."""
    d_model: Positive
    """Width of the residual stream (D)."""
    layers: Positive
    """Transformer blocks."""
    heads: Positive
    """Query heads."""
    kv_heads: Positive
    """Key and value heads."""
    vocab_size: Positive
    """Rows of the embedding (V)."""
    tied_head: bool
    """Whether the head shares the embedding's weights."""
    context: Positive
    """Tokens per sequence (S)."""
    batch_sequences: Positive
    """Sequences per step (B)."""
    experts: Positive
    """Experts per layer (E)."""
    width: Positive
    """Hidden width of each expert, of one width (W)."""
    widths: tuple[Positive, ...]
    """Hidden widths of the groups of the heterogeneous model; their mean is `width`."""
    top_k: Positive
    """Experts per token (K)."""
    group_top_k: Positive
    """Groups per token of the heterogeneous model (K_g)."""
    balance_weight: Weight
    """Weight of the balance loss, in both libraries."""


@config_class
class GrowthBenchConfig(TimedConfig):
    """Cost as one thing grows and the others stay."""

    kind: Literal["growth"]
    """Name of the benchmark."""
    d_model: Positive
    """Width of the residual stream (D)."""
    heads: Positive
    """Query heads."""
    kv_heads: Positive
    """Key and value heads."""
    vocab_size: Positive
    """Rows of the embedding (V), for whole models."""
    widths: tuple[Positive, ...]
    """Hidden width of each group's experts (W_g)."""
    top_k: Positive
    """Experts per token (K)."""
    group_top_k: Positive
    """Groups per token (K_g)."""
    experts: tuple[Positive, ...]
    """Experts of a MoE layer, in multiples of the groups; the other series have the first."""
    tokens: tuple[Positive, ...]
    """Tokens through a MoE layer."""
    sequence: tuple[Positive, ...]
    """Tokens per sequence through a block, attention included, at `batch_tokens` in all."""
    layers: tuple[Positive, ...]
    """Layers of a whole model, which reads sequences of the first length of `sequence`."""
    batch_tokens: Positive
    """Tokens in a step of the series that do not vary them (T); sequences divide it."""


@config_class
class ProfileBenchConfig(TimedConfig):
    """Where the time and memory of the composed configuration's training step go."""

    kind: Literal["profile"]
    """Name of the benchmark."""
    profiled_steps: Positive
    """Steps under the profiler, after the timed ones."""
    matmul_sizes: tuple[Positive, ...]
    """Sides of the square products whose fastest is this machine's peak."""
    chart: str | None
    """File for a picture (.png) of the parts of a step; null for none."""


@config_class
class ParallelBenchConfig(TimedConfig):
    """The composed configuration's training step on several ranks of this machine, against one process."""

    kind: Literal["parallel"]
    """Name of the benchmark."""
    meshes: tuple[tuple[Positive, ...], ...]
    """Sizes (dp_replicate, dp_shard, expert_parallel) of each mesh; all have as many ranks."""


@config_class
class CallbacksBenchConfig(TimedConfig):
    """What watching the composed configuration's training costs."""

    kind: Literal["callbacks"]
    """Name of the benchmark."""


@config_class
class TargetConfig:
    """A function of another package."""

    target: Annotated[str, Field(alias="_target_")]
    """Its import path."""


@config_class
class GenerationBenchConfig(TimedConfig):
    """The composed configuration's generation against transformers', and its cost as context grows."""

    kind: Literal["generation"]
    """Name of the benchmark."""
    batch: Positive
    """Prompts of a generation (B)."""
    prompt: Positive
    """Tokens of a prompt."""
    new_tokens: Positive
    """Tokens that each prompt is continued by."""
    contexts: tuple[Positive, ...]
    """Tokens before those whose cost is compared; ratios are to the first."""
    steps: Positive
    """Tokens of each prompt in a round of that comparison."""
    ours: TargetConfig
    """Makes our generation; it is called with a model, prompts and the number of new tokens."""


@config_class
class LikelihoodBenchConfig(TimedConfig):
    """The composed configuration's scoring of continuations against lm-eval's on transformers."""

    kind: Literal["likelihood"]
    """Name of the benchmark."""
    batch: Positive
    """Sequences of a forward pass."""
    questions: Positive
    """Contexts."""
    choices: Positive
    """Continuations of each context, where several share one."""
    context_tokens: tuple[Positive, Positive]
    """Fewest and most tokens of a context."""
    choice_tokens: tuple[Positive, Positive]
    """Fewest and most tokens of a continuation."""
    ours: TargetConfig
    """Makes our scoring; it is called with a model, pairs of contexts and continuations, and the batch."""


BenchKindConfig = (
    ExpertsBenchConfig
    | StepBenchConfig
    | GrowthBenchConfig
    | ProfileBenchConfig
    | ParallelBenchConfig
    | CallbacksBenchConfig
    | GenerationBenchConfig
    | LikelihoodBenchConfig
)

_KINDS: dict[str, type] = {
    "experts": ExpertsBenchConfig,
    "step": StepBenchConfig,
    "growth": GrowthBenchConfig,
    "profile": ProfileBenchConfig,
    "parallel": ParallelBenchConfig,
    "callbacks": CallbacksBenchConfig,
    "generation": GenerationBenchConfig,
    "likelihood": LikelihoodBenchConfig,
}


@config_class
class BenchConfig(ResultConfig):
    """All that mohge-bench reads."""

    bench: BenchKindConfig
    """What to measure."""

    # pydantic's own discriminated unions put the kind into the keys of messages: bench.experts.rounds.
    @field_validator("bench", mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        kind = _KINDS.get(str(value.get("kind"))) if isinstance(value, dict) else None
        return value if kind is None else TypeAdapter(kind).validate_python(value)
