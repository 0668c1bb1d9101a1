"""Where tokens went: load of groups and experts, and the parameters a token really used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from mohge.budget import budget
from mohge.config.schema import CallbackConfig, TrainConfig
from mohge.training.routing_counts import RoutingCounts


class RoutingCallback(pl.Callback):
    """Records `routing/…` at each log step and `val/routing/…` at each validation.

    - `rows_share/group_<g>`: share of rows (a token at one of its experts) that width group g computed.
    - `active_parameters`: parameters that a token passed through, measured; comparable with the budget's.
    - `max_violation`: largest load over mean load, minus 1, in the worst layer.
    - `dead_experts`: experts, over all layers, that no token of the step (of the validation) chose.

    The counts themselves are appended to files of the run's folder, those of each log step to
    routing_steps.jsonl, which mohge-plan replays, and those of each validation to routing.jsonl. A dense
    model routes nothing, and gets none of these.
    """

    def __init__(self, cfg: CallbackConfig, train: TrainConfig) -> None:
        super().__init__()
        self._experts = train.experts
        self._d_model = train.model.d_model
        parameters = budget(train).parameters
        self._always_active = parameters.total - parameters.routed_experts

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's figures to its record, and its counts to routing_steps.jsonl."""
        if not pl_module.recording or not self._experts.num_experts:
            return
        counts: RoutingCounts = pl_module.step_counts
        pl_module.record.update(self._figures(counts, "routing"))
        _append(trainer, pl_module, pl_module.run.routing_steps_path, expert_counts=counts.expert_LE)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add the validation's figures to the record, and its counts to routing.jsonl."""
        if trainer.sanity_checking or not self._experts.num_experts:
            return
        counts: RoutingCounts = pl_module.val_counts
        pl_module.record.update(self._figures(counts, "val/routing"))
        both = {"expert_counts": counts.expert_LE, "group_counts": counts.group_LG}
        _append(trainer, pl_module, pl_module.run.routing_path, **both)

    def _figures(self, counts: RoutingCounts, prefix: str) -> dict[str, float]:
        counts.check()
        routed = counts.active_routed_parameters(self._experts.widths, self._d_model)
        figures = {f"rows_share/group_{g}": share for g, share in enumerate(counts.rows_share().tolist())}
        figures["active_parameters"] = self._always_active + routed
        figures["max_violation"] = counts.max_violation()
        figures["dead_experts"] = counts.dead_experts()
        return {f"{prefix}/{name}": float(value) for name, value in figures.items()}


def _append(trainer: pl.Trainer, pl_module: Any, path: Path, **counts: Tensor) -> None:
    """Adds a line with counts, which are those of all ranks, and when in training they were taken."""
    if not trainer.is_global_zero:
        return
    tokens = trainer.global_step * pl_module.tokens_per_step
    taken = {name: count.tolist() for name, count in counts.items()}
    pl_module.run.append(path, {"step": trainer.global_step, "tokens": tokens, **taken})
