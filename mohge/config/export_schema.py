"""The typed configuration of mohge-export, as `mohge.config.schema` is that of mohge-train."""

from __future__ import annotations

from typing import Literal

from mohge.config.schema import TrainConfig, config_class


@config_class
class ExportConfig(TrainConfig):
    """All that mohge-export reads. The keys of training are those of the checkpoint: none may be given."""

    checkpoint: str
    """A run's folder (its newest intact checkpoint), a checkpoint's folder, or a file in one."""
    output: str | None = None
    """Folder to write; by default `export/STEP` in the run's folder, or `export/STEP_hf`."""
    format: Literal["mohge", "hf"] = "mohge"
    """Our own names of weights and keys, or those of Hugging Face's transformers."""
