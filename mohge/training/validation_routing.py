"""Where the tokens of a validation went.

Shapes: T tokens, K experts per token, L layers, E experts, M domains.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mohge.config.schema import TrainConfig
from mohge.metrics import Churn, CoActivation, DomainLoad, RoutingCounts
from mohge.moe.decision import RoutingDecision


class ValidationRouting:
    """Counts of a validation: of experts and groups, by domain, and of experts chosen together.

    Its first batch, which is always the same, is the probe whose tokens `churn` follows.

    Args:
        config: of the run; of a dense model nothing is counted.
        device: of the batches.

    Attributes:
        domains: names, in the order of `domain_rows_MLE`.
        counts: of the last validation; of all ranks after `end`, as is all that follows.
        domain_rows_MLE: rows of each domain's tokens that each expert computed.
        together_LEE: tokens that chose both of two experts.
        churn_L: share of the probe's tokens whose experts changed; NaN at the first look.
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self._config = config
        self.domains: tuple[str, ...] = ()
        self._churn = Churn(config.model.layers)
        self._together = CoActivation(config.model.layers, config.experts.num_experts)
        self.to(device)

    def to(self, device: torch.device) -> None:
        """Move to the device of the batches, and forget what was counted."""
        layers, experts = self._config.model.layers, self._config.experts
        self.counts = RoutingCounts(layers, experts.num_groups, experts.per_group, device)
        self._churn.to(device)
        self._together.to(device)
        self.begin(self.domains)

    @property
    def probe(self) -> Tensor | None:
        """Experts of the probe's tokens at the last look, int32 (L, T, K), to be saved and restored."""
        seen_LTK = self._churn.seen_LTK
        return None if seen_LTK is None else seen_LTK.int().cpu()

    def restore_probe(self, probe_LTK: Tensor | None) -> None:
        """Compare the next look with this one; without it, or with None, churn starts anew."""
        self._churn.seen_LTK = probe_LTK

    def begin(self, domains: Sequence[str]) -> None:
        """Start a validation."""
        self.domains = tuple(domains)
        self.counts.reset()
        layers, experts = self.counts.expert_LE.shape
        self._domain_load = DomainLoad(len(self.domains), layers, experts).to(self.counts.expert_LE.device)
        self._together.reset()
        self._churn.reset()

    def add(self, decisions: Sequence[RoutingDecision], domain_T: Tensor, batch: int) -> None:
        """Add the decisions of a batch, one per layer; none for a dense model."""
        if not decisions:
            return
        self.counts.add(decisions)
        self._domain_load.update(decisions, domain_T)
        self._together.update(decisions)
        if batch == 0:
            self._churn.update(decisions)

    def end(self) -> None:
        """Make the counts those of all ranks. Collective.

        Raises:
            AssertionError: a token is lost.
        """
        if not self._config.experts.num_experts:
            return
        self.counts.add_over_ranks()
        self.counts.check(self._config.router.group_top_k)
        layers, experts = self.counts.expert_LE.shape
        # Shaped again: TorchMetrics makes a scalar of a tensor of one number.
        self.domain_rows_MLE = self._domain_load.compute().view(-1, layers, experts)
        self.together_LEE = self._together.compute().view(layers, experts, experts)
        self.churn_L = self._churn.compute().layers
        domains_LE, alone_LE = self.domain_rows_MLE.sum(dim=0), self.together_LEE.diagonal(dim1=1, dim2=2)
        assert torch.equal(domains_LE, self.counts.expert_LE), "a row is of no domain, or of two"
        assert torch.equal(alone_LE, self.counts.expert_LE), "experts chosen together are miscounted"
