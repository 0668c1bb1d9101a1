"""The typed configuration of mohge-report, as `mohge.config.schema` is that of mohge-train."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mohge.config.schema import NonNegative, Positive, TrainConfig, config_class


@config_class
class SweepReportConfig:
    """A sweep, to be reported instead of single runs."""

    target: Annotated[str, Field(alias="_target_")]
    """Function that makes the report of a sweep."""
    path: str | None = None
    """Folder of mohge-sweep, or the table of cells (.csv) of an earlier report; `sweep=PATH` is short for
    it."""


@config_class
class ReportConfig(TrainConfig):
    """All that mohge-report reads. The keys of training are those of the runs: none may be given."""

    target: Annotated[str, Field(alias="_target_")]
    """Function that makes the report of this configuration."""
    runs: tuple[str, ...]
    """Folders of runs, of comparisons, or above them: all runs below are reported."""
    sweep: SweepReportConfig
    """A sweep, in place of `runs`."""
    output: str | None = None
    """Folder to write; by default `report/` in the one folder given."""
    document: str | None = None
    """sweep: Markdown file whose marked tables, sentences and figures are made anew."""
    check: bool = False
    """sweep: write nothing, and fail if the document is not what the sweep gives."""
    tokens: NonNegative = 65536
    """Tokens of held-out text that tell who goes where, for checkpoints without an analysis; 0 makes none."""
    ranks: Positive = 8
    """GPUs whose balance is asked of runs that had one process."""
    format: Literal["table", "json"] = "table"
    """What to print."""

    @field_validator("runs", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One folder may be given without brackets."""
        return value if isinstance(value, list | tuple) else [value]
