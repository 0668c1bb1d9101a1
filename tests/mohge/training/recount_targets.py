"""A real run that keeps every routing decision beside its own counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook

from mohge.config.schema import TrainConfig
from mohge.moe.decision import RoutingDecision
from mohge.parallel.ranks import this_rank
from mohge.training.run import train
from mohge.training.run_folder import RunFolder


def train_and_keep(config: TrainConfig) -> dict[str, list[Any]]:
    """Train as one of the ranks; the decisions of its routers, in the order in which they were made.

    Returns:
        `training` and `validation`: expert ids (T, K) and masks of selected groups (T, G).
    """
    kept: dict[str, list[Any]] = {"training": [], "validation": []}

    def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, RoutingDecision):
            ids_TK, mask_TG = output.expert_ids_TK.clone(), output.group_mask_TG.clone()
            kept["training" if module.training else "validation"].append((ids_TK, mask_TG))

    hook = register_module_forward_hook(keep)
    try:
        assert config.paths.run_dir is not None
        train(config, RunFolder(Path(config.paths.run_dir)), [], this_rank())
    finally:
        hook.remove()
    return kept
