"""From the configuration of a sweep to its cells: every arm is composed before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mohge.apps.resume import override_key
from mohge.config.load import explain_hydra, typed
from mohge.config.matching import matched
from mohge.config.schema import TrainConfig
from mohge.config.sweep_schema import Scalar, SweepConfig, SweepPlanConfig
from mohge.config.targets import check_data, check_router
from mohge.errors import UserError
from mohge.sweep.cells import Cell, Plan, cell_id

_OF_THE_SWEEP = ("sweep", "launcher", "workers", "retry", "show", "slurm", "paths.run_dir")
_OF_ALL = ("logger", "paths")
"""Groups that place and log the sweep itself as well as its cells, and so are not a plan's to set."""
_LENGTHS = ("trainer.max_steps", "trainer.max_tokens")  # a length in one unit replaces that in the other


@dataclasses.dataclass(frozen=True)
class _Arm:
    name: str
    overrides: list[str]
    factors: dict[str, str]
    of: str


def folder_of(config: SweepConfig) -> Path:
    """The sweep's folder."""
    given = config.paths.run_dir
    folder = (
        Path(given) if given is not None else Path(config.paths.output_dir) / "sweeps" / config.sweep.name
    )
    return folder.expanduser().absolute()


def planned(config: SweepConfig, overrides: Sequence[str]) -> Plan:
    """The sweep's cells, seed by seed, so that what is done first can be compared.

    Args:
        config: of the sweep.
        overrides: the command line's. Those of training count for every cell.

    Raises:
        UserError: an arm does not compose, or overrides contradict each other.
    """
    sweep = config.sweep
    shared = _shared(sweep, [item for item in overrides if not _is_of_the_sweep(item)])
    arms = {arm.name: arm for arm in _arms(sweep)}
    _check_names(sweep, list(arms))
    _check_overrides(sweep, shared, arms.values())
    cells: dict[tuple[str, int], Cell] = {}
    for arm in arms.values():
        arm_overrides = [*shared, *arm.overrides]
        arm_config = _composed(arm.name, arm_overrides)
        for seed in sweep.seeds:
            run = dataclasses.replace(arm_config, seed=seed)
            cells[arm.name, seed] = Cell(
                id=cell_id(run),
                arm=arm.name,
                seed=seed,
                name=f"{run.logger.run_name or run.model.name}-{arm.name}-seed{seed}",
                steps=run.steps,
                overrides=[*arm_overrides, f"seed={seed}"],
            )
    return Plan(
        name=sweep.name,
        baseline=sweep.baseline,
        seeds=sweep.seeds,
        overrides=shared,
        arms={arm.name: _described(arm) for arm in arms.values()},
        contrasts={factor: [list(pair) for pair in pairs] for factor, pairs in sweep.contrasts.items()},
        cells=[cells[name, seed] for seed in sweep.seeds for name in arms],
    )


def _is_of_the_sweep(override: str) -> bool:
    key = override_key(override)
    return any(key == known or key.startswith(f"{known}.") for known in _OF_THE_SWEEP)


def _shared(sweep: SweepPlanConfig, given: list[str]) -> list[str]:
    """Overrides of every cell: the command line's, then those of the plan which it does not replace."""
    replaced = {override_key(item) for item in given}
    if replaced & set(_LENGTHS):
        replaced |= set(_LENGTHS)
    return [*given, *(item for item in sweep.overrides if override_key(item) not in replaced)]


def _arms(sweep: SweepPlanConfig) -> Iterator[_Arm]:
    """Each arm, or each arm at each point of the grid."""
    leaves = [key.rpartition(".")[2] for key in sweep.grid]
    short = dict(zip(sweep.grid, leaves if len(set(leaves)) == len(leaves) else sweep.grid, strict=True))
    texts = [[_typed_text(value) for value in values] for values in sweep.grid.values()]
    for arm, overrides in sweep.arms.items():
        for values in itertools.product(*texts):
            factors = dict(zip(sweep.grid, values, strict=True))
            name = " ".join([arm, *(f"{short[key]}={text}" for key, text in factors.items())])
            point = [f"{key}={text}" for key, text in factors.items()]
            yield _Arm(name=name, overrides=[*overrides, *point], factors=factors, of=arm)


def _described(arm: _Arm) -> dict[str, object]:
    facts: dict[str, object] = {"overrides": arm.overrides, "factors": arm.factors}
    return {**facts, "of": arm.of} if arm.factors else facts


def _typed_text(value: Scalar) -> str:
    """A value as one types it after `key=`."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)


def _check_names(sweep: SweepPlanConfig, arms: list[str]) -> None:
    listed = ", ".join(arms)
    if sweep.baseline not in arms:
        raise UserError(f"sweep.baseline={sweep.baseline} is not among the arms: choose one of {listed}")
    for factor, pairs in sweep.contrasts.items():
        for name in itertools.chain(*pairs):
            if name not in arms:
                raise UserError(
                    f"sweep.contrasts.{factor} names {name}, which is no arm: the arms are {listed}"
                )
    _check_once("seeds", sweep.seeds)
    for key, values in sweep.grid.items():
        _check_once(f"grid.{key}", values)


def _check_once(key: str, values: Sequence[Scalar]) -> None:
    texts = [_typed_text(value) for value in values]
    twice = next((text for text in texts if texts.count(text) > 1), None)
    if twice is not None:
        raise UserError(f"sweep.{key} has {twice} twice: leave one out")


def _check_overrides(sweep: SweepPlanConfig, shared: list[str], arms: Collection[_Arm]) -> None:
    for item in itertools.chain(shared, *(arm.overrides for arm in arms)):
        key = override_key(item)
        if _is_of_the_sweep(item) or key in ("resume", "comparison"):
            raise UserError(f"{item} cannot be set for a cell: leave it out")
        if key == "seed":
            raise UserError(f"{item} contradicts the sweep, whose cells have sweep.seeds: leave it out")
    for item in itertools.chain(sweep.overrides, *(arm.overrides for arm in arms)):
        if override_key(item).partition(".")[0] in _OF_ALL:
            raise UserError(f"{item} is also the sweep's own: give it on the command line")
    for arm in arms:
        taken = {override_key(item) for item in arm.overrides}
        for item in shared:
            if override_key(item) in taken:
                raise UserError(f"{item} contradicts arm {arm.name}, which sets the same: leave one out")
        for item in sweep.arms[arm.of]:
            if override_key(item) in sweep.grid:
                raise UserError(f"{item} of arm {arm.of} contradicts sweep.grid, which sets the same")


def _composed(arm: str, overrides: list[str]) -> TrainConfig:
    try:
        config = matched(typed(TrainConfig, compose("train", overrides=overrides)))
        check_data(config.data)
        check_router(config.router)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"arm {arm}: {explain_hydra(error, TrainConfig)}") from error
    except UserError as error:
        raise UserError(f"arm {arm}: {error}") from error
    if config.comparison is not None:
        raise UserError(
            f"arm {arm} is a comparison of several runs (its experiment= names them): name runs in sweep.arms"
        )
    return config
