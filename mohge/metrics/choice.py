"""What is chosen, and how widely choices are spread.

A row is one token at one of its K experts.
Shape suffixes: L layers, E experts, G groups, N experts per group, X alternatives.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mohge.metrics.base import CountMetric, Layered


class LoadShare(CountMetric):
    """Share of a layer's rows that each expert computed; sums to 1."""

    def compute(self) -> Layered:
        """Of each layer (L, E), and over all layers (E)."""
        return _shares(self.expert_LE)


class GroupShare(CountMetric):
    """Share of a layer's rows that each width group computed; sums to 1."""

    def compute(self) -> Layered:
        """Of each layer (L, G), and over all layers (G)."""
        return _shares(self.by_group(self.expert_LE).sum(dim=2))


class ExpertEntropy(CountMetric):
    """Entropy of the choice of experts over log E: 1 when all are chosen equally often, 0 when always one
    is. Over layers, the mean. Reviewers of the paper asked for the entropy of assignments."""

    def compute(self) -> Layered:
        """Of each layer (L), and their mean."""
        return _entropies(self.expert_LE)


class GroupEntropy(CountMetric):
    """Entropy of the selection of groups over log G, of how many tokens selected each; mean over layers.

    With K_g > 1 of G groups a token selects several, and so it is never 0.
    """

    def compute(self) -> Layered:
        """Of each layer (L), and their mean."""
        return _entropies(self.group_LG)


def _shares(rows_LX: Tensor) -> Layered:
    rows_LX = rows_LX.double()
    rows_X = rows_LX.sum(dim=0)
    return Layered(rows_LX / rows_LX.sum(dim=1, keepdim=True), rows_X / rows_X.sum())


def _entropies(counts_LX: Tensor) -> Layered:
    share_LX = _shares(counts_LX).layers
    alternatives = counts_LX.shape[1]
    if alternatives == 1:  # nothing to choose from: spread as widely as can be
        entropy_L = share_LX[:, 0]
    else:
        entropy_L = torch.special.entr(share_LX).sum(dim=1) / math.log(alternatives)
    return Layered(entropy_L, entropy_L.mean())
