"""The typed configuration of mohge-eval, as `mohge.config.schema` is that of mohge-train."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from mohge.config.schema import Positive, SuiteConfig, TrainConfig, config_class


@config_class
class FunctionConfig:
    """A function of another package."""

    target: Annotated[str, Field(alias="_target_")]
    """Its import path."""


@config_class
class EvalConfig(TrainConfig):
    """All that mohge-eval reads. The keys of training are those of the checkpoints: none may be given."""

    has_mesh: ClassVar[bool] = False
    target: Annotated[str, Field(alias="_target_")]
    """Function that evaluates as this configuration says."""
    checkpoint: Annotated[tuple[str, ...], Field(min_length=1)]
    """Runs (their newest intact checkpoints), comparisons, checkpoints, or exported or imported models."""
    eval: SuiteConfig
    """What is asked of them."""
    baseline: str | None = None
    """Architecture or name of the run that others are compared with; unset, moe if it is there, else the
    first."""
    batch_size: Positive = 32
    """Sequences of a forward pass."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Hardware to run on."""
    ranks: Positive = 1
    """Processes on this machine that share the work; under torchrun it is found."""
    expert_parallel: Positive = 1
    """Ranks that share the experts of each layer; divides `ranks` and the experts of each group."""
    benchmarks: FunctionConfig
    """Finds the tasks that mohge-prepare has written; it is called with paths.cache_dir."""
    record: FunctionConfig | None = None
    """Adds results to the tracked run that has trained the checkpoint; called with them and their folder."""
    output: str | None = None
    """Folder of tables; by default that of the one checkpoint's results, or a new one in paths.output_dir."""
    format: Literal["table", "json"] = "table"
    """What to print."""

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """One checkpoint may be given without brackets."""
        return value if isinstance(value, list | tuple) else [value]
