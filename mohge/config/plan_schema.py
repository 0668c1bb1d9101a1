"""The typed configuration of mohge-plan, as `mohge.config.schema` is that of mohge-train."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mohge.config.schema import Positive, ResultConfig, config_class


@config_class
class PlanConfig(ResultConfig):
    """All that mohge-plan reads."""

    replay: str | None = None
    """Run folder whose recorded routing is replayed on `ranks` ranks, instead of a plan of the model."""
    ranks: Positive = 8
    """replay: ranks that share the experts of each layer; divides the experts."""
    last: Annotated[float, Field(gt=0, le=1)] = 0.1
    """replay: share of the run's steps, at its end, that is looked at."""
