"""Which windows make up a micro-batch: a function of the seed and the batch's number, of nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler


class WindowOrder:
    """An endless sequence of training windows, cut into micro-batches.

    The sequence is one permutation of all windows after another, each drawn from (seed, epoch). Batch p
    takes entries p * B to (p + 1) * B - 1, across the border of two epochs where it must: every window is
    seen once before any is seen again.
    """

    def __init__(self, windows: int, batch_sequences: int, seed: int) -> None:
        assert windows > 0
        self.windows, self.batch_sequences, self.seed = windows, batch_sequences, seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def batch(self, position: int) -> list[int]:
        """Numbers of the windows of micro-batch `position` (0 is the first of the run), of all ranks."""
        first = position * self.batch_sequences
        return [self._window(entry) for entry in range(first, first + self.batch_sequences)]

    def _window(self, entry: int) -> int:
        epoch, place = divmod(entry, self.windows)
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, epoch)).permutation(self.windows)
        return int(self._permutation[place])


@dataclass(frozen=True)
class Part:
    """Which of how many equal parts of a batch a process reads."""

    index: int = 0
    count: int = 1

    def of(self, windows: list[int]) -> list[int]:
        """This part; parts follow each other in order, and the first ones are longer if they are not even."""
        size, longer = divmod(len(windows), self.count)
        start = self.index * size + min(self.index, longer)
        return windows[start : start + size + (self.index < longer)]


class CountedBatches(Sampler[list[int]]):
    """A part of each micro-batch of an order, endlessly, from the position when the iteration starts."""

    def __init__(self, order: WindowOrder, position: Callable[[], int], part: Part) -> None:
        self._order, self._position, self._part = order, position, part

    def __iter__(self) -> Iterator[list[int]]:
        position = self._position()
        while True:
            yield self._part.of(self._order.batch(position))
            position += 1
