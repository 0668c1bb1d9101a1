"""Metrics of routing, as TorchMetrics classes: what experts, groups, ranks and tokens did.

Each adds up over calls of `update`, and over ranks in `compute`, and gives values per layer and over layers.
"""

from mohge.metrics.auxiliary import AuxiliaryLosses
from mohge.metrics.base import CountMetric, Layered
from mohge.metrics.choice import ExpertEntropy, GroupEntropy, GroupShare, LoadShare
from mohge.metrics.cost import ActiveParameters, FlopsPerToken
from mohge.metrics.counts import RoutingCounts
from mohge.metrics.load import DeadExperts, LoadVariation, MaxViolation
from mohge.metrics.ranks import RankBalance
from mohge.metrics.tokens import Churn, CoActivation, DomainLoad

__all__ = [
    "ActiveParameters",
    "AuxiliaryLosses",
    "Churn",
    "CoActivation",
    "CountMetric",
    "DeadExperts",
    "DomainLoad",
    "ExpertEntropy",
    "FlopsPerToken",
    "GroupEntropy",
    "GroupShare",
    "Layered",
    "LoadShare",
    "LoadVariation",
    "MaxViolation",
    "RankBalance",
    "RoutingCounts",
]
