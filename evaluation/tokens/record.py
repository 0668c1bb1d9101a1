"""What one pass of a model over a text leaves: for each token its loss and where it went.

Shapes: P positions that were scored, N sequences, L layers, G groups, E experts, K experts per token,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pairs:
    """How often each expert of one layer computed each token; pairs that never met are left out."""

    expert: np.ndarray
    token: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Record:
    """Positions are in reading order, sequence by sequence; sequences are numbered in that order."""

    tokens_P: np.ndarray
    """Id of the token at each position, which is the one that was routed."""
    loss_P: np.ndarray
    """Cross-entropy there, in nats: of predicting the token after it."""
    sequence_P: np.ndarray
    """Sequence of each position, from 0."""
    domain_N: np.ndarray
    """Domain of each sequence."""
    groups_PLG: np.ndarray
    """uint8, experts of each group that the token went to, in each layer; sums to K over groups."""
    pairs: tuple[Pairs, ...]
    """One for each layer."""
    domains: tuple[str, ...]
    widths: tuple[int, ...]
    """Expert width of each group."""
    per_group: int
    """Experts in each group."""

    @property
    def expert_top_k(self) -> int:
        """K."""
        return int(self.groups_PLG[0, 0].sum())

    @property
    def layers(self) -> int:
        """L."""
        return self.groups_PLG.shape[1]

    @property
    def domain_P(self) -> np.ndarray:
        """Domain of each position."""
        return self.domain_N[self.sequence_P]

    def rows_PG(self, layer: int | None) -> np.ndarray:
        """Experts of each group that a token went to, in one layer or, for None, in all: int64 (P, G)."""
        if layer is None:
            return self.groups_PLG.sum(axis=1, dtype=np.int64)
        return self.groups_PLG[:, layer].astype(np.int64)

    def mean_width_P(self, layer: int | None) -> np.ndarray:
        """Mean width of the experts that a token went to, in one layer or, for None, in all: (P,)."""
        rows_PG = self.rows_PG(layer)
        return rows_PG @ np.array(self.widths, np.float64) / rows_PG.sum(axis=1)

    def by_sequence(self, values_P: np.ndarray) -> np.ndarray:
        """Sums over the positions of each sequence: float64 (N,)."""
        return np.bincount(self.sequence_P, weights=values_P, minlength=len(self.domain_N))
