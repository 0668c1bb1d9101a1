"""The LightningModule: losses and their weights, what is measured in a step, and when to stop.

Shapes: B batch, S sequence, V vocabulary, L layers, G groups, E experts.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from mohge.config.load import as_dict
from mohge.config.schema import TrainConfig
from mohge.metrics import AuxiliaryLosses, RoutingCounts
from mohge.model.initialization import initialize
from mohge.model.transformer import build_model
from mohge.moe.decision import RoutingDecision
from mohge.moe.experts import Experts
from mohge.moe.losses import FLAT_LOSS_NAMES, LOSS_NAMES, GlobalBatchShares, Shares, auxiliary_losses
from mohge.moe.routers import TopKRouter
from mohge.parallel.clipping import clip_gradients, gradient_norm
from mohge.parallel.mesh import Mesh
from mohge.parallel.sharding import drop_gathered, shard_model
from mohge.parallel.world import add_over_ranks, gather
from mohge.training.checkpoint import TENSORS, load_tensors
from mohge.training.checkpoint_names import step_of
from mohge.training.non_finite import non_finite
from mohge.training.optimizer import build_optimizer, fill_gradients, lr_factor, whole_steps
from mohge.training.random_state import get_random_state, set_random_state
from mohge.training.rank_load import RankLoad
from mohge.training.run_folder import RunFolder
from mohge.training.tensors import make_moments, training_tensors
from mohge.training.validation import ValidationSums
from mohge.training.validation_routing import ValidationRouting

log = logging.getLogger(__name__)


class LanguageModule(pl.LightningModule):
    """Trains a language model.

    Args:
        config: the whole configuration.
        run: folder of the run, read by callbacks.
        max_steps: optimizer steps of the whole training, which schedules refer to.
        mesh: of the ranks that train together; None for a process that is alone.
        checkpoint: folder of the checkpoint to go on from.

    Attributes:
        record: metrics of the step being recorded; callbacks add theirs in `on_train_batch_end` while
            `recording`, or in `on_validation_end`.
        recording: whether the optimizer step that just ended is one whose metrics are written.
        step_counts: routing of the optimizer step that just ended; of all ranks while `recording`.
        auxiliary: auxiliary losses of the step, per layer; None for a dense model.
        layer_losses: while `recording`, raw and weighted auxiliary losses of each layer, by name.
        val_routing: routing of the last validation, of all ranks.
    """

    def __init__(
        self,
        config: TrainConfig,
        run: RunFolder,
        max_steps: int,
        mesh: Mesh | None = None,
        checkpoint: Path | None = None,
    ):
        super().__init__()
        self.config = config
        self.run = run
        self.max_steps = max_steps
        self.mesh = mesh
        self._checkpoint = checkpoint
        self._sharded = False
        self.strict_loading = False  # Lightning finds no weights in a checkpoint, and need not complain
        # No rank ever holds the whole model: `configure_model` makes the part that is here.
        with torch.device("cpu" if mesh is None else "meta"):
            self.model = build_model(config)
        if mesh is None:
            initialize(self.model, config.seed)

        self.step_counts = self._new_counts()
        self.val_routing = ValidationRouting(config, self.device)
        self.auxiliary = self._new_auxiliary()
        self.layer_losses: dict[str, list[float]] = {}
        self.record: dict[str, float] = {}
        self.recording = False
        self._sums: dict[str, Tensor] = {}
        self._grad_norm = torch.zeros(())
        self._shares = GlobalBatchShares()
        self._rank_load = None if mesh is None or not config.experts.widths else RankLoad(config, mesh)
        self._val: ValidationSums | None = None

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step learns from."""
        return self.config.tokens_per_step

    def loss_weights(self, step: int) -> dict[str, float]:
        """Weight of each auxiliary loss in optimizer step `step` (from 0).

        The group-wise loss is off before `loss.group_start` of training, as in the released code.
        """
        loss = self.config.loss
        group_is_on = step >= whole_steps(loss.group_start, self.max_steps)
        return {
            "group": loss.group_weight if group_is_on else 0.0,
            "intra": loss.intra_weight,
            "balance": loss.balance_weight,
            "penalty": loss.penalty_weight,
            "z": loss.z_weight,
        }

    def configure_model(self) -> None:
        """Cuts the model among the ranks, and fills this rank's part."""
        if self.mesh is None or self._sharded:
            return
        shard_model(self.model, self.mesh)
        self.model.to_empty(device=self.trainer.strategy.root_device)
        initialize(self.model, self.config.seed)
        self._sharded = True

    def on_fit_start(self) -> None:
        """Goes on from a checkpoint's tensors, moves counters to the device, and names the kernel.

        Lightning reads the rest of the checkpoint; of tensors it knows no layout but the one they had.
        """
        if self._checkpoint is not None:
            optimizer = self._adamw()
            make_moments(optimizer, step_of(self._checkpoint))
            load_tensors(self._checkpoint, training_tensors(self.model, optimizer))
        self.step_counts = self._new_counts()
        self.val_routing.to(self.device)
        first = next((layer for layer in self.modules() if isinstance(layer, Experts)), None)
        if first is not None and first.kernel == "auto":
            precision = self.config.trainer.precision
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            kernel = first.kernel_for(self.device.type, dtype)
            log.info("experts.kernel=auto uses %s, on %s in %s", kernel, self.device.type, precision)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy plus weighted auxiliary losses of one micro-batch.

        Raises:
            RunError: the loss is not finite.
        """
        if batch_idx % self.config.trainer.accumulate == 0:
            self._begin_step()
        tokens_BS = batch["tokens"]
        output = self.model(tokens_BS[:, :-1], tokens_BS[:, 1:])
        decisions, total = output.decisions, output.loss
        self._add("train/loss", total)
        weights = self.loss_weights(self.global_step)
        for name, value in self._auxiliary_losses(decisions, weights).items():
            if weights[name] > 0:
                total = total + weights[name] * value
        self._add("train/total_loss", total)
        self.step_counts.add(decisions)
        if not torch.isfinite(total):
            raise non_finite("loss", float(total.detach()), self._place(batch_idx), self.config, self.run)
        return total

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Completes the gradients, clips them by their global norm, and keeps the norm for the record.

        Raises:
            RunError: the norm is not finite.
        """
        fill_gradients(self.model)
        clip = self.config.trainer.clip
        copies = None if self.mesh is None else self.mesh.sizes.dp_replicate
        norm = gradient_norm(self.model.parameters(), copies)
        self._grad_norm = norm
        value = float(norm)
        if not math.isfinite(value):
            place = self._place(self.trainer.fit_loop.batch_idx)
            raise non_finite("gradient norm", value, place, self.config, self.run)
        if clip is not None and value > clip:  # otherwise the gradients stay as they are: no pass over them
            clip_gradients(self.model.parameters(), clip, norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then closes the books of the step."""
        super().optimizer_step(*args, **kwargs)
        self.zero_grad(set_to_none=True)  # Lightning would keep them through the next forward pass
        step = self.global_step + 1  # Lightning counts this step after the hook
        trainer = self.config.trainer
        self.recording = (
            step % trainer.log_every == 0 or step % trainer.val_every == 0 or step == self.max_steps
        )
        if self._rank_load is not None:
            self._rank_load.add(self.step_counts.expert_LE, self.step_counts.tokens)
        if self.config.router.bias_rate:  # by counts of this rank, which a record sums in place
            self._move_biases()
        if self.recording:
            if self._rank_load is not None:
                self.record.update(self._rank_load.record(self.run, step))
            self.step_counts.add_over_ranks()
            self.step_counts.check(self.config.router.group_top_k)
            self.record.update(self._means())
            self.record.update(self._auxiliary_means())
            self.record["train/grad_norm"] = float(self._grad_norm)
            self.record["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, with its schedule counted in optimizer steps."""
        config = self.config.optim
        optimizer = build_optimizer(self.model, config)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(step, self.max_steps, config)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Puts the learning rate on the schedule where the steps done leave it.

        A continued run may have stretched it, and has other parameter groups on another mesh.
        """
        (schedule,) = (item.scheduler for item in self.trainer.lr_scheduler_configs)
        schedule.last_epoch = self.global_step
        factor = lr_factor(self.global_step, self.max_steps, self.config.optim)
        for group in self._adamw().param_groups:
            group["lr"] = group["initial_lr"] * factor

    def on_validation_epoch_start(self) -> None:
        """Starts new sums."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self._val = ValidationSums(data.domains, data.token_bytes_V, self.device)
        self.val_routing.begin(data.domains)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Adds the cross-entropy of one batch, per domain."""
        tokens_BS = batch["tokens"]
        targets_BS = tokens_BS[:, 1:]
        output = self.model(tokens_BS[:, :-1], targets_BS, reduction="none")
        assert self._val is not None
        self._val.add(output.loss, targets_BS, batch["domain"])
        domain_T = batch["domain"].repeat_interleave(targets_BS.shape[1])
        self.val_routing.add(output.decisions, domain_T, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Turns the sums into metrics."""
        assert self._val is not None
        self.val_routing.end()
        self._val.add_over_ranks()
        self.record.update(self._val.metrics())

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Tells the data module that a micro-batch was learned from."""
        self.trainer.datamodule.advance()  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the plain configuration and the state of the random generators, and hands over the tensors.

        Lightning's own loop state is left out: what it infers from it on a restart, in the middle of an
        endless epoch, repeats or skips steps. Steps done and micro-batches learned from say all. Its states
        of model, optimizer and schedule are of the layout that they have here: `TENSORS` are saved instead.
        """
        del checkpoint["loops"]
        checkpoint["state_dict"], checkpoint["optimizer_states"], checkpoint["lr_schedulers"] = {}, [], []
        if self._rank_load is not None:  # of steps since the last record: a continued run begins after them
            self._rank_load.record(self.run, self.global_step)
        drop_gathered(self.model)  # those of a validation
        checkpoint[TENSORS] = training_tensors(self.model, self._adamw())
        checkpoint["mohge"] = {
            "config": as_dict(self.config),
            "random_state": get_random_state(),
            "probe": {
                "experts": gather(self.val_routing.probe),
                "val_sequences": self.config.trainer.val_sequences,
            },
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the random generators, what the probe saw, and the counters of Lightning's loops."""
        set_random_state(checkpoint["mohge"]["random_state"])
        # Other tokens are the probe where more of them are validated, or ranks read other parts.
        probe = checkpoint["mohge"].get("probe", {"experts": [], "val_sequences": 0})
        now = (self.trainer.world_size, self.config.trainer.val_sequences)
        if (len(probe["experts"]), probe["val_sequences"]) == now:
            self.val_routing.restore_probe(probe["experts"][self.global_rank])
        steps = checkpoint["global_step"]
        loop = self.trainer.fit_loop.epoch_loop
        loop.automatic_optimization.optim_progress.optimizer.step.total.ready = steps
        loop.automatic_optimization.optim_progress.optimizer.step.total.completed = steps
        batches = steps * self.config.trainer.accumulate
        states = ("ready", "started", "processed", "completed")
        loop.batch_progress.total.load_state_dict(dict.fromkeys(states, batches))

    def _move_biases(self) -> None:
        """Of the routers' choice, by the loads of the step over all ranks. Collective."""
        counts_LE = self.step_counts.expert_LE.clone()
        add_over_ranks(counts_LE)
        routers = [module for module in self.modules() if isinstance(module, TopKRouter)]
        for router, counts_E in zip(routers, counts_LE, strict=True):
            router.move_bias(counts_E)

    def _adamw(self) -> torch.optim.AdamW:
        (optimizer,) = self.trainer.optimizers
        assert isinstance(optimizer, torch.optim.AdamW), "made by configure_optimizers"
        return optimizer

    def _means(self) -> dict[str, float]:
        """The step's sums over micro-batches as means over them and over ranks, which have equally many."""
        names = list(self._sums)
        values = torch.stack([self._sums[name].double() for name in names])
        add_over_ranks(values)
        count = self.config.trainer.accumulate * self.trainer.world_size
        return dict(zip(names, (values / count).tolist(), strict=True))

    def _new_counts(self) -> RoutingCounts:
        experts, layers = self.config.experts, self.config.model.layers
        return RoutingCounts(layers, experts.num_groups, experts.per_group, self.device)

    def _new_auxiliary(self) -> AuxiliaryLosses | None:
        if not self.config.experts.num_experts:
            return None
        names = LOSS_NAMES if self.config.router.kind == "two_level" else FLAT_LOSS_NAMES
        return AuxiliaryLosses(names, self.config.model.layers)

    def _auxiliary_means(self) -> dict[str, float]:
        """Auxiliary losses of the step over layers; those of each go to `layer_losses`. Collective."""
        if self.auxiliary is None:
            return {}
        losses = self.auxiliary.compute()
        self.layer_losses = {name: loss.layers.tolist() for name, loss in losses.items()}
        return {name: float(loss.overall) for name, loss in losses.items()}

    def _begin_step(self) -> None:
        self._sums = {}
        if self.auxiliary is not None:
            self.auxiliary.reset()
        self.recording = False
        self.step_counts.reset()
        self._shares.reset()

    def _add(self, name: str, value: Tensor) -> None:
        value = value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _auxiliary_losses(
        self, decisions: Sequence[RoutingDecision], weights: dict[str, float]
    ) -> dict[str, Tensor]:
        """Raw auxiliary losses, summed over layers; those of each layer go to `auxiliary`."""
        if self.auxiliary is None:
            return {}
        loss = self.config.loss
        shares: Sequence[Shares | None] = [None] * len(decisions)
        if loss.scope == "global_batch":
            shares = self._shares.update(decisions)
        elif self.mesh is not None:  # a micro-batch is spread over ranks: its shares are those of all
            self._shares.reset()
            shares = self._shares.update(decisions)
        totals: dict[str, Tensor] = {}
        by_layer: dict[str, list[Tensor]] = {name: [] for name in self.auxiliary.names}
        for decision, share in zip(decisions, shares, strict=True):
            layer = auxiliary_losses(
                decision,
                widths=self.config.experts.widths,
                interval=loss.width_interval,
                shares=share,
                with_gradient=[name for name, weight in weights.items() if weight > 0],
            )
            for name, value in layer.items():
                totals[name] = totals[name] + value if name in totals else value
                by_layer[name].append(value)
        self.auxiliary.update(by_layer, weights)
        return totals

    def _place(self, batch_idx: int) -> tuple[int, int]:
        """Steps done, and micro-batches of the step under way done."""
        return self.global_step, batch_idx % self.config.trainer.accumulate
