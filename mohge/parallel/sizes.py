"""Sizes of the mesh (dp_replicate, dp_shard, ep): given, inferred, or refused with those that would work.

Plain arithmetic on the typed configuration, without torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.parallel.ranks import found_rank


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


def mesh_sizes(config: TrainConfig) -> MeshSizes:
    """The mesh of a run.

    Sizes left open fill up the ranks: those that torchrun or SLURM has started, or else trainer.devices on
    each of trainer.nodes. If both dp_shard and expert_parallel are open, expert_parallel takes the largest
    size that divides the experts and leaves dp_shard at least 2 where that is possible.

    Raises:
        UserError: the sizes do not fit the ranks, or one of them does not divide experts, widths or batch.
    """
    sizes = _filled(config, _ranks(config))
    _check_divides(config, sizes)
    return sizes


def divisors(number: int) -> list[int]:
    """All divisors, in increasing order."""
    return [d for d in range(1, number + 1) if number % d == 0]


def choices(numbers: list[int]) -> str:
    """`1, 2, 4`."""
    return ", ".join(map(str, numbers))


def _ranks(config: TrainConfig) -> int | None:
    """Processes of the run; None if the configuration leaves it to the mesh."""
    trainer, rank = config.trainer, found_rank()
    if rank is not None:
        for key, given, found in (
            ("devices", trainer.devices, rank.local_world),
            ("nodes", trainer.nodes if trainer.nodes > 1 else None, rank.nodes),
        ):
            if given is not None and given != found:
                raise UserError(
                    f"trainer.{key}={given} disagrees with the {found} that the launcher started: "
                    "leave it out"
                )
        return rank.world
    return trainer.devices * trainer.nodes if trainer.devices is not None else None


def _filled(config: TrainConfig, ranks: int | None) -> MeshSizes:
    parallel = config.parallel
    given = {name: getattr(parallel, name) for name in ("dp_replicate", "dp_shard", "expert_parallel")}
    open_names = [name for name, size in given.items() if size is None]
    product = math.prod(size for size in given.values() if size is not None)
    shown = " x ".join(f"{name}={size}" for name, size in given.items() if size is not None)
    if ranks is None:
        if open_names:
            raise UserError(
                f"parallel={parallel.name} leaves parallel.{open_names[0]} open and trainer.devices is not "
                f"given: give trainer.devices=N, or parallel.{open_names[0]}=N"
            )
        if product % config.trainer.nodes:
            raise UserError(
                f"parallel: {shown} = {product} ranks do not divide among trainer.nodes="
                f"{config.trainer.nodes}: choose one of {choices(divisors(product))}"
            )
        return MeshSizes(**given)
    if parallel.name == "single" and ranks > 1:
        asked = f"trainer.devices={config.trainer.devices}" if config.trainer.devices else f"{ranks} ranks"
        raise UserError(
            f"{asked} does not fit parallel=single, which runs one process: use trainer.devices=1, or "
            "parallel=ddp, fsdp, ep or fsdp_ep"
        )
    if ranks % product or (not open_names and ranks != product):
        raise UserError(
            f"parallel: {shown} = {product} does not fit {ranks} ranks: {_what_fits(config, given, ranks)}"
        )
    rest = ranks // product
    if len(open_names) == 1:
        given[open_names[0]] = rest
    elif open_names:
        if "dp_replicate" in open_names:
            given["dp_replicate"] = 1
        if open_names[-1] == "expert_parallel":
            given["expert_parallel"] = _largest_expert_parallel(config, rest)
        if given["dp_shard"] is None:
            given["dp_shard"] = rest // (given["expert_parallel"] if "expert_parallel" in open_names else 1)
    return MeshSizes(**given)


def _largest_expert_parallel(config: TrainConfig, ranks: int) -> int:
    if not config.experts.num_experts:
        return 1
    fitting = [size for size in divisors(ranks) if config.experts.per_group % size == 0]
    sharing = [size for size in fitting if size < ranks and size > 1]
    return max(sharing or fitting)


def _what_fits(config: TrainConfig, given: dict[str, int | None], ranks: int) -> str:
    """How one size could be changed so that the product is the number of ranks."""
    for name, size in given.items():
        if size is None or size == 1:
            continue
        others = math.prod(other for key, other in given.items() if other is not None and key != name)
        if ranks % others == 0:
            fitting = divisors(ranks // others) if None in given.values() else [ranks // others]
            return f"use parallel.{name}={' or '.join(map(str, fitting))}, or another trainer.devices"
    product = math.prod(size for size in given.values() if size is not None)
    return (
        f"use trainer.devices={product}, or leave a size open (null)"
        if config.trainer.nodes == 1
        else (f"use ranks that are a multiple of {product}, or leave a size open (null)")
    )


def _check_divides(config: TrainConfig, sizes: MeshSizes) -> None:
    experts, ep, shard = config.experts, sizes.expert_parallel, sizes.dp_shard
    if ep > 1:
        if not experts.num_experts:
            raise UserError(
                f"parallel.expert_parallel={ep} with router.kind={config.router.kind}: no experts to spread, "
                "use parallel=fsdp"
            )
        if experts.per_group % ep:
            raise UserError(
                f"parallel.expert_parallel={ep} does not divide experts.per_group={experts.per_group}, and "
                "each rank holds as many experts of every width: choose one of "
                f"{choices(divisors(experts.per_group))}"
            )
    if experts.num_experts and shard > 1:
        # Expert weights are cut along 2 W (gate and up) and along D (down).
        common = math.gcd(config.model.d_model, *(2 * width for width in experts.widths))
        if common % shard:
            raise UserError(
                f"parallel.dp_shard={shard} does not divide model.d_model={config.model.d_model} and twice "
                f"each of experts.widths={list(experts.widths)}, which it cuts: choose one of "
                f"{choices(divisors(common))}"
            )
    if config.data.batch_sequences % sizes.world:
        batch = config.data.batch_sequences
        multiple = math.ceil(batch / sizes.world) * sizes.world
        raise UserError(
            f"data.batch_sequences={batch} does not divide among {sizes.world} ranks, each of which reads "
            f"its part of a micro-batch: use {multiple}, or a number of ranks of {choices(divisors(batch))}"
        )
