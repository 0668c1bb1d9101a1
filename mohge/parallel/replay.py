"""Replay of a recorded run on any number of ranks: how evenly would its experts have worked?

A run on one machine records how many rows (a token at one of its experts) each expert computed. Which rank
would have computed them follows from the placement alone, so that a laptop answers for 8 or 64 GPUs, as long
as the number of ranks does not change the routing: the paper's table of the load of eight GPUs (arXiv
2604.23108). All experts of a layer are spread over all R ranks, and a rank holds the same experts of each
layer. Dense parts are not counted, since every rank has as much of them.

Shape suffixes: S recorded steps, L layers, E experts, R ranks, G groups, N experts per group (E = G * N;
expert ids are group-major). Pure numpy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from mohge.config.schema import Placement, TrainConfig
from mohge.errors import UserError
from mohge.moe.placement import place
from mohge.training.run_folder import RunFolder

PLACEMENTS: tuple[Placement, ...] = get_args(Placement)


@dataclass(frozen=True)
class Recording:
    """The last steps of a run whose routing was recorded."""

    folder: Path
    config: TrainConfig
    steps_S: list[int]
    """Optimizer steps, from 1; those that the run logged."""
    tokens: int
    """Tokens trained on until the last of these steps."""
    counts_SLE: NDArray[np.int64]
    """Rows that each expert computed in the step."""


@dataclass(frozen=True)
class Imbalance:
    """Largest load of a rank over the mean load, in three views: 1 is even, R is all on one rank."""

    overall: float
    """Of the loads summed over layers and steps: the share of the whole work that a rank had, in which the
    excess of one layer or step makes up for the lack of another."""
    per_step: float
    """Of the loads summed over layers, in each step; mean over the steps. What ranks would wait for that
    meet once in a step."""
    per_layer: float
    """Sum over steps and layers of the largest load, over the sum of the mean loads: how many times as long
    the experts take as with even loads, when ranks meet in each layer, as in all-to-all dispatch, and time
    is proportional to the load."""


@dataclass(frozen=True)
class RankLoads:
    """What each rank would have held and computed under one placement, over all layers and steps."""

    expert_ids_R: list[list[int]]
    """Experts held of each layer, in slot order."""
    parameters_R: list[int]
    """Their parameters."""
    rows_R: list[int]
    """Rows computed."""
    forward_flops_R: list[int]
    """FLOPs of the experts' forward passes, 6 * D * W_g per row; training takes three times as many."""
    rows: Imbalance
    """Of the rows."""
    flops: Imbalance
    """Of the FLOPs, forward or training alike."""

    @property
    def flops_share_R(self) -> list[float]:
        """Share of all experts' FLOPs; sums to 1."""
        total = sum(self.forward_flops_R)
        return [flops / total for flops in self.forward_flops_R]

    @property
    def parameters_imbalance(self) -> float:
        """Largest number of expert parameters of a rank over the mean."""
        return max(self.parameters_R) * len(self.parameters_R) / sum(self.parameters_R)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers by name, for JSON; `max_over_mean` holds the imbalances."""
        return {
            "max_over_mean": {
                "flops": asdict(self.flops),
                "rows": asdict(self.rows),
                "parameters": self.parameters_imbalance,
            },
            "per_rank": {
                "flops_share": self.flops_share_R,
                "forward_flops": self.forward_flops_R,
                "rows": self.rows_R,
                "parameters": self.parameters_R,
                "expert_ids": self.expert_ids_R,
            },
        }


@dataclass(frozen=True)
class Replay:
    """One recording under every placement."""

    recording: Recording
    ranks: int
    loads: dict[Placement, RankLoads]

    def alike(self) -> list[list[Placement]]:
        """Placements that make the same sets of experts, and so differ at most in which rank has which."""
        by_sets: dict[frozenset[frozenset[int]], list[Placement]] = {}
        for placement, load in self.loads.items():
            by_sets.setdefault(frozenset(map(frozenset, load.expert_ids_R)), []).append(placement)
        return [placements for placements in by_sets.values() if len(placements) > 1]

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, for JSON."""
        config, steps_S = self.recording.config, self.recording.steps_S
        return {
            "run": str(self.recording.folder),
            "model": config.model.name,
            "arch": config.arch_name,
            "layers": config.model.layers,
            "experts": config.experts.num_experts,
            "ranks": self.ranks,
            "steps": {"first": steps_S[0], "last": steps_S[-1], "recorded": len(steps_S)},
            "tokens": self.recording.tokens,
            "placements": {placement: load.as_dict() for placement, load in self.loads.items()},
        }


def replay_run(folder: str | Path, ranks: int, last: float) -> Replay:
    """Replays the recorded routing of a run on `ranks` ranks under every placement.

    Args:
        folder: of the run.
        ranks: R, a divisor of the experts.
        last: share of the run's steps, at its end, that is looked at.

    Raises:
        UserError: the folder has no recorded routing, or the experts do not divide among the ranks.
    """
    recording = read_recording(folder, last)
    experts, d_model = recording.config.experts, recording.config.model.d_model
    loads: dict[Placement, RankLoads] = {}
    for placement in PLACEMENTS:
        try:
            slots_R = place(experts.num_groups, experts.per_group, ranks, placement)
        except ValueError as error:
            raise UserError(f"ranks={ranks} does not fit {recording.folder}: {error}") from error
        loads[placement] = rank_loads(recording.counts_SLE, slots_R, experts.widths, d_model)
    return Replay(recording, ranks, loads)


def rank_loads(
    counts_SLE: NDArray[np.int64],
    slots_R: Sequence[Sequence[tuple[int, int]]],
    widths: Sequence[int],
    d_model: int,
) -> RankLoads:
    """Loads of the ranks under one placement.

    Args:
        counts_SLE: rows that each expert computed, some in every step and layer.
        slots_R: for each rank, the (group, n) of the experts that it holds.
        widths: hidden width W_g of each group's experts, of length G.
        d_model: width D of the residual stream.
    """
    layers, experts = counts_SLE.shape[1:]
    per_group = experts // len(widths)
    width_E = np.repeat(np.asarray(widths, dtype=np.int64), per_group)
    ids_R = [[group * per_group + n for group, n in slots] for slots in slots_R]
    assert sorted(chain(*ids_R)) == list(range(experts)), "each expert is on one rank"

    rows_SLR = np.stack([counts_SLE[:, :, ids].sum(axis=2) for ids in ids_R], axis=2)
    # Rows times width: FLOPs without their common factor, which could overflow 64 bits.
    columns_SLR = np.stack([counts_SLE[:, :, ids] @ width_E[ids] for ids in ids_R], axis=2)
    return RankLoads(
        expert_ids_R=ids_R,
        parameters_R=[3 * d_model * layers * int(width_E[ids].sum()) for ids in ids_R],
        rows_R=rows_SLR.sum(axis=(0, 1)).tolist(),
        forward_flops_R=[6 * d_model * columns for columns in columns_SLR.sum(axis=(0, 1)).tolist()],
        rows=imbalance(rows_SLR),
        flops=imbalance(columns_SLR),
    )


def imbalance(load_SLR: NDArray[np.int64]) -> Imbalance:
    """The three views of loads, in any unit; some load in every step and layer."""
    load_SR, load_R = load_SLR.sum(axis=1), load_SLR.sum(axis=(0, 1))
    return Imbalance(
        overall=float(load_R.max() / load_R.mean()),
        per_step=float((load_SR.max(axis=1) / load_SR.mean(axis=1)).mean()),
        per_layer=float(load_SLR.max(axis=2).sum() / load_SLR.mean(axis=2).sum()),
    )


def read_recording(folder: str | Path, last: float) -> Recording:
    """The recorded steps above (1 - `last`) times the last recorded one.

    Raises:
        UserError: the folder holds no run, a comparison or a dense run, or nothing was recorded.
    """
    run = RunFolder(Path(folder).expanduser())
    config = _read_config(run)
    path = run.routing_steps_path
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if lines and not lines[-1].endswith("}"):
        del lines[-1]  # of a run that is writing it, or was killed while it did
    if not lines:
        raise UserError(
            f"{path} holds no counts: let the run reach a logged step, or continue it with mohge-train "
            f"resume={run.path} callbacks=default and a larger trainer.max_tokens"
        )
    steps: list[int] = []
    counts: list[NDArray[np.int64]] = []
    last_step, tokens = 0, 0
    for line in reversed(lines):
        try:
            record = json.loads(line)
            step, tokens_then = int(record["step"]), int(record["tokens"])
            counts_LE = np.array(record["expert_counts"], dtype=np.int64)
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is damaged and cannot be read: train the run anew") from error
        if not steps:
            last_step, tokens = step, tokens_then
        # Exact: 0.07 of 100 steps are 7, whatever floating point makes of it.
        if last_step - step >= Fraction(str(last)) * last_step:
            break
        _check_counts(counts_LE, config, f"{path} (step {step})")
        steps.append(step)
        counts.append(counts_LE)
    return Recording(run.path, config, steps[::-1], tokens, np.stack(counts[::-1]))


def _read_config(run: RunFolder) -> TrainConfig:
    """The configuration of a run with experts."""
    plain = run.read_config()
    if plain.get("comparison"):
        arms = ", ".join(str(run.path / name) for name in plain["comparison"]["arms"])
        raise UserError(f"{run.path} holds a comparison of several runs: give the folder of one, {arms}")
    try:
        # Not mohge.config.load.typed: it also checks that the run could start here, on as many ranks.
        config = TypeAdapter(TrainConfig).validate_python(plain)
    except ValidationError as error:
        raise UserError(
            f"{run.path / 'config.yaml'} does not fit this version ({error.error_count()} keys): train the "
            "run anew"
        ) from error
    if not config.experts.num_experts:
        raise UserError(
            f"{run.path} is a run of arch={config.arch_name}, which routes nothing: give a run with experts, "
            "such as one of arch=mohge"
        )
    return config


def _check_counts(counts_LE: NDArray[np.int64], config: TrainConfig, where: str) -> None:
    """Every token is accounted for: each layer has the same rows, and some."""
    layers, experts = config.model.layers, config.experts.num_experts
    if counts_LE.shape != (layers, experts):
        raise UserError(
            f"{where} has no counts of {layers} layers x {experts} experts, as its config.yaml says: train "
            "the run anew"
        )
    rows_L = counts_LE.sum(axis=1)
    if (counts_LE < 0).any() or rows_L[0] == 0 or (rows_L != rows_L[0]).any():
        raise UserError(
            f"{where} lost tokens, its layers computed {rows_L.tolist()} rows: train the run anew"
        )
