"""Where tokens went: load of groups and experts, and what a token really cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torchmetrics import MetricCollection

from callbacks.plots import draw_run
from callbacks.tracking import TrackingLogger
from mohge.config.schema import RoutingCallbackConfig, TrainConfig
from mohge.metrics import (
    ActiveParameters,
    CountMetric,
    DeadExperts,
    ExpertEntropy,
    FlopsPerToken,
    GroupEntropy,
    GroupShare,
    Layered,
    LoadVariation,
    MaxViolation,
    RoutingCounts,
)
from mohge.training.validation_routing import ValidationRouting

_SHARES = "rows_share"


class RoutingCallback(pl.Callback):
    """Records `routing/…` at each log step and `val/routing/…` at each validation.

    Of the metrics of `mohge.metrics`, over layers:

    - `max_violation`, `max_violation_in_groups`, `load_variation`, `dead_experts`: how evenly experts work.
    - `group_entropy`, `expert_entropy`: how widely choices are spread; 1 is evenly.
    - `active_parameters`, `flops_per_token`: what a token of training cost, to compare with budget.json.
    - `churn`, of a validation: share of a fixed batch's tokens whose experts changed since the last one.

    These, and of a validation `active_parameters` and `churn` alone, are `tier=brief`. `tier=detailed` adds
    all of a validation, `rows_share/group_<g>`, the share of rows (a token at one of its experts) that a
    width group computed, `…_expected`, what the plan says of the two costs, and the metrics of each layer,
    auxiliary losses too, in routing_layers.jsonl; and it sends these files and pictures to the logger every
    `picture_every` steps.

    The counts are appended to files in both: those of each log step to routing_steps.jsonl, which
    mohge-plan replays, and those of each validation, by domain too, to routing.jsonl; in `detailed` with the
    number of tokens that chose each pair of experts. A dense model routes nothing, and gets none of these.
    """

    def __init__(self, cfg: RoutingCallbackConfig, train: TrainConfig) -> None:
        super().__init__()
        self._detailed = cfg.tier == "detailed"
        self._picture_every = cfg.picture_every
        self._title = f"{train.model.name} {train.arch_name}"
        self._routes = train.experts.num_experts > 0
        if self._routes:
            self._metrics = _collection(train)
            self._expected = {
                f"{name}_expected": metric.expected
                for name, metric in self._metrics.items()
                if isinstance(metric, ActiveParameters | FlopsPerToken)
            }

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Go where the counts are."""
        if self._routes:
            self._metrics.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the step's figures to its record, and its counts to routing_steps.jsonl."""
        if not pl_module.recording or not self._routes:
            return
        counts: RoutingCounts = pl_module.step_counts
        found = self._compute(counts)
        pl_module.record.update(self._scalars(found, "routing"))
        taken = {"expert_counts": counts.expert_LE.tolist()}
        _append(trainer, pl_module, pl_module.run.routing_steps_path, taken)
        if self._detailed:
            layers = {name: value.layers.tolist() for name, value in found.items()} | pl_module.layer_losses
            _append(trainer, pl_module, pl_module.run.routing_layers_path, layers)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add the validation's figures to the record, and its counts to routing.jsonl."""
        if trainer.sanity_checking or not self._routes:
            return
        routing: ValidationRouting = pl_module.val_routing
        figures = self._scalars(self._compute(routing.counts), "val/routing")
        if not self._detailed:
            figures = {name: value for name, value in figures.items() if name.endswith("/active_parameters")}
        churn_L = routing.churn_L.tolist()
        if routing.churn_L.isfinite().all():
            figures["val/routing/churn"] = sum(churn_L) / len(churn_L)
        pl_module.record.update(figures)
        counts = {
            "expert_counts": routing.counts.expert_LE.tolist(),
            "group_counts": routing.counts.group_LG.tolist(),
            "domains": list(routing.domains),
            "domain_expert_counts": routing.domain_rows_MLE.tolist(),
        }
        if self._detailed:
            counts["coactivation"] = routing.together_LEE.tolist()
        _append(trainer, pl_module, pl_module.run.routing_path, counts)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Every so many steps, draw what was recorded, and send it with the arrays of each layer."""
        step, accumulate = trainer.global_step, pl_module.config.trainer.accumulate
        due = step > 0 and step % self._picture_every == 0 and batch_idx % accumulate == 0
        if not (self._detailed and self._routes and due):
            return
        metrics, layers = pl_module.run.metrics_path, pl_module.run.routing_layers_path
        if metrics.exists() and metrics.stat().st_size:
            draw_run(self._title, pl_module.run, trainer.loggers)
        for logger in trainer.loggers:
            if isinstance(logger, TrackingLogger) and layers.exists():
                logger.log_file(layers)

    def _compute(self, counts: RoutingCounts) -> dict[str, Layered]:
        self._metrics.reset()
        self._metrics.update(counts)
        return self._metrics.compute()

    def _scalars(self, found: dict[str, Layered], prefix: str) -> dict[str, float]:
        overall = {name: value.overall for name, value in found.items() if name != _SHARES}
        figures = {f"{prefix}/{name}": float(value) for name, value in overall.items()}
        if self._detailed:
            shares = found[_SHARES].overall.tolist()
            figures |= {f"{prefix}/{_SHARES}/group_{g}": share for g, share in enumerate(shares)}
            figures |= {f"{prefix}/{name}": float(value) for name, value in self._expected.items()}
        return figures


def _collection(train: TrainConfig) -> MetricCollection:
    """Metrics of counts that are those of all ranks already: no rank but the first has them."""
    experts, layers = train.experts, train.model.layers
    shape = (layers, experts.num_groups, experts.per_group)
    metrics: dict[str, CountMetric] = {
        "max_violation": MaxViolation(*shape, sync_on_compute=False),
        "max_violation_in_groups": MaxViolation(*shape, within_groups=True, sync_on_compute=False),
        "load_variation": LoadVariation(*shape, sync_on_compute=False),
        "dead_experts": DeadExperts(*shape, sync_on_compute=False),
        "group_entropy": GroupEntropy(*shape, sync_on_compute=False),
        "expert_entropy": ExpertEntropy(*shape, sync_on_compute=False),
        "active_parameters": ActiveParameters(train, sync_on_compute=False),
        "flops_per_token": FlopsPerToken(train, sync_on_compute=False),
        _SHARES: GroupShare(*shape, sync_on_compute=False),
    }
    return MetricCollection(metrics)  # type: ignore[arg-type]


def _append(trainer: pl.Trainer, pl_module: Any, path: Path, counts: dict[str, Any]) -> None:
    """Adds a line with counts, which are those of all ranks, and when in training they were taken."""
    if not trainer.is_global_zero:
        return
    tokens = trainer.global_step * pl_module.tokens_per_step
    pl_module.run.append(path, {"step": trainer.global_step, "tokens": tokens, **counts})
