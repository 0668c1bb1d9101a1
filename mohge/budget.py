"""What a configuration costs: parameters, active parameters, FLOPs per token and memory.

Plain arithmetic on the typed configuration, without torch. Tests hold it equal to the built model.

Conventions:
- A parameter belongs to the submodule that owns it: `attention` has its inner norm, `norms` are those of
  the blocks and the final one. A tied head has no parameters of its own. A dense feed-forward network
  counts as a shared expert, since every token passes through it.
- Active parameters are those that one token uses: all but the routed experts that it does not visit.
- FLOPs are two per multiply-add of matrix products. Attention counts the full square of the sequence, as
  torch's FlopCounterMode does, although a causal kernel skips about half of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mohge.config.schema import ModelConfig, TrainConfig

FP32_BYTES = 4
BF16_BYTES = 2
ADAM_MOMENTS = 2
DECISION_COPIES = 6
"""Float tensors of T x E that a routing decision and its gradient keep, about."""


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by component."""

    embedding: int
    head: int
    attention: int
    router: int
    routed_experts: int
    shared_experts: int
    norms: int

    @property
    def total(self) -> int:
        """All of them."""
        return (
            self.embedding
            + self.head
            + self.attention
            + self.router
            + self.routed_experts
            + self.shared_experts
            + self.norms
        )

    @property
    def without_head(self) -> int:
        """All but an untied head: the count in which published sizes are given."""
        return self.total - self.head


@dataclass(frozen=True)
class ActiveParameters:
    """Parameters that one token uses."""

    expected: int
    """Mean if every expert is picked equally often."""
    min: int
    """If its experts are the narrowest that can be picked together."""
    max: int
    """If its experts are the widest that can be picked together."""


@dataclass(frozen=True)
class FlopsPerToken:
    """Mean per token of a sequence of `data.context` tokens, every expert being picked equally often."""

    forward: int
    train: int
    """Forward and backward pass, the latter taken as two forward passes, and recomputation."""


@dataclass(frozen=True)
class MemoryBytes:
    """Memory of one process that trains."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    """What one micro-batch keeps for its backward pass; an estimate, within a tenth on the CPU."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Budget:
    """Cost of one configuration."""

    parameters: ParameterCount
    active_parameters: ActiveParameters
    flops_per_token: FlopsPerToken
    memory_bytes: MemoryBytes

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Plain numbers by name, totals included, for JSON."""
        parameters = asdict(self.parameters)
        return {
            "parameters": {
                "total": self.parameters.total,
                **parameters,
                "without_head": self.parameters.without_head,
            },
            "active_parameters": asdict(self.active_parameters),
            "flops_per_token": asdict(self.flops_per_token),
            "memory_bytes": {**asdict(self.memory_bytes), "total": self.memory_bytes.total},
        }


def budget(cfg: TrainConfig) -> Budget:
    """Cost of a configuration that has passed its cross-field checks."""
    parameters = count_parameters(cfg)
    return Budget(
        parameters=parameters,
        active_parameters=_active_parameters(cfg, parameters),
        flops_per_token=_flops_per_token(cfg, parameters),
        memory_bytes=_memory_bytes(cfg, parameters),
    )


def count_parameters(cfg: TrainConfig) -> ParameterCount:
    """Parameters of the model that `build_model(cfg)` builds."""
    model, experts, router = cfg.model, cfg.experts, cfg.router
    routed = router.kind != "none"
    router_rows = experts.num_experts + (experts.num_groups if router.kind == "two_level" else 0)
    return ParameterCount(
        embedding=model.vocab_size * model.d_model,
        head=0 if model.tied_head else model.vocab_size * model.d_model,
        attention=model.layers * (_attention_matrices(model) + _attention_norm(model)),
        router=model.layers * model.d_model * router_rows if routed else 0,
        routed_experts=model.layers * experts.per_group * sum(_swiglu(cfg, w) for w in experts.widths)
        if routed
        else 0,
        shared_experts=model.layers * _swiglu(cfg, experts.shared * experts.shared_width),
        norms=(2 * model.layers + 1) * model.d_model,
    )


def _swiglu(cfg: TrainConfig, width: int) -> int:
    """Parameters of one SwiGLU: gate, up and down."""
    return 3 * cfg.model.d_model * width


def _attention_matrices(model: ModelConfig) -> int:
    """Parameters of the linear maps of one attention layer."""
    if model.attention == "mla":
        mla = model.mla
        query = model.d_model * model.heads * (mla.nope_dim + mla.rope_dim)
        compress = model.d_model * (mla.kv_rank + mla.rope_dim)
        expand = mla.kv_rank * model.heads * (mla.nope_dim + mla.value_dim)
        return query + compress + expand + model.heads * mla.value_dim * model.d_model
    head_dim = model.d_model // model.heads
    return model.d_model * head_dim * (model.heads + 2 * model.kv_heads) + model.d_model**2


def _attention_norm(model: ModelConfig) -> int:
    return model.mla.kv_rank if model.attention == "mla" else 0


def _score_width(model: ModelConfig) -> int:
    """Width of a query head plus that of a value head: multiply-adds per head and pair of positions."""
    if model.attention == "mla":
        return model.mla.nope_dim + model.mla.rope_dim + model.mla.value_dim
    return 2 * (model.d_model // model.heads)


def _experts_per_token(cfg: TrainConfig) -> int:
    return cfg.router.expert_top_k if cfg.router.kind != "none" else 0


def _mean_routed_per_layer(cfg: TrainConfig) -> float:
    """Parameters of the experts that a token visits in one layer, every expert being equally likely."""
    top_k, widths = _experts_per_token(cfg), cfg.experts.widths
    return top_k * sum(_swiglu(cfg, w) for w in widths) / len(widths) if top_k else 0.0


def _extreme_routed_per_layer(cfg: TrainConfig, *, widest: bool) -> int:
    """Parameters of the cheapest or dearest choice of experts in one layer.

    The choice is greedy: all N experts of the extreme width, then those of the next. It spans
    ceil(K_e / N) groups, which are never more than K_g, since K_e <= K_g * N. With router.selection=per_group
    it spans all groups that a token chooses, with as many experts of each.
    """
    top_k, per_group = _experts_per_token(cfg), cfg.experts.per_group
    if top_k and cfg.router.selection == "per_group":
        per_group = top_k // (cfg.router.group_top_k or cfg.experts.num_groups)
    every_expert = [w for w in sorted(cfg.experts.widths, reverse=widest) for _ in range(per_group)]
    return sum(_swiglu(cfg, w) for w in every_expert[:top_k])


def _active_parameters(cfg: TrainConfig, parameters: ParameterCount) -> ActiveParameters:
    always = parameters.total - parameters.routed_experts
    layers = cfg.model.layers
    return ActiveParameters(
        expected=round(always + layers * _mean_routed_per_layer(cfg)),
        min=always + layers * _extreme_routed_per_layer(cfg, widest=False),
        max=always + layers * _extreme_routed_per_layer(cfg, widest=True),
    )


def _flops_per_token(cfg: TrainConfig, parameters: ParameterCount) -> FlopsPerToken:
    model = cfg.model
    scores_and_values = cfg.data.context * model.heads * _score_width(model)
    attention = 2 * model.layers * (_attention_matrices(model) + scores_and_values)
    feed_forward = 2 * (parameters.shared_experts + model.layers * _mean_routed_per_layer(cfg))
    router = 2 * parameters.router
    # A tied head has no parameters, yet is a product all the same.
    head = 2 * model.vocab_size * model.d_model
    forward = attention + feed_forward + router + head
    recomputed = attention + feed_forward if model.activation_checkpointing else 0.0
    return FlopsPerToken(forward=round(forward), train=round(3 * forward + recomputed))


def train_flops_per_token(cfg: TrainConfig, routed_parameters: float) -> float:
    """FLOPs of training on a token that passes through so many parameters of routed experts in all layers.

    With the number that equal loads give, it is the budget's.
    """
    expected = cfg.model.layers * _mean_routed_per_layer(cfg)
    return budget(cfg).flops_per_token.train + train_flops(cfg, routed_parameters - expected)


def train_flops(cfg: TrainConfig, parameters: float) -> float:
    """FLOPs of training on a token that passes through so many parameters of feed-forward networks."""
    passes = 4 if cfg.model.activation_checkpointing else 3
    return 2 * passes * parameters


def _memory_bytes(cfg: TrainConfig, parameters: ParameterCount) -> MemoryBytes:
    weights = FP32_BYTES * parameters.total
    return MemoryBytes(
        weights=weights,
        gradients=weights,
        optimizer=ADAM_MOMENTS * weights,
        activations=activation_bytes(cfg, parameters, cfg.data.batch_sequences, cfg.experts.widths),
    )


def activation_bytes(
    cfg: TrainConfig,
    parameters: ParameterCount,
    sequences: int,
    widths: Sequence[int],
    *,
    rows_arrive: bool = False,
) -> int:
    """Bytes kept for the backward pass of one micro-batch, the gradient of the head included.

    It assumes a fused attention kernel. The CPU has none when keys and values differ in width, as in
    latent attention, and keeps one more number per head and pair of positions. Of experts.kernel=auto it
    assumes the most, which is what `grouped` keeps.

    Args:
        cfg: model, kernel and precision.
        parameters: those that the process computes with, whole.
        sequences: of the micro-batch, in this process.
        widths: of the experts that compute here; each gets as many rows, `expert_top_k` per token in all.
        rows_arrive: whether tokens come to the experts from other ranks, so that no kernel can gather their
            rows again.
    """
    model = cfg.model
    bf16 = cfg.trainer.precision == "bf16"
    element = BF16_BYTES if bf16 else FP32_BYTES
    routed = cfg.router.kind != "none"
    residual = FP32_BYTES * model.d_model
    # The input of a norm; then the norm's output as the operand of a product, which the router reads in
    # float32 even if the others read bfloat16.
    norm = residual
    operand = element * model.d_model
    router_operand = residual if routed and bf16 else 0
    attention = element * _attention_activations(model)
    feed_forward = _feed_forward_bytes(cfg, widths, rows_arrive, element)
    decision = FP32_BYTES * DECISION_COPIES * cfg.experts.num_experts if routed else 0
    whole_layer = 2 * norm + 2 * operand + router_operand + attention + feed_forward + decision
    if model.activation_checkpointing:
        # Kept: what enters attention, the second norm and the feed-forward network. One region at a time
        # is made again.
        kept = 3 * residual + operand + decision
        per_token = model.layers * kept + max(norm + operand + attention, feed_forward)
    else:
        per_token = model.layers * whole_layer
    per_token += norm + operand  # the head's operand makes room for its gradient
    tokens = sequences * cfg.data.context
    head_gradient = FP32_BYTES * model.vocab_size * model.d_model
    copies = BF16_BYTES * _copied_weights(cfg, parameters) if bf16 else 0
    return round(tokens * per_token) + head_gradient + copies


def _copied_weights(cfg: TrainConfig, parameters: ParameterCount) -> int:
    """Weights of which autocast keeps a copy; recomputation keeps those of one layer's experts at a time."""
    model = cfg.model
    routed = parameters.routed_experts // (model.layers if model.activation_checkpointing else 1)
    return parameters.attention + parameters.shared_experts + (0 if _keeps_little(cfg) else routed)


def _keeps_little(cfg: TrainConfig) -> bool:
    """Whether the kernel computes SwiGLU again, and gathers rows again, in the backward pass."""
    return cfg.experts.kernel in ("fused", "native")


def _attention_activations(model: ModelConfig) -> int:
    """Numbers per token that one attention layer keeps, beside its input."""
    if model.attention == "mla":
        mla = model.mla
        queries_and_keys = 2 * model.heads * (mla.nope_dim + mla.rope_dim)
        expanded = model.heads * (mla.nope_dim + mla.value_dim)
        return 2 * mla.kv_rank + mla.rope_dim + queries_and_keys + expanded + 2 * model.heads * mla.value_dim
    head_dim = model.d_model // model.heads
    # The product for queries, keys and values (of which the values stay); queries and keys after rotation;
    # the output by heads, and the same by positions.
    return head_dim * ((model.heads + 2 * model.kv_heads) + (model.heads + model.kv_heads) + 2 * model.heads)


def _feed_forward_bytes(cfg: TrainConfig, widths: Sequence[int], rows_arrive: bool, element: int) -> float:
    """Bytes per token that one MoE or dense layer keeps, beside the input in `element` bytes a number."""
    top_k, d_model = _experts_per_token(cfg), cfg.model.d_model
    shared = cfg.experts.shared * cfg.experts.shared_width
    routed = top_k * sum(widths) / len(widths) if top_k else 0.0
    # Per hidden unit: gate, up, silu(gate) and their product. Per row: the token's copy, and the output.
    if not _keeps_little(cfg):
        return element * (4 * (shared + routed) + 2 * top_k * d_model)
    # `native` computes in float32: of tokens in bfloat16 it makes a copy.
    in_experts = FP32_BYTES if cfg.experts.kernel == "native" else element
    copies = top_k if rows_arrive else int(routed > 0 and in_experts > element)
    return element * 4 * shared + in_experts * (2 * routed + copies * d_model)
