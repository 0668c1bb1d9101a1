"""Several processes that answer together: each computes some of the batches, and all get all answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mohge.errors import RunError, first_line
from mohge.parallel.ranks import this_rank
from mohge.parallel.world import first, gather, is_connected, maximum_over_ranks

A = TypeVar("A")


@dataclass(frozen=True)
class Ranks:
    """The processes that evaluate one model together."""

    index: int = 0
    world: int = 1
    lockstep: bool = False
    """Whether a forward pass needs all of them, as experts that are spread over ranks do."""

    @property
    def is_first(self) -> bool:
        """Whether this process reads and writes files for all."""
        return self.index == 0

    def rounds(
        self,
        batches: Sequence[list[int]],
        compute: Callable[[list[int]], list[A]],
        keep: Callable[[list[int], list[A]], None],
        idle: Callable[[], object],
    ) -> None:
        """Compute batches, a round of one for each rank at a time. Collective.

        Args:
            batches: indices of requests, the same on all ranks.
            compute: answers a batch.
            keep: called on each rank with every batch of the round and its answers.
            idle: called instead of `compute`, in lockstep, by a rank that has no batch in the last round: it
                makes the forward passes of one.

        Raises:
            RuntimeError: what went wrong on another rank; the rank where it did raises its own error. In
                lockstep nobody else learns of it, since the others wait in a forward pass: a RunError.
        """
        for start in range(0, len(batches), self.world):
            mine = start + self.index
            answers: list[A] = []
            failure: Exception | None = None
            try:
                if mine < len(batches):
                    answers = compute(batches[mine])
                elif self.lockstep:
                    idle()
            except Exception as error:
                if self.lockstep:
                    raise RunError(f"rank {self.index} failed: {first_line(error)}") from error
                failure = error
            told = self.gather((answers, None if failure is None else first_line(failure)))
            if failure is not None:
                raise failure
            for rank, (_, said) in enumerate(told):
                if said is not None:
                    raise RuntimeError(f"rank {rank}: {said}")
            for rank, (found, _) in enumerate(told):
                if start + rank < len(batches):
                    keep(batches[start + rank], found)

    def meet(self, place: str, detail: object = None) -> list[Any]:
        """What all ranks say at a place that all must have come to. Collective.

        Args:
            place: where this rank is.
            detail: what it says.

        Raises:
            RunError: some are at another place: one has failed, and the others have gone on.
        """
        told = self.gather((place, detail))
        for rank, (where, said) in enumerate(told):
            if where != place:
                raise RunError(f"ranks have lost each other: rank {rank} is at {where} ({said}), not {place}")
        return [said for _, said in told]

    def first(self, action: Callable[[], A]) -> A:
        """What the first rank gets from `action`, or the error that it gets, on every rank. Collective."""
        return first(action) if self.world > 1 else action()

    def gather(self, value: A) -> list[A]:
        """The values of all ranks. Collective."""
        return gather(value) if self.world > 1 else [value]

    def any(self, flag: bool) -> bool:
        """Whether any rank says so. Collective in lockstep; else this rank's own flag."""
        return bool(maximum_over_ranks(int(flag))) if self.lockstep else flag


def connected_ranks(lockstep: bool) -> Ranks:
    """The ranks of the process group; one, if there is none."""
    if not is_connected():
        return Ranks()
    rank = this_rank()
    return Ranks(rank.index, rank.world, lockstep and rank.world > 1)
