"""Where tokens went: load of groups and experts, and the parameters a token really used."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from mohge.budget import budget
from mohge.config.schema import CallbackConfig, TrainConfig
from mohge.training.routing_counts import RoutingCounts


class RoutingCallback(pl.Callback):
    """Records `routing/…` at each log step and `val/routing/…` at each validation.

    - `rows_share/group_<g>`: share of rows (a token at one of its experts) that width group g computed.
    - `active_parameters`: parameters that a token passed through, measured; comparable with the budget's.
    - `max_violation`: largest load over mean load, minus 1, in the worst layer.
    - `dead_experts`: experts, over all layers, that no token of the step (of the validation) chose.

    Each validation's counts, whole, are appended to routing.jsonl in the run's folder. A dense model routes
    nothing, and gets none of these.
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
        """Add the step's figures to its record."""
        if pl_module.recording and self._experts.num_experts:
            pl_module.record.update(self._figures(pl_module.step_counts, "routing"))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add the validation's figures to the record, and its counts to routing.jsonl."""
        if trainer.sanity_checking or not self._experts.num_experts:
            return
        counts: RoutingCounts = pl_module.val_counts
        pl_module.record.update(self._figures(counts, "val/routing"))
        line = {
            "step": trainer.global_step,
            "tokens": trainer.global_step * pl_module.tokens_per_step,
            "expert_counts": counts.expert_LE.tolist(),
            "group_counts": counts.group_LG.tolist(),
        }
        pl_module.run.append(pl_module.run.routing_path, line)

    def _figures(self, counts: RoutingCounts, prefix: str) -> dict[str, float]:
        counts.check()
        routed = counts.active_routed_parameters(self._experts.widths, self._d_model)
        figures = {f"rows_share/group_{g}": share for g, share in enumerate(counts.rows_share().tolist())}
        figures["active_parameters"] = self._always_active + routed
        figures["max_violation"] = counts.max_violation()
        figures["dead_experts"] = counts.dead_experts()
        return {f"{prefix}/{name}": float(value) for name, value in figures.items()}
