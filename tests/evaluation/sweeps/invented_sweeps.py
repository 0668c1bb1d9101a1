"""Folders of sweeps as mohge-sweep leaves them, with figures that a test chooses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from fabricated_runs import train_config

from mohge.budget import budget
from mohge.config.load import as_dict
from mohge.config.schema import TrainConfig

Values = Sequence[float]


@cache
def _config(overrides: tuple[str, ...]) -> TrainConfig:
    return train_config(*overrides)


def write_cell(
    folder: Path,
    overrides: Sequence[str],
    seed: int,
    bits: Values,
    *,
    state: str = "finished",
    tokens_per_step: int = 4096,
    extra: Mapping[str, float] | None = None,
) -> None:
    """A run of 100 steps, validated len(bits) times, with these bits per byte and other metrics."""
    config = replace(_config(tuple(overrides)), seed=seed)
    planned = budget(config)
    experts = config.experts
    shares = {f"val/routing/rows_share/group_{g}": 1 / experts.num_groups for g in range(experts.num_groups)}
    routing, metrics = [], []
    for number, value in enumerate(bits, start=1):
        step = round(100 * number / len(bits))
        row: dict[str, Any] = {"step": step, "tokens": step * tokens_per_step, "train/loss": 2 * value}
        row |= {"val/bits_per_byte": value, "val/loss": 2.5 * value, "val/perplexity": 50 * value}
        row |= {"val/bits_per_byte/code": value - 0.1, "val/bits_per_byte/prose": value + 0.1}
        row |= {"speed/tokens_per_second": 5000.0, "speed/seconds_per_step": 0.1, "aux/group": 4.0}
        if experts.num_experts:
            active = planned.active_parameters.expected
            row |= {"routing/active_parameters": active, "val/routing/active_parameters": active, **shares}
            row |= {"routing/flops_per_token": planned.flops_per_token.train, "val/routing/dead_experts": 0}
            counts = [[12] * experts.num_experts] * config.model.layers
            routing.append({"step": step, "tokens": row["tokens"], "expert_counts": counts})
        metrics.append(row | dict(extra or {}))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(as_dict(config)))
    (folder / "budget.json").write_text(json.dumps(planned.as_dict()))
    (folder / "status.json").write_text(json.dumps({"state": state, "error": None}))
    git = {"git": {"revision": "a3cd300aa5b8c1", "dirty": False}}
    (folder / "environment.json").write_text(json.dumps(git))
    (folder / "data.json").write_text(json.dumps({"fingerprint": "f00d"}))
    files = {"metrics.jsonl": metrics, "routing.jsonl": routing}
    if routing:
        files["routing_steps.jsonl"] = routing
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_plan(
    folder: Path,
    arms: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    *,
    baseline: str,
    contrasts: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> dict[tuple[str, int], str]:
    """sweep.json; returns the id of each cell, which arms with equal overrides and factors share."""
    ids = {}
    for arm, facts in arms.items():
        for seed in seeds:
            told = [facts["overrides"], facts.get("factors", {}), seed]
            ids[arm, seed] = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    plan = {
        "format": "mohge-sweep-1",
        "name": "invented",
        "baseline": baseline,
        "seeds": list(seeds),
        "overrides": ["model=nano"],
        "arms": {name: {"factors": {}, **facts} for name, facts in arms.items()},
        "contrasts": contrasts or {},
        "cells": [
            {"id": id, "arm": arm, "seed": seed, "overrides": arms[arm]["overrides"]}
            for (arm, seed), id in ids.items()
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(plan))
    return ids


def write_sweep(
    folder: Path,
    bits: Mapping[str, Mapping[int, float]],
    overrides: Mapping[str, Sequence[str]],
    *,
    baseline: str = "moe",
    contrasts: Mapping[str, Sequence[Sequence[str]]] | None = None,
) -> Path:
    """A whole sweep: bits per byte by arm and seed; each cell has two validations, the first 1 higher."""
    seeds = list(dict.fromkeys(seed for values in bits.values() for seed in values))
    arms = {arm: {"overrides": list(overrides[arm])} for arm in bits}
    ids = write_plan(folder, arms, seeds, baseline=baseline, contrasts=contrasts)
    for arm, values in bits.items():
        for seed, value in values.items():
            cell = folder / "cells" / ids[arm, seed]
            if not cell.exists():
                write_cell(cell, ["model=nano", *overrides[arm]], seed, [value + 1, value])
    return folder
