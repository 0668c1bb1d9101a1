"""The typed configuration of mohge-tokens, as `mohge.config.schema` is that of mohge-train."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mohge.config.schema import Positive, TrainConfig, config_class


@config_class
class AnalysisConfig:
    """The function that does the work."""

    target: Annotated[str, Field(alias="_target_")]
    """Its import path; it is called with a checkpoint, a number of tokens and a folder."""


@config_class
class TokensConfig(TrainConfig):
    """All that mohge-tokens reads. Of the keys of training only those of `data` may be given."""

    checkpoint: str
    """A run's folder (its newest intact checkpoint), a checkpoint's folder, or a file in one."""
    tokens: Positive = 65536
    """Held-out tokens to read, about, spread over the domains; of `text`, at most."""
    text: str | None = None
    """A file of text, in UTF-8, to read instead of a corpus."""
    output: str | None = None
    """Folder to write; by default `tokens/STEP` in the run's folder."""
    format: Literal["table", "json"] = "table"
    """What to print."""
    analysis: AnalysisConfig
    """The function that does the work."""
