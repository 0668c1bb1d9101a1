"""What mohge-sweep reads beside a training configuration: the plan of a sweep, and who carries it out."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mohge.config.schema import Positive, TrainConfig, config_class

Scalar = bool | int | float | str | None
Seed = Annotated[int, Field(ge=0, lt=2**32)]


@config_class
class SweepPlanConfig:
    """Arms, a grid and seeds: a cell is one run, of one arm, one point of the grid and one seed."""

    name: Annotated[str, Field(pattern=r"^\w[\w.-]*$")]
    """Name of the sweep, and of its folder."""
    overrides: list[str] = field(default_factory=list)
    """Overrides of every cell; the command line's replace those of the same key."""
    arms: Annotated[dict[str, list[str]], Field(min_length=1)]
    """Overrides of each arm, by its name."""
    grid: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = field(default_factory=dict)
    """Values of keys, as one would type them: every combination makes an arm of each arm."""
    seeds: Annotated[list[Seed], Field(min_length=1)]
    """Seeds of each arm."""
    baseline: str
    """Arm that others are compared with."""
    contrasts: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """Pairs of arms, with and without something, by the name of that."""


@config_class
class SlurmConfig:
    """What each job of a sweep asks SLURM for."""

    partition: str | None = None
    """Partition; unset, the cluster's default."""
    account: str | None = None
    """Account that is charged; unset, the user's default."""
    minutes: Positive = 720
    """Longest time of a job; cells that are not done then save their state."""
    notice: Positive = 120
    """Seconds before the end of a job at which its cell is told to finish its step and save its state."""
    cpus: Positive = 4
    """Processor cores of a job."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of a job."""
    memory: Positive = 16
    """Memory of a job, in GB."""


@config_class
class SweepConfig(TrainConfig):
    """All that mohge-sweep reads."""

    is_run: ClassVar[bool] = False  # keys of training are each arm's, which is checked by itself
    sweep: SweepPlanConfig
    """What is run."""
    launcher: Literal["local", "joblib", "slurm"] = "local"
    """Who starts the workers: this command, joblib, or SLURM as one array of jobs."""
    workers: Positive = 1
    """Workers, each of which runs one cell after another."""
    retry: bool = False
    """Whether cells that have failed are tried again."""
    show: bool = False
    """Print the state of every cell, and run none."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    """What each job asks SLURM for; launcher=slurm only."""
