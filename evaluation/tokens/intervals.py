"""Means and rank correlations with percentile intervals from a bootstrap over sequences.

Tokens of one sequence depend on each other, so whole sequences are drawn again, with replacement, as many
from each domain as it has: the domains are given, not drawn. Domains of fewer than `FEWEST` sequences are
drawn as one, since a bootstrap of so few is too narrow. Every figure is a function of sums over the tokens
of a sequence, so that a thousand resamples are one product of matrices.

Shapes: P positions, N sequences, R resamples, M figures.
"""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
FEWEST = 8
"""Sequences below which no interval is given: a bootstrap of so few is too narrow."""


class Bootstrap:
    """Resamples of the sequences of a text.

    Args:
        domain_N: domain of each sequence.
        seed: of the draws.
        resamples: R.
        level: share of the resamples between the ends of an interval.
    """

    def __init__(
        self, domain_N: np.ndarray, seed: int, resamples: int = RESAMPLES, level: float = LEVEL
    ) -> None:
        rng = np.random.default_rng(seed)
        self.resamples, self.level = resamples, level
        self._weights_RN = np.zeros((resamples, len(domain_N)))
        domains, sizes = np.unique(domain_N, return_counts=True)
        stratum_N = np.where(np.isin(domain_N, domains[sizes < FEWEST]), -1, domain_N)
        for stratum in np.unique(stratum_N):
            (mine,) = np.nonzero(stratum_N == stratum)
            self._weights_RN[:, mine] = rng.multinomial(
                len(mine), np.full(len(mine), 1 / len(mine)), resamples
            )

    def means(self, sums_NM: np.ndarray, counts_NM: np.ndarray) -> list[dict[str, float | None]]:
        """For each figure {"mean", "low", "high"}: the sum over all sequences divided by the count.

        Without a count the mean is None; with fewer than `FEWEST` sequences that count, low and high are.

        Args:
            sums_NM: sums over each sequence's tokens.
            counts_NM: how many there are.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_M = sums_NM.sum(0) / counts_NM.sum(0)
            drawn_RM = (self._weights_RN @ sums_NM) / (self._weights_RN @ counts_NM)
        sequences_M = np.count_nonzero(counts_NM, axis=0)
        found: list[dict[str, float | None]] = []
        for m, sequences in enumerate(sequences_M):
            low, high = self._ends(drawn_RM[:, m]) if sequences >= FEWEST else (None, None)
            found.append({"mean": float(mean_M[m]) if sequences else None, "low": low, "high": high})
        return found

    def rank_correlation(
        self, x_P: np.ndarray, y_P: np.ndarray, sequence_P: np.ndarray
    ) -> dict[str, float] | None:
        """Spearman's {"rho", "low", "high"}, ties by their mean rank.

        None where x or y does not vary, or there are fewer than `FEWEST` sequences.

        Ranks change with the tokens drawn. That is counted to first order, by the influence that a token has
        on the mean product of ranks, through its own ranks and through those of others (von Mises), which
        keeps the statistic a function of sums over sequences.
        """
        x, y = _Ranked(x_P), _Ranked(y_P)
        a_P, b_P = x.ranks_P, y.ranks_P
        sums_N3 = np.stack(
            [
                np.bincount(sequence_P, a_P * b_P + x.above(b_P) + y.above(a_P)),
                np.bincount(sequence_P, a_P * a_P + 2 * x.above(a_P)),
                np.bincount(sequence_P, b_P * b_P + 2 * y.above(b_P)),
            ],
            axis=1,
        )
        counts_N = np.bincount(sequence_P).astype(np.float64)
        products_3 = np.array([np.mean(a_P * b_P), np.mean(a_P * a_P), np.mean(b_P * b_P)])
        xy, xx, yy = products_3 - 0.25  # the mean rank is one half
        if min(xx, yy) < 1e-12 or len(counts_N) < FEWEST:
            return None
        weights_RN = self._weights_RN
        drawn_R3 = (weights_RN @ sums_N3) / (weights_RN @ counts_N)[:, None] - 2 * products_3 - 0.25
        drawn_R = drawn_R3[:, 0] / np.sqrt(np.maximum(drawn_R3[:, 1] * drawn_R3[:, 2], 1e-12))
        low, high = self._ends(np.clip(drawn_R, -1, 1))
        return {"rho": float(xy / np.sqrt(xx * yy)), "low": low, "high": high}

    def _ends(self, drawn_R: np.ndarray) -> tuple[float, float]:
        tail = (1 - self.level) / 2
        low, high = np.nanquantile(drawn_R, [tail, 1 - tail])
        return float(low), float(high)


class _Ranked:
    """Values in order, ties together."""

    def __init__(self, values_P: np.ndarray) -> None:
        _, self._place_P, counts = np.unique(values_P, return_inverse=True, return_counts=True)
        self.ranks_P = ((np.cumsum(counts) - counts / 2) / len(values_P))[self._place_P]
        """Between 0 and 1, ties by their mean."""

    def above(self, weights_P: np.ndarray) -> np.ndarray:
        """Mean over all positions of the weights of those with a larger value, ties by half: (P,)."""
        at_value = np.bincount(self._place_P, weights_P)
        above = at_value.sum() - np.cumsum(at_value) + at_value / 2
        means_P: np.ndarray = above[self._place_P] / len(weights_P)
        return means_P
