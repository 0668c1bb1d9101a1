"""The budget as tables for people."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from mohge.budget import Budget
from mohge.config.schema import TrainConfig

DECIMAL_UNITS = ("", " k", " M", " B", " T")
BINARY_UNITS = (" B", " KiB", " MiB", " GiB", " TiB")


def render(result: Budget, cfg: TrainConfig) -> RenderableType:
    """Three small tables: parameters by component, cost per token, and memory of training."""
    return Group(_parameters(result, cfg), _per_token(result, cfg), _memory(result, cfg))


def _parameters(result: Budget, cfg: TrainConfig) -> Table:
    counts = result.parameters
    table = number_table(
        escape(f"Parameters of {cfg.model.name} · {cfg.arch_name}"), "component", "parameters", "share"
    )
    shared = f"{cfg.experts.shared} of width {cfg.experts.shared_width}"
    for name, value, detail in (
        ("embedding", counts.embedding, f"{cfg.model.vocab_size} x {cfg.model.d_model}"),
        ("head", counts.head, "tied to the embedding" if cfg.model.tied_head else "untied"),
        ("attention", counts.attention, f"{cfg.model.attention}, {cfg.model.heads} heads"),
        ("router", counts.router, cfg.router.kind),
        ("routed experts", counts.routed_experts, _describe_pool(cfg)),
        ("shared experts", counts.shared_experts, shared),
        ("norms", counts.norms, ""),
    ):
        table.add_row(f"{name} [dim]{detail}[/dim]", decimal(value), f"{value / counts.total:.1%}")
    table.add_section()
    table.add_row("[bold]total[/bold]", f"[bold]{decimal(counts.total)}[/bold]", "100.0%")
    without_head = counts.without_head
    table.add_row("without an untied head", decimal(without_head), f"{without_head / counts.total:.1%}")
    return table


def _per_token(result: Budget, cfg: TrainConfig) -> Table:
    active, flops = result.active_parameters, result.flops_per_token
    table = number_table(f"Per token, in sequences of {cfg.data.context}", "quantity", "value")
    table.add_row("active parameters, experts picked equally often", decimal(active.expected))
    if active.min != active.max:
        table.add_row("active parameters, least and most", f"{decimal(active.min)} to {decimal(active.max)}")
    table.add_row("FLOPs forward", decimal(flops.forward))
    recomputed = ", with recomputation" if cfg.model.activation_checkpointing else ""
    table.add_row(f"FLOPs to train{recomputed}", decimal(flops.train))
    return table


def _memory(result: Budget, cfg: TrainConfig) -> Table:
    memory = result.memory_bytes
    batch = f"{cfg.data.batch_sequences} x {cfg.data.context} tokens, {cfg.trainer.precision}, estimate"
    table = number_table("Memory to train in one process", "part", "bytes")
    for name, value in (
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer", memory.optimizer),
        (f"activations [dim]{batch}[/dim]", memory.activations),
    ):
        table.add_row(name, binary(value))
    table.add_section()
    table.add_row("[bold]total[/bold]", f"[bold]{binary(memory.total)}[/bold]")
    return table


def _describe_pool(cfg: TrainConfig) -> str:
    widths, per_group = cfg.experts.widths, cfg.experts.per_group
    if cfg.router.kind == "none":
        return "none"
    if widths[0] == widths[-1]:
        return f"{cfg.experts.num_experts} of width {widths[0]}"
    return f"{len(widths)} groups of {per_group}, widths {widths[0]} to {widths[-1]}"


def number_table(title: str, first: str, *numbers: str) -> Table:
    """An empty table, its columns after the first aligned to the right."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column(first)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def decimal(value: float) -> str:
    """A count: `1.234 M`."""
    return _scaled(value, 1000, DECIMAL_UNITS)


def binary(value: float) -> str:
    """Bytes: `1.234 MiB`."""
    return _scaled(value, 1024, BINARY_UNITS)


def _scaled(value: float, step: int, units: tuple[str, ...]) -> str:
    """Value with four digits in the largest unit that keeps it at least 1."""
    power = 0
    while value >= step and power < len(units) - 1:
        value /= step
        power += 1
    return f"{value:.0f}{units[0]}" if power == 0 else f"{value:#.4g}{units[power]}"
