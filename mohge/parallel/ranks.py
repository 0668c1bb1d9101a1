"""Which of how many processes this is: what torchrun, SLURM or our own launcher put into the environment.

Nothing here imports torch, so that a run that cannot fit its ranks is refused at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mohge.errors import UserError


@dataclass(frozen=True)
class Rank:
    """This process among those of a run."""

    index: int = 0
    """Among all, from 0."""
    world: int = 1
    """Number of processes."""
    local_index: int = 0
    """Among those of this machine."""
    local_world: int = 1
    """Processes on this machine."""
    node: int = 0
    """Number of this machine."""

    @property
    def nodes(self) -> int:
        """Machines."""
        return self.world // self.local_world

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes for all."""
        return self.index == 0


ALONE = Rank()
"""A process that trains by itself."""


def found_rank(environment: Mapping[str, str] | None = None) -> Rank | None:
    """The rank that a launcher has given this process; None if none has started it.

    torchrun sets RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as our own launcher does; srun sets
    SLURM_STEP_NUM_TASKS and more, which the shell of a batch job does not have. A single task of srun, such
    as an interactive shell, is a process like any other.

    Args:
        environment: variables; those of this process by default.

    Raises:
        UserError: the variables are no numbers, contradict each other, or tell of machines with unequally
            many ranks, or with ranks that are not numbered one machine after another.
    """
    env = os.environ if environment is None else environment
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= env.keys():
        return _of_torchrun(env)
    if {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"} <= env.keys():
        return _of_srun(env) if _number(env, "SLURM_STEP_NUM_TASKS") > 1 else None
    return None


def this_rank() -> Rank:
    """The rank of this process; the only one if no launcher has started it, or one that `found_rank` refuses.

    A refusal is for `mesh_sizes`, which every command asks first: this also serves those who report it.
    """
    try:
        return found_rank() or ALONE
    except UserError:
        return ALONE


def _of_torchrun(env: Mapping[str, str]) -> Rank:
    index, world, local_index = (_number(env, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    local_world = _number(env, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in env else world
    rank = Rank(index, world, local_index, local_world, index // max(local_world, 1))
    nodes = _number(env, "GROUP_WORLD_SIZE") if "GROUP_WORLD_SIZE" in env else None
    if not _is_regular(rank) or nodes not in (None, rank.nodes):
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
        raise UserError(
            f"{_shown(env, names)} are not those of equally many ranks on each machine: give every torchrun "
            "the same --nproc-per-node, or unset the variables"
        )
    return rank


def _of_srun(env: Mapping[str, str]) -> Rank:
    index, world, local_index, node = (
        _number(env, name)
        for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")
    )
    nodes = _number(env, "SLURM_STEP_NUM_NODES")
    rank = Rank(index, world, local_index, world // max(nodes, 1), node)
    per_node = env.get("SLURM_STEP_TASKS_PER_NODE", str(rank.local_world))  # 2,1 or 2(x3)
    even = re.fullmatch(r"(\d+)(\(x\d+\))?", per_node)
    if not _is_regular(rank) or rank.nodes != nodes or even is None or int(even[1]) != rank.local_world:
        counts = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_STEP_TASKS_PER_NODE")
        shown = _shown(env, (*counts, "SLURM_PROCID", "SLURM_NODEID", "SLURM_LOCALID"))
        raise UserError(
            f"{shown} are not those of equally many ranks on each machine, numbered one machine after "
            "another: use srun --ntasks-per-node=N --distribution=block"
        )
    return rank


def _is_regular(rank: Rank) -> bool:
    """Whether every machine has equally many ranks, numbered one machine after another."""
    return (
        rank.world > 0
        and rank.local_world > 0
        and rank.world % rank.local_world == 0
        and 0 <= rank.local_index < rank.local_world
        and 0 <= rank.node < rank.nodes
        and rank.index == rank.node * rank.local_world + rank.local_index
    )


def _number(env: Mapping[str, str], name: str) -> int:
    value = env.get(name, "")
    if not value.isdecimal():
        raise UserError(
            f"the variable {name}={value!r} is not a number: start the command by torchrun or srun, or unset "
            "it"
        )
    return int(value)


def _shown(env: Mapping[str, str], names: tuple[str, ...]) -> str:
    return " ".join(f"{name}={env[name]}" for name in names if name in env)
