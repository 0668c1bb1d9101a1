"""Run folders as mohge-train leaves them, made up in milliseconds."""

import json
from pathlib import Path

import numpy as np
import yaml
from hydra import compose, initialize_config_module

from mohge.budget import budget
from mohge.config.load import as_dict, typed
from mohge.config.schema import TrainConfig


def train_config(*overrides: str) -> TrainConfig:
    with initialize_config_module("conf", version_base="1.3"):
        return typed(TrainConfig, compose("train", overrides=list(overrides)))


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
