"""Keys and values of earlier tokens, so that each new token costs one position and not all of them.

Shapes: B rows, S new positions of each row, L positions so far (the new ones included, the most of any row),
J key and value heads, d width per head, C width of the compressed keys and values, R width with rotary
position.

Rows may hold different numbers of tokens: new tokens go right behind a row's own, and what a row lacks to the
longest is masked. So there are no padded positions between a row's tokens, and positions count from zero in
every row as they do when it is alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mohge.model.rope import RotaryTable, rotary_table

_LEAST = 64  # positions to make room for at first


@dataclass(frozen=True, eq=False)
class NewPositions:
    """Where the S new positions of each row are; the same for all layers."""

    start: int | None
    """First position of every row; None if rows start at different ones."""
    end: int
    """L."""
    at_BS: Tensor | None
    """int64, the positions; None if all rows have the same ones, from `start` on."""
    mask: Tensor | None
    """bool (B or 1, 1, S, L), True where a position attends; None where none is needed: all positions see all
    others, or, without any position before the new ones, the causal mask that attention knows by itself."""


class LayerCache:
    """What one layer keeps of the tokens so far: tensors (B, J, capacity, d) that attention chooses."""

    def __init__(self, cache: KeyValueCache) -> None:
        self._cache = cache
        self.buffers: list[Tensor] = []

    @property
    def new(self) -> NewPositions:
        """Where the positions of the forward pass under way are."""
        assert self._cache.new is not None, "a forward pass is under way"
        return self._cache.new

    def append(self, *kept: Tensor) -> list[Tensor]:
        """Keep what is given of the new positions.

        Args:
            kept: each (B, J, S, d), with J and d of its own; always the same kinds in the same order.

        Returns:
            The same of all positions so far: views (B, J, L, d). What lies behind a row's own tokens is
            undefined, and masked.
        """
        new = self.new
        if not self.buffers:
            self.buffers = [each[:, :, :0] for each in kept]
        for number, each in enumerate(kept):
            buffer = self.buffers[number]
            rows, heads, room, width = buffer.shape
            if room < self._cache.capacity:  # zeros: what is masked must be finite
                grown = each.new_zeros(rows, heads, self._cache.capacity, width)
                grown[:, :, :room] = buffer
                self.buffers[number] = buffer = grown
            if new.at_BS is None:
                buffer[:, :, new.start : new.end] = each
            else:
                row_B11 = torch.arange(rows, device=each.device)[:, None, None]
                head_J1 = torch.arange(heads, device=each.device)[:, None]
                buffer[row_B11, head_J1, new.at_BS[:, None]] = each
        return [buffer[:, :, : new.end] for buffer in self.buffers]


class KeyValueCache:
    """What attention needs of the tokens before the new ones, in every layer.

    Grouped-query attention stores keys and values, 2 * J * d numbers for each token and layer; latent
    attention stores the compressed vector and the one rotated key, C + R numbers, in the dtype of the keys.
    Buffers are made by the first forward pass and grow by doubling.

    Args:
        rows: B.
        capacity: positions to make room for at once, if it is known how many will come.
    """

    def __init__(self, rows: int, capacity: int = 0) -> None:
        self.lengths = [0] * rows
        """Tokens of each row."""
        self.capacity = capacity
        """Positions for which there is room."""
        self.layers: list[LayerCache] = []
        self.new: NewPositions | None = None
        """Of the forward pass under way."""
        self._table: RotaryTable | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(buffer.nbytes for layer in self.layers for buffer in layer.buffers)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows alone, in this order; a row may be named several times, and is then copied."""
        for layer in self.layers:
            for number, buffer in enumerate(layer.buffers):
                index = torch.tensor(list(rows), dtype=torch.int64, device=buffer.device)
                layer.buffers[number] = buffer.index_select(0, index)
        self.lengths = [self.lengths[row] for row in rows]

    def begin(self, positions: int, layers: int, device: torch.device) -> None:
        """Make ready for a forward pass.

        Args:
            positions: S, of every row; those of a row that are padding are written too, and later over.
            layers: number of layers.
            device: of the tokens.
        """
        first, last = min(self.lengths), max(self.lengths)
        end = last + positions
        if end > self.capacity:
            self.capacity = max(end, 2 * self.capacity, _LEAST)
        if not self.layers:
            self.layers = [LayerCache(self) for _ in range(layers)]
        if first == last:
            mask = None
            if first and positions > 1:
                at_S = torch.arange(first, end, device=device)
                mask = (torch.arange(end, device=device) <= at_S[:, None])[None, None]
            self.new = NewPositions(start=first, end=end, at_BS=None, mask=mask)
            return
        start_B = torch.tensor(self.lengths, device=device)
        at_BS = start_B[:, None] + torch.arange(positions, device=device)
        mask = torch.arange(end, device=device) <= at_BS[:, None, :, None]
        self.new = NewPositions(start=None, end=end, at_BS=at_BS, mask=mask)

    def table(self, width: int, base: float, dtype: torch.dtype, device: torch.device) -> RotaryTable:
        """Angles of the new positions, (S, R/2), or (B, 1, S, R/2) where rows start at different ones.

        Args:
            width: R.
            base: of the frequencies.
            dtype: of the angles' cosines and sines.
            device: to make them on.
        """
        assert self.new is not None, "a forward pass is under way"
        if self._table is None or self._table.cos.shape[0] < self.capacity:
            self._table = rotary_table(self.capacity, width, base, dtype=dtype, device=device)
        cos, sin = self._table
        new = self.new
        if new.at_BS is None:
            return RotaryTable(cos[new.start : new.end], sin[new.start : new.end])
        at_B1S = new.at_BS[:, None]
        return RotaryTable(cos[at_B1S], sin[at_B1S])

    def finish(self, lengths: Sequence[int]) -> None:
        """End the forward pass: each row has grown by so many tokens."""
        self.lengths = [have + new for have, new in zip(self.lengths, lengths, strict=True)]
        self.new = None
