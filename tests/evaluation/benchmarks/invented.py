"""Invented evaluations: results.json and items, of figures that a test chooses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from evaluation.benchmarks.comparing import compare

WIDTHS = {"mohge": [48, 80, 112, 144], "moe": [112], "dense": []}
SHARES = {"mohge": [0.2, 0.3, 0.3, 0.2], "moe": [1.0], "dense": []}
TOTAL = {"mohge": 3_189_888, "moe": 3_566_592, "dense": 1_419_264}


def task(items, *, label, metric="acc", chance=0.5, shares=None, others=None, **facts):
    """A finished task.

    Args:
        items: numbers, or pairs of numerator and denominator, of the items.
        label, metric, chance: as in results.json.
        shares: of the width groups; by default those of the architecture.
        others: items of further metrics.
        facts: any key of the task to set.
    """
    return {"items": items, "label": label, "metric": metric, "chance": chance, "shares": shares} | {
        "others": others or {},
        "facts": facts,
    }


def failed(label, error="the model ran out of memory"):
    return {"status": "failed", "error": error, "label": label}


def write_evaluation(folder: Path, tasks, *, arch="mohge", seed=1, name=None, **facts) -> Path:
    """The folder of an evaluation.

    Args:
        folder: to make.
        tasks: of `task` and `failed`, by name.
        arch, seed: of the run.
        name: of the run; by default of size, architecture and seed.
        facts: any key of results.json to set.
    """
    name = name or f"nano-{arch}-seed{seed}"
    (folder / "samples").mkdir(parents=True)
    results = {
        "format": "mohge-eval-1",
        "suite": "invented",
        "checkpoint": f"/runs/{name}/checkpoints/step_00001221",
        "run": f"/runs/{name}",
        **{"name": name, "arch": arch, "model": "nano", "seed": seed, "corpus": "letters"},
        **{"step": 1221, "training_tokens": 5_001_216},
        "parameters": {"total": TOTAL[arch], "active": 0.9 * TOTAL[arch]},
        "flops_per_token": 2.5 * TOTAL[arch],
        "widths": WIDTHS[arch],
        "revision": "0" * 40,
        "created": "2026-01-31T12:00:00+00:00",
        "settings": {"batch_size": 32, "ranks": 1, "device": "cpu", "limit": None, "context": 256},
        "tasks": {key: _task(folder, key, one, arch) for key, one in tasks.items()},
    } | facts
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def _task(folder, name, one, arch):
    if "status" in one:
        return one
    columns = {one["metric"]: one["items"], **one["others"]}
    lines = [
        {
            "item": str(place),
            "hash": f"{name}-{place}",
            "metrics": {metric: values[place] for metric, values in columns.items()},
            "answer": "ignored",
            **({"cluster": str(one["facts"]["clusters"][place])} if "clusters" in one["facts"] else {}),
        }
        for place in range(len(one["items"]))
    ]
    (folder / "samples" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shares = SHARES[arch] if one["shares"] is None else one["shares"]
    return {
        **{"status": "done", "error": None, "label": one["label"], "items": len(one["items"])},
        **{"fewshot": 0, "version": 1.0, "chance": one["chance"], "primary": one["metric"]},
        "metrics": {metric: _metric(values) for metric, values in columns.items()},
        "subtasks": {},
        "cost": {
            **{"tokens": 1000, "requests": 20, "seconds": 2.0, "tokens_per_second": 500.0},
            **{"seconds_per_item": 2.0 / len(one["items"]), "group_shares": shares},
            **{"active_parameters": 0.8 * TOTAL[arch], "flops_per_token": 2.0 * TOTAL[arch]},
        },
        "samples": f"samples/{name}.jsonl",
    } | one["facts"]


def _metric(values):
    figures = np.array(values, float)
    if figures.ndim == 2:
        value, kind, better = figures[:, 0].sum() / figures[:, 1].sum(), "ratio", False
    else:
        value, kind, better = figures.mean(), "mean", True
    error = figures.std() / math.sqrt(len(values)) if figures.ndim == 1 else None
    return {"value": float(value), "stderr": error, "aggregation": kind, "higher_is_better": better}


def right(count, of, first=0):
    """Items of which `count` are right, from the first on, in a circle."""
    answers = [0.0] * of
    for place in range(first, first + count):
        answers[place % of] = 1.0
    return answers


def realistic(folder, archs=("moe", "mohge", "dense"), seeds=(1,), effect=0.02):
    """Evaluations of seven tasks as small models answer them, in folder/ARCH-SEED."""
    sizes = {
        "piqa_local": ("PIQA", 1838, 0.5),
        "siqa_local": ("SIQA", 1954, 1 / 3),
        "sciq_local": ("SciQ", 1000, 0.25),
        "arc_easy_local": ("ARC-Easy", 2376, 0.25),
        "gsm8k_local": ("GSM8K", 1319, None),
        "lambada_local": ("LAMBADA", 5153, None),
        "held_out": ("held-out text", 400, None),
    }
    written = []
    for place, arch in enumerate(archs):
        for seed in seeds:
            tasks = {}
            for number, (name, (label, items, chance)) in enumerate(sizes.items()):
                shared = np.random.default_rng(number)
                rng = np.random.default_rng([number, place, seed])
                if name == "held_out":
                    size = np.ceil(shared.lognormal(6, 0.4, items))
                    bits = size * 1.8 * shared.gamma(40, 1 / 40, items) * (1 + 0.02 * place)
                    bits *= rng.gamma(900, 1 / 900, items)
                    pairs = np.stack([bits, size], 1).tolist()
                    tasks[name] = task(pairs, label=label, metric="bits_per_byte", chance=None)
                    continue
                level = (chance or 0.02) + (0.25 if name == "sciq_local" else 0.01)
                level += (effect if arch == "mohge" else 0) * shared.uniform(-0.5, 1.5)
                level += 0.008 * rng.normal()
                easy = shared.beta(3 * level, 3 * (1 - level), items)
                answers = (rng.random(items) < easy) * 1.0
                if name == "gsm8k_local":
                    answers[:] = 0
                others = {"acc_norm": np.roll(answers, 1).tolist()} if chance else None
                shares = None
                if arch == "mohge":
                    tilt = np.array([-1, -0.4, 0.3, 1.1]) * (0.03 if name == "gsm8k_local" else 0.005)
                    shares = (np.array(SHARES[arch]) + tilt + 0.002 * rng.normal(size=4)).clip(0.01)
                    shares = (shares / shares.sum()).tolist()
                metric = "exact_match" if name == "gsm8k_local" else "acc"
                tasks[name] = task(
                    answers.tolist(), label=label, metric=metric, chance=chance, shares=shares, others=others
                )
            written.append(write_evaluation(folder / f"{arch}-{seed}", tasks, arch=arch, seed=seed))
    return written


def two(tmp_path, mohge, moe, **facts):
    """The comparison of an evaluation each, in which moe is the baseline."""
    return compare(
        [
            write_evaluation(tmp_path / "mohge", mohge, arch="mohge", **facts),
            write_evaluation(tmp_path / "moe", moe, arch="moe"),
        ]
    )


def said(comparison, *words):
    """Whether one remark has all the words."""
    return any(all(word in remark for word in words) for remark in comparison["remarks"])
