"""Sizes of the mesh (dp_replicate, dp_shard, ep): given, inferred, or refused with what would work.

Plain arithmetic on the typed configuration, without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.parallel.ranks import Rank, found_rank
from mohge.parallel.remedies import Setting, divisors, remedies


@dataclass(frozen=True)
class MeshSizes:
    """Ranks along each axis of the mesh. All of them read different data."""

    dp_replicate: int = 1
    """Copies of everything."""
    dp_shard: int = 1
    """Ranks that share the parameters of one copy's experts."""
    expert_parallel: int = 1
    """Ranks that share the experts of a layer."""

    @property
    def world(self) -> int:
        """All ranks; each reads its own part of a micro-batch."""
        return self.dp_replicate * self.dp_shard * self.expert_parallel

    @property
    def dense_shard(self) -> int:
        """Ranks that share the parameters outside the experts: dp_shard x expert_parallel."""
        return self.dp_shard * self.expert_parallel

    def __str__(self) -> str:
        return f"({self.dp_replicate}, {self.dp_shard}, {self.expert_parallel})"


class _Misfit(Exception):  # noqa: N818  (the sentence of an error, without its remedy)
    """What does not fit."""


def mesh_sizes(config: TrainConfig) -> MeshSizes:
    """The mesh of a run.

    Sizes left open fill up the ranks: those that torchrun or srun has started, or else trainer.devices on
    each of trainer.nodes. If both dp_shard and expert_parallel are open, expert_parallel takes the largest
    size that divides the experts and leaves dp_shard at least 2 where that is possible.

    Raises:
        UserError: the sizes do not fit the ranks, or one of them does not divide experts, widths or batch.
    """
    launched = found_rank()
    if launched is not None:
        _check_agrees(config, launched)
    try:
        return _settled(config, launched)
    except _Misfit as misfit:
        raise UserError(f"{misfit}: {remedies(config, launched, _fits)}") from None


def _check_agrees(config: TrainConfig, launched: Rank) -> None:
    trainer, here = config.trainer, launched.local_world
    if trainer.devices not in (None, here):
        raise UserError(
            f"trainer.devices={trainer.devices} disagrees with torchrun or srun, which has started {here} "
            f"ranks on each machine: use trainer.devices={here}"
        )
    if trainer.nodes not in (1, launched.nodes):
        raise UserError(
            f"trainer.nodes={trainer.nodes} disagrees with torchrun or srun, which has started ranks on "
            f"{launched.nodes} machines: use trainer.nodes={launched.nodes}"
        )


def _fits(setting: Setting) -> bool:
    try:
        _settled(*setting)
    except _Misfit:
        return False
    return True


def _settled(config: TrainConfig, launched: Rank | None) -> MeshSizes:
    trainer, given = config.trainer, _given(config)
    known = math.prod(size or 1 for size in given.values())
    if launched is not None:
        ranks, shown = launched.world, f"a launch of {launched.world} ranks"
    elif trainer.devices is not None:
        ranks, shown = trainer.devices * trainer.nodes, f"trainer.devices={trainer.devices}"
        shown += f" x trainer.nodes={trainer.nodes} = {ranks}" if trainer.nodes > 1 else ""
    else:
        ranks, shown = known, _product(given) if known > 1 else f"trainer.nodes={trainer.nodes}"
    if config.parallel.name == "single" and max(ranks, trainer.nodes) > 1:
        raise _Misfit(f"{shown} does not fit parallel=single, which runs one process")
    if launched is None and trainer.devices is None:
        for name, size in given.items():
            if size is None:
                raise _Misfit(
                    f"parallel={config.parallel.name} fills parallel.{name} with the ranks there are, and "
                    "trainer.devices does not say how many"
                )
        if ranks % trainer.nodes:
            raise _Misfit(f"{_product(given)} does not divide among trainer.nodes={trainer.nodes}")
    if ranks % known or (ranks != known and None not in given.values()):
        raise _Misfit(f"{_product(given)} does not fit {shown}")
    sizes = _filled(config, ranks // known)
    _check_divides(config, sizes)
    return sizes


def _given(config: TrainConfig) -> dict[str, int | None]:
    parallel = config.parallel
    return {
        "dp_replicate": parallel.dp_replicate,
        "dp_shard": parallel.dp_shard,
        "expert_parallel": parallel.expert_parallel,
    }


def _product(given: dict[str, int | None]) -> str:
    """`parallel.dp_shard=2 x parallel.expert_parallel=4 = 8`; factors of 1 only if there are no others."""
    sizes = {name: size for name, size in given.items() if size is not None}
    factors = {name: size for name, size in sizes.items() if size > 1} or sizes
    shown = " x ".join(f"parallel.{name}={size}" for name, size in factors.items())
    return shown if len(factors) == 1 else f"{shown} = {math.prod(factors.values())}"


def _filled(config: TrainConfig, rest: int) -> MeshSizes:
    """The mesh, with `rest` ranks among the sizes that were left open."""
    replicate, shard, ep = _given(config).values()
    if ep is None:
        ep = rest if None not in (replicate, shard) else _most_expert_parallel(config, rest, shard is None)
        rest //= ep
    if shard is None:
        shard, rest = rest, 1
    return MeshSizes(rest if replicate is None else replicate, shard, ep)


def _most_expert_parallel(config: TrainConfig, ranks: int, shards: bool) -> int:
    """The largest expert_parallel that works if dp_shard takes the other ranks, or else dp_replicate."""
    if not config.experts.num_experts:
        return 1
    fitting = [size for size in divisors(ranks) if config.experts.per_group % size == 0]
    if not shards:
        return max(fitting)
    fitting = [size for size in fitting if _common_width(config) % (ranks // size) == 0] or fitting
    return max([size for size in fitting if 1 < size < ranks] or fitting)


def _common_width(config: TrainConfig) -> int:
    """What dp_shard divides: it cuts expert weights along 2 W (gate and up) and along D (down)."""
    return math.gcd(config.model.d_model, *(2 * width for width in config.experts.widths))


def _check_divides(config: TrainConfig, sizes: MeshSizes) -> None:
    experts, ep, shard = config.experts, sizes.expert_parallel, sizes.dp_shard
    if ep > 1 and not experts.num_experts:
        raise _Misfit(
            f"parallel.expert_parallel={ep} finds no experts to spread, as router.kind={config.router.kind}"
        )
    if ep > 1 and experts.per_group % ep:
        raise _Misfit(
            f"parallel.expert_parallel={ep} does not divide experts.per_group={experts.per_group}, and each "
            "rank holds as many experts of every width"
        )
    if shard > 1 and experts.num_experts and _common_width(config) % shard:
        raise _Misfit(
            f"parallel.dp_shard={shard} does not divide model.d_model={config.model.d_model} and twice each "
            f"of experts.widths={list(experts.widths)}, which it cuts"
        )
    if config.data.batch_sequences % sizes.world:
        raise _Misfit(
            f"data.batch_sequences={config.data.batch_sequences} does not divide among {sizes.world} ranks, "
            "each of which reads its part of a micro-batch"
        )
