"""Run folders as mohge-train leaves them, made up in milliseconds."""

import json
from pathlib import Path

import numpy as np
import yaml
from composing import composed

from mohge.budget import budget
from mohge.config.load import as_dict, typed
from mohge.config.schema import TrainConfig


def train_config(*overrides: str) -> TrainConfig:
    return typed(TrainConfig, composed(*overrides))


def write_run(folder: Path, *overrides: str, steps: int = 200, tokens_per_step: int = 4096) -> Path:
    """A finished run of `steps` steps, logged each 10 and validated each 50; narrow groups win."""
    config = train_config(*overrides)
    experts, layers = config.experts, config.model.layers
    rng = np.random.default_rng(sum(experts.widths) + experts.num_experts)
    metrics, routing, routing_steps = [], [], []
    for step in range(10, steps + 1, 10):
        preference = np.linspace(0.5, -0.5, experts.num_groups) * step / steps
        probability_E = np.repeat(np.exp(preference), experts.per_group) if experts.num_groups else np.ones(0)
        loads = [probability_E * rng.uniform(0.4, 1.6, experts.num_experts) for _ in range(layers)]
        rows = tokens_per_step * config.router.expert_top_k
        counts = [rng.multinomial(rows, load / load.sum()).tolist() if len(load) else [] for load in loads]
        row = {"step": step, "tokens": step * tokens_per_step}
        routing_steps.append({**row, "expert_counts": counts})
        row["train/loss"] = 3 + 5.3 * np.exp(-step / 60) + rng.normal(0, 0.05)
        row["speed/tokens_per_second"] = 9000 + rng.normal(0, 300)
        shares = np.sum(counts, axis=0).reshape(experts.num_groups, -1).sum(axis=1) if experts.widths else []
        row |= {f"routing/rows_share/group_{g}": n / sum(shares) for g, n in enumerate(shares)}
        if step % 50 == 0:
            row["val/bits_per_byte"] = row["train/loss"] / np.log(2) / 3.2
            row["val/bits_per_byte/code"] = row["val/bits_per_byte"] - 0.1
            row["val/loss"] = row["train/loss"]
            if experts.widths:
                columns = sum(n * width for n, width in zip(shares, experts.widths, strict=True))
                routed = 3 * config.model.d_model * columns / tokens_per_step
                parameters = budget(config).parameters
                row["val/routing/active_parameters"] = parameters.total - parameters.routed_experts + routed
                groups = [
                    np.reshape(layer, (experts.num_groups, -1)).sum(axis=1).tolist() for layer in counts
                ]
                line = {
                    "step": step,
                    "tokens": row["tokens"],
                    "expert_counts": counts,
                    "group_counts": groups,
                }
                routing.append(line)
        metrics.append(row)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(as_dict(config)))
    (folder / "budget.json").write_text(json.dumps(budget(config).as_dict()))
    (folder / "status.json").write_text(json.dumps({"state": "finished", "step": steps}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    if routing:
        (folder / "routing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in routing))
        path = folder / "routing_steps.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in routing_steps))
    return folder


def write_whole_run(folder: Path, *overrides: str, steps: int = 200, ranks: int = 1) -> Path:
    """`write_run` with all that a run with every callback records, and an analysis of its tokens."""
    write_run(folder, *overrides, steps=steps)
    config = train_config(*overrides)
    rng = np.random.default_rng(config.seed)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"routing/max_violation": 2.5 * np.exp(-row["step"] / 80) + rng.uniform(0, 0.2)}
        row |= {"routing/dead_experts": int(rng.integers(0, 3)), "routing/group_entropy": 0.9}
        row |= {"aux/group": rng.uniform(4, 5), "aux_weighted/group": rng.uniform(4e-5, 5e-5)}
        row |= {"speed/flops_per_second": 1e11 + rng.normal(0, 1e9), "memory/peak_bytes": 9e8}
        row |= {"time/forward_share": 0.4, "time/backward_share": 0.5, "time/data_share": 0.1}
    _write_lines(folder / "metrics.jsonl", rows)
    alarm = {"step": 50, "tokens": 50 * 4096, "kind": "idle_experts", "text": "3 experts got no token: wait"}
    _write_lines(folder / "alarms.jsonl", [alarm])
    git = {"revision": "a3cd300", "dirty": False}
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "threads": 2, "git": git}))
    if ranks > 1:
        write_rank_load(folder, [[120] + [100] * (ranks - 1)] * steps)
    if config.experts.num_experts:
        write_tokens(folder, config, f"step_{steps:08d}")
    return folder


def write_rank_load(folder: Path, flops_by_step: list[list[int]]) -> None:
    """rank_load.jsonl with these expert FLOPs of each rank in each step, from step 1."""
    lines = [{"step": step, "expert_flops": flops} for step, flops in enumerate(flops_by_step, start=1)]
    _write_lines(folder / "rank_load.jsonl", lines)


def write_tokens(folder: Path, config: TrainConfig, checkpoint: str) -> Path:
    """tokens/CHECKPOINT/tokens.json as mohge-tokens leaves it; the narrowest group handles numbers."""
    experts, layers = config.experts, config.model.layers
    groups = experts.num_groups

    def interval(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}

    def entry(**named: object) -> dict[str, object]:
        return {**named, "frequency": interval(2), "loss": interval(3), "mean_width": interval(90)}

    table = [
        {"group": group, "width": width, "rows": 1000, "share": 1 / groups}
        | {"frequency": interval(3 - 0.2 * group), "loss": interval(4 + 0.3 * group)}
        for group, width in enumerate(experts.widths)
    ]
    rho = {"rho": 0.12, "low": 0.1, "high": 0.14} if groups > 1 else None
    tables = [
        {"layer": layer, "groups": table, "rarity_correlation": rho, "loss_correlation": rho}
        for layer in (*range(layers), None)
    ]
    even = [1 / groups] * groups
    to_first = [1.0 if group == 0 else 0.0 for group in range(groups)]
    parts = [entry(part="number", tokens=100, shares=to_first), entry(part="word", tokens=900, shares=even)]
    domains = [entry(domain=name, tokens=500, shares=even) for name in ("code", "prose")]
    token = {"text": " <def>", "part": "word", "widths": [64.0] * layers, "loss": 2.1}
    data = {
        "format": "mohge-tokens-1",
        "checkpoint": checkpoint,
        "step": int(checkpoint.removeprefix("step_")),
        "corpus": "python_stdlib",
        "split": "validation",
        "tokens": 1000,
        "sequences": 4,
        "level": 0.95,
        "resamples": 1000,
        "widths": list(experts.widths),
        "difficulty": tables,
        "domains": domains,
        "parts": parts,
        "experts": [
            {"layer": 0, "expert": 0, "group": 0, "width": experts.widths[0], "rows": 100, "load": 1.0}
            | {"typical": [{"token": " self", "rows": 9, "lift": 3.2}]}
        ],
        "texts": [{"source": name, "tokens": [token] * 160} for name in ("code", "prose")],
    }
    path = folder / "tokens" / checkpoint / "tokens.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(data))
    return path


def _write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
