"""What metrics of routing counts have in common.

Shape suffixes: L layers, E experts, G groups, N experts per group (E = G * N; expert ids are group-major).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from mohge.metrics.counts import RoutingCounts


class Layered:
    """A metric's values.

    Attributes:
        layers: of each layer; the first axis is L.
        overall: over the layers, as the metric defines it.
    """

    # Neither a tuple nor a dataclass: TorchMetrics would look inside, and make a number of the one layer of
    # a model that has no more.
    def __init__(self, layers: Tensor, overall: Tensor) -> None:
        self.layers = layers
        self.overall = overall


class CountMetric(Metric):
    """Adds up routing counts, over updates and over ranks; a subclass says what they amount to.

    All subclasses have the same states, so that a `MetricCollection` adds up once for all of them.

    Args:
        layers: L.
        num_groups: G.
        per_group: N.
        settings: of `torchmetrics.Metric`, such as `sync_on_compute`.
    """

    full_state_update = False
    expert_LE: Tensor
    group_LG: Tensor
    tokens: Tensor

    def __init__(self, layers: int, num_groups: int, per_group: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.per_group = per_group
        shapes = {"expert_LE": (layers, num_groups * per_group), "group_LG": (layers, num_groups)}
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, counts: RoutingCounts) -> None:
        """Add the counts of a stretch of training or validation."""
        self.expert_LE += counts.expert_LE
        self.group_LG += counts.group_LG
        self.tokens += counts.tokens

    @abstractmethod
    def compute(self) -> Layered:
        """The metric of all that was added; NaN where nothing was."""

    def by_group(self, values_LE: Tensor) -> Tensor:
        """Values of experts (L, E) as (L, G, N)."""
        return values_LE.unflatten(1, (-1, self.per_group))
