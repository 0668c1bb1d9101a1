"""The plan of a mesh as tables for people: rank by rank, memory by part, and what travels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table

from mohge.budget_table import binary, decimal, number_table
from mohge.config.schema import TrainConfig
from mohge.moe.placement import Slot
from mohge.parallel.rank_plan import ParallelPlan, RankPlan

MOST_ROWS = 16
"""Ranks that get a row each; more share rows with those that are alike."""


def render_ranks(plan: ParallelPlan, cfg: TrainConfig) -> RenderableType:
    """Three tables: the ranks, the memory of the fullest one, and what the busiest sender sends."""
    return Group(_ranks(plan, cfg), _memory(plan, cfg), _sent(plan))


def _ranks(plan: ParallelPlan, cfg: TrainConfig) -> Table:
    sizes, each = plan.sizes, len(plan.ranks) <= MOST_ROWS
    mesh = f"dp_replicate {sizes.dp_replicate} x dp_shard {sizes.dp_shard} x ep {sizes.expert_parallel}"
    table = number_table(
        f"{sizes.world} ranks: {mesh}, placement {plan.placement}",
        *("\nrank" if each else "ep\nrank", "\nmesh" if each else "\nranks", "\nexperts per layer"),
        *("width\nsum", "expert\nparams", "all\nparams", "expert\nFLOPs", "\nmemory"),
    )
    table.columns[1].justify = table.columns[2].justify = "left"
    table.collapse_padding, table.pad_edge = True, False  # for 80 columns
    for first, label, ranks, experts in _rows(plan, cfg, each):
        table.add_row(
            *(label, ranks, experts or "none", f"{sum(first.widths)}"),
            *(decimal(first.expert_parameters), decimal(first.parameters)),
            *(decimal(first.expert_flops), binary(first.memory.total)),
        )
    passes = "all passes" if cfg.model.activation_checkpointing else "forward and backward"
    table.caption = f"FLOPs of one step, {passes}, every expert being equally likely.\n"
    if plan.placement != "all_size":
        table.caption += f"Training has placement all_size; {plan.placement} can be planned and replayed.\n"
    table.caption_justify = "left"
    return table


def _rows(plan: ParallelPlan, cfg: TrainConfig, each: bool) -> list[tuple[RankPlan, str, str, str]]:
    """For each row a rank that stands for it, the row's name, its ranks, and their experts."""
    if each:
        return [
            (
                rank,
                str(rank.rank),
                ",".join(map(str, rank.coordinates)),
                _which(rank, cfg),
            )
            for rank in plan.ranks
        ]
    # Ranks of one ep rank are alike, but for a parameter that is left over, and ep is the fastest axis.
    ep = plan.sizes.expert_parallel
    rows = []
    for _, alike in groupby(plan.ranks[:ep], key=lambda rank: sorted(rank.widths)):
        first, *others = alike
        last = first.rank + len(others)
        rows.append(
            (
                first,
                f"{first.rank} to {last}" if others else str(first.rank),
                f"{(len(others) + 1) * plan.sizes.world // ep}",
                _how_many(first, cfg) if others else _which(first, cfg),
            )
        )
    return rows


def _memory(plan: ParallelPlan, cfg: TrainConfig) -> Table:
    rank = plan.fullest
    memory = rank.memory
    alike = binary(memory.total) == binary(min(other.memory.total for other in plan.ranks))
    table = number_table(
        "Memory to train on each rank" if alike else f"Memory to train on rank {rank.rank}, the fullest",
        *("part", "bytes"),
    )
    sequences = cfg.data.batch_sequences // plan.sizes.world
    batch = f"{sequences} x {cfg.data.context} tokens, {cfg.trainer.precision}, estimate"
    for name, value in (
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        ("gathered [dim]one block, embedding and head: weights and gradients[/dim]", memory.gathered),
        (f"activations [dim]{batch}[/dim]", memory.activations),
    ):
        table.add_row(name, binary(value))
    table.add_section()
    table.add_row("[bold]total[/bold]", f"[bold]{binary(memory.total)}[/bold]")
    return table


def _sent(plan: ParallelPlan) -> Table:
    rank, sizes, token = plan.busiest_sender, plan.sizes, plan.all_to_all_per_token
    sent = rank.sent
    alike = binary(sent.total) == binary(min(other.sent.total for other in plan.ranks))
    who = "each rank sends" if alike else f"rank {rank.rank} sends, the most of all,"
    table = number_table(f"What {who} in a step", "collective", "ranks", "bytes")
    shards = f"{sizes.dense_shard}"
    if sizes.expert_parallel > 1:
        shards += f", experts {sizes.dp_shard}" if sizes.dp_shard > 1 else ", no experts"
    backward = token.train - token.forward
    for name, detail, among, value in (
        (
            "all-to-all forward",
            f"tokens, {binary(token.forward)} each",
            sizes.expert_parallel,
            sent.all_to_all_forward,
        ),
        (
            "all-to-all backward",
            f"tokens, {binary(backward)} each",
            sizes.expert_parallel,
            sent.all_to_all_backward,
        ),
        ("all-gather forward", "weights", shards, sent.all_gather_forward),
        ("all-gather backward", "weights", shards, sent.all_gather_backward),
        ("reduce-scatter", "gradients", shards, sent.reduce_scatter),
        ("all-reduce", "gradients", sizes.dp_replicate, sent.all_reduce),
    ):
        if value:
            table.add_row(f"{name} [dim]{detail}[/dim]", f"{among}", binary(value))
    table.add_section()
    table.add_row("[bold]total[/bold]", "", f"[bold]{binary(sent.total)}[/bold]")
    return table


def _which(rank: RankPlan, cfg: TrainConfig) -> str:
    """Its experts: `all widths: n = 0-1`."""
    return _by_width(rank.experts, cfg, lambda indices: f"n = {_runs(indices)}")


def _how_many(rank: RankPlan, cfg: TrainConfig) -> str:
    """Its experts, as those of ranks with others of the same widths: `all widths: 2 of 8`."""
    return _by_width(rank.experts, cfg, lambda indices: f"{len(indices)} of {cfg.experts.per_group}")


def _by_width(slots: Sequence[Slot], cfg: TrainConfig, describe: Callable[[list[int]], str]) -> str:
    """A line for each set of groups that are described alike: `640, 768: ...`."""
    groups: dict[str, list[int]] = {}
    for group in sorted({group for group, _ in slots}):
        text = describe(sorted(n for g, n in slots if g == group))
        groups.setdefault(text, []).append(group)
    widths = cfg.experts.widths
    return "\n".join(
        f"{'all widths' if 1 < len(widths) == len(members) else ', '.join(str(widths[g]) for g in members)}"
        f": {text}"
        for text, members in groups.items()
    )


def _runs(indices: Sequence[int]) -> str:
    """`0-1, 5` of 0, 1, 5."""
    runs = []
    for _, members in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        run = [index for _, index in members]
        runs.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]))
    return ", ".join(runs)
