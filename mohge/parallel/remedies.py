"""What to change when a mesh does not fit: changes that were tried, and work.

Plain arithmetic on the typed configuration, without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mohge.config.schema import TrainConfig
from mohge.parallel.ranks import Rank

PRESETS: dict[str, dict[str, int | None]] = {
    "single": {"dp_replicate": 1, "dp_shard": 1, "expert_parallel": 1},
    "ddp": {"dp_replicate": None, "dp_shard": 1, "expert_parallel": 1},
    "fsdp": {"dp_replicate": 1, "dp_shard": None, "expert_parallel": 1},
    "ep": {"dp_replicate": 1, "dp_shard": 1, "expert_parallel": None},
    "fsdp_ep": {"dp_replicate": 1, "dp_shard": None, "expert_parallel": None},
}
"""Sizes of each choice of conf/parallel; None is open."""

_MOST_TRIED = 1024  # numbers of ranks: a refusal is told in well under a second
_MOST_SHOWN = 4

Setting = tuple[TrainConfig, Rank | None]
"""What a mesh follows from: the configuration, and, if a launcher has started this process, its rank."""


@dataclass(frozen=True)
class _Change:
    shown: str
    """With a place for the numbers that work."""
    now: int
    values: Iterable[int]
    made: Callable[[int], Setting]


def remedies(config: TrainConfig, launched: Rank | None, works: Callable[[Setting], bool]) -> str:
    """`use trainer.devices=1, 2 or 4, or parallel=fsdp`: every single change that works, of what was tried.

    If there is none, since several sizes are at fault: copies of the whole model, on as many ranks.

    Args:
        config: whose mesh does not fit.
        launched: this process among those that a launcher has started; None if it was not.
        works: whether a mesh fits.
    """
    found = []
    for change in _changes(config, launched):
        working = [value for value in change.values if value != change.now and works(change.made(value))]
        nearest = sorted(working, key=lambda value: abs(value - change.now))[:_MOST_SHOWN]
        if nearest:
            found.append(change.shown.format(either(sorted(nearest))))
    if not _changed_sizes(config):  # those of the command line would stay
        presets = [name for name in PRESETS if works((_with_preset(config, name), launched))]
        if presets:
            found.append(f"parallel={either(presets)}")
    if found:
        return f"use {', or '.join(found)}"
    devices = config.trainer.devices or 1
    batch = _multiple(config, launched.world if launched else devices * config.trainer.nodes)
    copies = "parallel=ddp" if launched else f"parallel=ddp trainer.devices={devices}"
    return f"leave the sizes of parallel out, and use {copies} data.batch_sequences={batch}"


def either(values: Sequence[object]) -> str:
    """`1, 2 or 4`."""
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def divisors(number: int) -> list[int]:
    """All divisors, in increasing order."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def _changes(config: TrainConfig, launched: Rank | None) -> Iterator[_Change]:
    """Every key that may be at fault, with the values to try."""

    def change(shown: str, group: str, name: str, now: int, values: Iterable[int]) -> _Change:
        def made(value: int) -> Setting:
            keys: Any = replace(getattr(config, group), **{name: value})
            return replace(config, **{group: keys}), launched

        return _Change(shown, now, values, made)

    ranks, trainer, batch = _ranks(config, launched), config.trainer, config.data.batch_sequences
    for name, size in _changed_sizes(config).items():
        sizes = divisors(math.lcm(ranks, trainer.nodes))
        yield change(f"parallel.{name}={{}}", "parallel", name, size, sizes)
    yield change("data.batch_sequences={}", "data", "batch_sequences", batch, [_multiple(config, ranks)])
    if launched is None:
        devices = trainer.devices or 0
        near = range(1, min(max(2 * devices, 8), _MOST_TRIED) + 1)
        yield change("trainer.devices={}", "trainer", "devices", devices, near)
        nodes = trainer.nodes
        yield change("trainer.nodes={}", "trainer", "nodes", nodes, range(1, min(nodes, _MOST_TRIED)))
    else:
        nodes = launched.nodes
        worlds = range(nodes, min(2 * ranks, _MOST_TRIED) + 1, nodes)
        several = [world for world in worlds if world > 1]  # one needs no launcher
        yield _Change(
            "a launch of {} ranks",
            ranks,
            several,
            lambda world: (config, replace(launched, world=world, local_world=world // nodes)),
        )


def _ranks(config: TrainConfig, launched: Rank | None) -> int:
    """Those that there are, or else those that the sizes ask for."""
    trainer, parallel = config.trainer, config.parallel
    if launched is not None:
        return launched.world
    if trainer.devices is not None:
        return trainer.devices * trainer.nodes
    return math.prod(getattr(parallel, name) or 1 for name in PRESETS[parallel.name])


def _multiple(config: TrainConfig, ranks: int) -> int:
    """The batch, made large enough to divide among ranks."""
    return math.ceil(config.data.batch_sequences / ranks) * ranks


def _changed_sizes(config: TrainConfig) -> dict[str, int]:
    """Sizes that are not those of the preset."""
    parallel = config.parallel
    sizes = {name: getattr(parallel, name) for name in PRESETS[parallel.name]}
    return {name: size for name, size in sizes.items() if size and size != PRESETS[parallel.name][name]}


def _with_preset(config: TrainConfig, name: str) -> TrainConfig:
    sizes: dict[str, Any] = dict(PRESETS[name])
    return replace(config, parallel=replace(config.parallel, name=name, **sizes))  # type: ignore[arg-type]
