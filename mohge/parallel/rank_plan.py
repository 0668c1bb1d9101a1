"""What each rank of a mesh holds, computes and sends, from the configuration alone.

Plain arithmetic, without torch. Conventions:
- Rank indices count the mesh (dp_replicate, dp_shard, ep) row by row, ep fastest. Each rank reads its part
  of every micro-batch.
- The experts of a layer are placed over ep, the same in every layer, and cut over dp_shard. All other
  parameters are cut over dp_shard x ep, here as evenly as whole numbers can be; FSDP2 cuts each of them along
  its first axis, which differs by a few rows. dp_replicate copies all of it.
- Weights, gradients and AdamW's two moments are float32, and so is what is gathered and reduced.
- FSDP gathers the embedding, the head and the final norm (the root) in the forward pass, until the end of
  the backward pass, and each block in both passes. At the peak, a rank has all activations and, whole, the
  weights and gradients of the root and of one block, of whose experts only those of its ep rank. That is so
  for what one rank alone stores too, since FSDP2 copies it. Blocks that are gathered ahead of time, and
  buffers of collectives, are not counted.
- Every expert is equally likely, so that a token's choice leaves the rank with probability (ep - 1) / ep. It
  takes D numbers and a 4-byte weight there, and D numbers back; in the backward pass the gradients go the
  same ways. Numbers have 4 bytes, under bf16 2. Recomputation sends once more what the forward pass sent.
- Bytes are those that a rank sends; it receives as many. Collectives are rings: over n ranks, a gather or a
  scatter sends (n - 1) / n of the whole, an all-reduce twice that. Every micro-batch gathers, scatters and
  all-reduces. Norms of gradients, metrics and counts of rows are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mohge.budget import (
    ADAM_MOMENTS,
    BF16_BYTES,
    FP32_BYTES,
    ParameterCount,
    activation_bytes,
    count_parameters,
)
from mohge.config.schema import Placement, TrainConfig
from mohge.moe.placement import Slot, place
from mohge.parallel.sizes import MeshSizes, mesh_sizes


@dataclass(frozen=True)
class RankMemoryBytes:
    """Memory of one rank that trains, at its peak."""

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    """Whole weights and gradients of the root and of one block, less the head's gradient, which the forward
    pass makes and which activations count."""
    activations: int
    """What its part of a micro-batch keeps for the backward pass; an estimate."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


@dataclass(frozen=True)
class SentBytes:
    """Bytes that one rank sends in an optimizer step, by collective."""

    all_to_all_forward: int
    """Tokens to their experts, and results back."""
    all_to_all_backward: int
    """Their gradients; with recomputation, tokens and results once more."""
    all_gather_forward: int
    """Weights."""
    all_gather_backward: int
    """Weights of the blocks."""
    reduce_scatter: int
    """Gradients, over the ranks that share the weights."""
    all_reduce: int
    """Gradients, over the copies."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class TokenBytes:
    """Bytes that travel for one token through all layers, by all-to-all; the mean."""

    forward: int
    train: int
    """Forward and backward pass, and recomputation."""


@dataclass(frozen=True)
class RankPlan:
    """One rank."""

    rank: int
    coordinates: tuple[int, int, int]
    """On the axes (dp_replicate, dp_shard, ep)."""
    experts: tuple[Slot, ...]
    """(group, n) of the experts of each layer that are computed here, in slot order."""
    widths: tuple[int, ...]
    """Hidden width of each of them."""
    expert_parameters: int
    """Parameters of routed experts that the rank stores: its share, over dp_shard, of all layers'."""
    parameters: int
    """All parameters that the rank stores."""
    expert_flops: int
    """FLOPs of its experts in an optimizer step, forward and backward, and recomputation; expected."""
    memory: RankMemoryBytes
    sent: SentBytes

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, totals included, for JSON."""
        return {
            "rank": self.rank,
            "coordinates": list(self.coordinates),
            "experts": [list(slot) for slot in self.experts],
            "widths": list(self.widths),
            "expert_parameters": self.expert_parameters,
            "parameters": self.parameters,
            "expert_flops_per_step": self.expert_flops,
            "memory_bytes": {**asdict(self.memory), "total": self.memory.total},
            "sent_bytes_per_step": {**asdict(self.sent), "total": self.sent.total},
        }


@dataclass(frozen=True)
class ParallelPlan:
    """All ranks of a run."""

    sizes: MeshSizes
    placement: Placement
    ranks: tuple[RankPlan, ...]
    """By rank index."""
    all_to_all_per_token: TokenBytes

    @property
    def fullest(self) -> RankPlan:
        """The first of the ranks that need most memory."""
        return max(self.ranks, key=lambda rank: rank.memory.total)

    @property
    def busiest_sender(self) -> RankPlan:
        """The first of the ranks that send most."""
        return max(self.ranks, key=lambda rank: rank.sent.total)

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON; `traffic` has the rank that sends most."""
        sent = self.busiest_sender.sent
        return {
            "sizes": {**asdict(self.sizes), "world": self.sizes.world},
            "placement": self.placement,
            "ranks": [rank.as_dict() for rank in self.ranks],
            "traffic": {
                "all_to_all_bytes_per_token": asdict(self.all_to_all_per_token),
                "sent_bytes_per_rank_and_step": {**asdict(sent), "total": sent.total},
            },
        }


def rank_plan(cfg: TrainConfig) -> ParallelPlan:
    """What each rank of the run's mesh holds, computes and sends.

    Args:
        cfg: a configuration that has passed its cross-field checks.

    Raises:
        UserError: the mesh does not fit the configuration, as in `mesh_sizes`.
    """
    sizes = mesh_sizes(cfg)
    experts, ep = cfg.experts, sizes.expert_parallel
    slots_of: Sequence[Sequence[Slot]] = [()]
    if experts.num_experts:
        slots_of = place(experts.num_groups, experts.per_group, ep, cfg.parallel.placement)
    counts = count_parameters(cfg)
    sent_per_token = _all_to_all_per_token(cfg, ep)
    ranks = tuple(
        _one_rank(cfg, sizes, counts, sent_per_token, rank, slots_of[rank % ep])
        for rank in range(sizes.world)
    )
    return ParallelPlan(sizes, cfg.parallel.placement, ranks, sent_per_token)


def _one_rank(
    cfg: TrainConfig,
    sizes: MeshSizes,
    counts: ParameterCount,
    sent_per_token: TokenBytes,
    rank: int,
    slots: Sequence[Slot],
) -> RankPlan:
    model, ep = cfg.model, sizes.expert_parallel
    copy, in_copy = divmod(rank, sizes.dense_shard)
    widths = tuple(cfg.experts.widths[group] for group, _ in slots)
    computed = model.layers * 3 * model.d_model * sum(widths)
    expert_parameters = computed // sizes.dp_shard
    dense, remainder = divmod(counts.total - counts.routed_experts, sizes.dense_shard)
    parameters = expert_parameters + dense + (in_copy < remainder)

    weights = FP32_BYTES * parameters
    root = counts.embedding + counts.head + model.d_model
    blocks = counts.total - counts.routed_experts - root + computed
    head_gradient = model.vocab_size * model.d_model
    memory = RankMemoryBytes(
        weights=weights,
        gradients=weights,
        optimizer=ADAM_MOMENTS * weights,
        gathered=FP32_BYTES * (2 * (root + blocks // model.layers) - head_gradient),
        activations=activation_bytes(
            cfg,
            replace(counts, routed_experts=computed),
            cfg.data.batch_sequences // sizes.world,
            widths,
            rows_arrive=ep > 1,
        ),
    )
    return RankPlan(
        rank=rank,
        coordinates=(copy, *divmod(in_copy, ep)),
        experts=tuple(slots),
        widths=widths,
        expert_parameters=expert_parameters,
        parameters=parameters,
        expert_flops=_expert_flops(cfg, sizes, widths),
        memory=memory,
        sent=_sent(cfg, sizes, sent_per_token, root, blocks - computed, computed),
    )


def _expert_flops(cfg: TrainConfig, sizes: MeshSizes, widths: Sequence[int]) -> int:
    """FLOPs of experts of these widths: the tokens of one ep group spread evenly over all experts."""
    if not widths:
        return 0
    passes = 4 if cfg.model.activation_checkpointing else 3
    rows = cfg.tokens_per_step * sizes.expert_parallel * cfg.router.expert_top_k  # times world and experts
    flops = passes * cfg.model.layers * 6 * cfg.model.d_model * sum(widths) * rows
    return round(flops / (sizes.world * cfg.experts.num_experts))


def _all_to_all_per_token(cfg: TrainConfig, ep: int) -> TokenBytes:
    if not cfg.experts.num_experts:
        return TokenBytes(0, 0)
    element = BF16_BYTES if cfg.trainer.precision == "bf16" else FP32_BYTES
    row = 2 * cfg.model.d_model * element + FP32_BYTES
    forward = cfg.model.layers * cfg.router.expert_top_k * row * (ep - 1) / ep
    passes = 3 if cfg.model.activation_checkpointing else 2
    return TokenBytes(round(forward), round(passes * forward))


def _sent(
    cfg: TrainConfig, sizes: MeshSizes, per_token: TokenBytes, root: int, blocks: int, experts: int
) -> SentBytes:
    """From numbers of whole parameters: of the root, of the blocks without experts, of the rank's experts."""
    tokens = cfg.tokens_per_step // sizes.world
    expert_share = _ring(sizes.dp_shard) * experts
    blocks_share = _ring(sizes.dense_shard) * blocks + expert_share
    all_share = _ring(sizes.dense_shard) * root + blocks_share
    stored = (root + blocks) / sizes.dense_shard + experts / sizes.dp_shard
    micro_batches = cfg.trainer.accumulate

    def bytes_of(parameters: float) -> int:
        return round(micro_batches * FP32_BYTES * parameters)

    return SentBytes(
        all_to_all_forward=tokens * per_token.forward,
        all_to_all_backward=tokens * (per_token.train - per_token.forward),
        all_gather_forward=bytes_of(all_share),
        all_gather_backward=bytes_of(blocks_share),
        reduce_scatter=bytes_of(all_share),
        all_reduce=bytes_of(2 * _ring(sizes.dp_replicate) * stored),
    )


def _ring(ranks: int) -> float:
    """Share of the whole that a ring's gather or scatter makes each rank send."""
    return (ranks - 1) / ranks
