"""The ranks' side of bench=parallel: one process and meshes of all ranks take turns at the same steps.

Shapes: B batch, S sequence.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from mohge.bench.memory import step_peak_bytes
from mohge.bench.timing import Variant, interleave
from mohge.bench.training_step import RandomBatches, TrainingStep
from mohge.config.schema import TrainConfig
from mohge.errors import RunError
from mohge.parallel.local import local_part
from mohge.parallel.mesh import Mesh, build_mesh
from mohge.parallel.ranks import Rank, this_rank
from mohge.parallel.sharding import parameter_bytes
from mohge.parallel.sizes import MeshSizes
from mohge.parallel.waits import counting_waits
from mohge.parallel.world import barrier, connect, disconnect, gather, wait_at_most
from mohge.training.allocator import keep_freed_memory
from mohge.training.device import device_of

ONE_PROCESS = "one process"
TOLERANCE = 1e-4
"""Largest relative difference of a mesh's first loss from that of one process: both round their sums."""
_SETTLE = 0.02
"""Seconds until idle threads of OpenMP sleep; before, they spin on a core that others need."""
_PATIENCE = 600.0
"""Seconds that ranks wait for each other, and so for the one process, before they call one lost."""


@dataclass(frozen=True)
class RanksJob:
    """What the ranks are to measure."""

    config: TrainConfig
    """What to train; its `parallel` does not count."""
    meshes: tuple[MeshSizes, ...]
    """Meshes of all ranks, to compare with one process."""
    rounds: int
    """Timed rounds."""
    warmup: int
    """Rounds before those."""
    threads: int
    """Of the one process; ranks of a mesh share them."""
    result: Path
    """File for the JSON result."""

    @property
    def threads_per_rank(self) -> int:
        """Of each rank of a mesh."""
        return max(1, self.threads // self.meshes[0].world)


def measure(job: RanksJob) -> None:
    """Measures as one of the ranks that `mohge.parallel.launch` has started; the first writes the result.

    It has, for each contestant by name, a list over the ranks that take part: `seconds` and
    `waiting_seconds` of each timed round, and `peak_bytes`.

    Raises:
        RunError: the contestants' first losses differ.
    """
    rank = this_rank()
    device = device_of(job.config.trainer, rank.local_world)
    connect(rank, device.type)
    keep_freed_memory()  # as training does
    batches = RandomBatches(job.config, device)
    contestants = {ONE_PROCESS: Contestant(job, device, rank, None)}
    for sizes in job.meshes:
        contestants[str(sizes)] = Contestant(job, device, rank, build_mesh(sizes, device.type))
    wait_at_most(_PATIENCE)

    losses = {}
    for name, contestant in contestants.items():
        contestant.prepare()
        contestant.make_step(batches.current)
        here = contestant.step.loss if contestant.step else None
        parts = [part for part in gather(here) if part is not None]
        losses[name] = sum(parts) / len(parts)
    require_same(losses)

    timings = interleave(
        {
            name: Variant(partial(_make_timed_step, contestant, batches), contestant.prepare)
            for name, contestant in contestants.items()
        },
        rounds=job.rounds,
        warmup=job.warmup,
        device=device,
        new_round=batches.renew,
    )
    result = {}
    for name, contestant in contestants.items():
        contestant.prepare()
        found = None
        if contestant.step:
            found = {
                "seconds": timings[name].seconds,
                "waiting_seconds": contestant.waiting_seconds[-job.rounds :],
                "peak_bytes": contestant.peak_bytes(batches.current),
            }
        result[name] = [part for part in gather(found) if part is not None]
    if rank.is_first:
        job.result.write_text(json.dumps(result), encoding="utf-8")
    disconnect()


def require_same(losses: dict[str, float]) -> None:
    """Refuses to compare the times of what is not the same computation.

    Args:
        losses: of the first step, by contestant.

    Raises:
        RunError: they differ.
    """
    first = next(iter(losses.values()))
    if not all(abs(loss - first) <= TOLERANCE * abs(first) for loss in losses.values()):  # nor if one is nan
        shown = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
        raise RunError(f"first losses differ, so that times cannot be compared: {shown}; this is a bug")


class Contestant:
    """Makes the steps of one process, rank 0, or of all ranks as a mesh.

    Args:
        job: model and threads.
        device: of this rank.
        rank: this one.
        mesh: of all ranks; None for one process.

    Attributes:
        step: this rank's; None if it takes no part.
        waiting_seconds: of this rank in each timed step.
    """

    def __init__(self, job: RanksJob, device: torch.device, rank: Rank, mesh: Mesh | None) -> None:
        self._threads = job.threads if mesh is None else job.threads_per_rank
        self._rank, self._alone, self._device = rank, mesh is None, device
        self.waiting_seconds: list[float] = []
        self.step: TrainingStep | None = None
        if mesh is not None or rank.is_first:
            with self._world():
                self.step = TrainingStep(job.config, device, mesh)

    def prepare(self) -> None:
        """Waits until nobody computes, and takes the threads. Collective."""
        torch.set_num_threads(self._threads)
        barrier()
        time.sleep(_SETTLE)
        barrier()

    def make_step(self, micro_batches: list[Tensor]) -> None:
        """An optimizer step of whole micro-batches (B, S + 1), of which a mesh's ranks read a part each.

        A rank that takes no part returns at once; it then waits in the next `prepare`, without computing.
        """
        if self.step is None:
            return
        with self._world():
            self.step(self._part(micro_batches))

    def peak_bytes(self, micro_batches: list[Tensor]) -> int:
        """Most bytes that this rank holds in a step: weights, optimizer state and what comes and goes."""
        assert self.step is not None, "it takes part"
        moments = [value for state in self.step.optimizer.state.values() for value in state.values()]
        held = parameter_bytes(self.step.model) + sum(local_part(moment).nbytes for moment in moments)
        make_step = partial(self.make_step, micro_batches)
        return held + step_peak_bytes(make_step, self.step.drop_gradients, self._device)

    def _part(self, micro_batches: list[Tensor]) -> list[Tensor]:
        if self._alone:
            return micro_batches
        return [tokens_BS.chunk(self._rank.world)[self._rank.index] for tokens_BS in micro_batches]

    def _world(self) -> contextlib.AbstractContextManager[object]:
        return _alone() if self._alone else contextlib.nullcontext()


def _make_timed_step(contestant: Contestant, batches: RandomBatches) -> None:
    with counting_waits() as waits:
        contestant.make_step(batches.current)
    contestant.waiting_seconds.append(sum(waits))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hides the process group, so that training code does what it does in a process by itself."""
    world = dist.group.WORLD
    dist.group.WORLD = None
    try:
        yield
    finally:
        dist.group.WORLD = world
