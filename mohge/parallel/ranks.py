"""Which of how many processes this is: what torchrun, SLURM or our own launcher put into the environment.

Nothing here imports torch, so that a run that cannot fit its ranks is refused at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


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
    SLURM_STEP_NUM_TASKS and more, which the shell of a batch job does not have.

    Args:
        environment: variables; those of this process by default.
    """
    env = os.environ if environment is None else environment
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= env.keys():
        world = int(env["WORLD_SIZE"])
        local_world = int(env.get("LOCAL_WORLD_SIZE", world))
        index = int(env["RANK"])
        return Rank(index, world, int(env["LOCAL_RANK"]), local_world, index // local_world)
    if {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"} <= env.keys():
        world = int(env["SLURM_STEP_NUM_TASKS"])
        local_world = world // int(env.get("SLURM_STEP_NUM_NODES", 1))
        node = int(env.get("SLURM_NODEID", 0))
        return Rank(int(env["SLURM_PROCID"]), world, int(env["SLURM_LOCALID"]), local_world, node)
    return None


def this_rank() -> Rank:
    """The rank of this process; the only one if no launcher has started it."""
    return found_rank() or ALONE
