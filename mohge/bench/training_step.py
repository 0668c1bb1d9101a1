"""One optimizer step as mohge-train makes it, without a corpus and without Lightning's loop around it.

Shapes: B batch, S sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from mohge.config.schema import OptimConfig, TrainConfig
from mohge.metrics import ActiveParameters
from mohge.parallel.mesh import Mesh
from mohge.training.module import LanguageModule
from mohge.training.optimizer import build_optimizer, lr_factor
from mohge.training.run_folder import RunFolder

STEPS = 10**6
"""Length of the imagined training: the rate is near 0 until the benchmark ends, and routing as at first."""


class TrainingStep:
    """Losses, backward pass, clipping, AdamW and its schedule, by the module that mohge-train runs.

    Args:
        config: what to train.
        device: where.
        mesh: of the ranks that make the step together, this process among them; None for one by itself.

    Attributes:
        module: the LightningModule.
    """

    def __init__(self, config: TrainConfig, device: torch.device, mesh: Mesh | None = None) -> None:
        self.module = LanguageModule(config, RunFolder(config.paths.output_dir), STEPS, mesh)
        if mesh is not None:
            # All that the module asks Lightning for until its first record.
            trainer: Any = SimpleNamespace(global_step=0, strategy=SimpleNamespace(root_device=device))
            self.module._trainer = trainer
        self.module.configure_model()
        self.module.to(device)
        self.module.on_fit_start()
        self.optimizer, self._schedule = optimizer_and_schedule(self.module.model, config.optim)
        self._precision = precision(config, device)
        self._accumulate = config.trainer.accumulate

    def __call__(self, micro_batches: Sequence[Tensor]) -> None:
        """Make a step.

        Args:
            micro_batches: `trainer.accumulate` of them, token ids (B, S + 1); in a mesh, this rank's part.

        Raises:
            RunError: the loss is not finite.
        """
        for number, tokens_BS in enumerate(micro_batches):
            self.forward(tokens_BS, number).backward()
        self.clip()
        self.update()

    def forward(self, tokens_BS: Tensor, number: int) -> Tensor:
        """Loss of the micro-batch of this number in the step."""
        with self._precision:
            return self.module.training_step({"tokens": tokens_BS}, number) / self._accumulate

    def drop_gradients(self) -> None:
        """Forget those of the last step."""
        self.optimizer.zero_grad()

    def clip(self) -> None:
        """Clip gradients by their norm."""
        self.module.configure_gradient_clipping(self.optimizer)

    def update(self) -> None:
        """Step of optimizer and schedule; gradients are dropped, as by the module."""
        self.optimizer.step()
        self.drop_gradients()
        self._schedule.step()

    @property
    def model(self) -> nn.Module:
        """The language model."""
        return self.module.model

    @property
    def loss(self) -> float:
        """Of the last step, auxiliary losses included: the mean over its micro-batches."""
        return float(self.module._sums["train/total_loss"]) / self._accumulate

    @property
    def routed_flops(self) -> float:
        """Of the routed rows of the last step, forward and backward."""
        config, counts = self.module.config, self.module.step_counts
        if not counts.tokens:
            return 0.0
        active = ActiveParameters(config).to(counts.expert_LE.device)
        active.update(counts)
        return 6 * float(active.compute().layers.sum()) * counts.tokens


class RandomBatches:
    """Micro-batches of a step with random token ids, new when renewed; a seed draws the same anywhere.

    Args:
        config: their number and sizes, and the seed.
        device: to draw them for.

    Attributes:
        current: `trainer.accumulate` of them, (B, S + 1).
    """

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self._shape = (config.data.batch_sequences, config.data.context + 1)
        self._vocab_size = config.model.vocab_size
        self._number = config.trainer.accumulate
        self._generator = torch.Generator().manual_seed(config.seed)
        self._device = device
        self.renew()

    def renew(self) -> None:
        """Draw the next step's."""
        self.current: list[Tensor] = [
            torch.randint(self._vocab_size, self._shape, generator=self._generator).to(self._device)
            for _ in range(self._number)
        ]


def optimizer_and_schedule(model: nn.Module, config: OptimConfig) -> tuple[torch.optim.AdamW, LambdaLR]:
    """As mohge-train makes them for a training of `STEPS`."""
    optimizer = build_optimizer(model, config)
    return optimizer, LambdaLR(optimizer, lambda step: lr_factor(step, STEPS, config))


def precision(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    """What `trainer.precision` puts around a forward pass; it can be entered again and again."""
    if config.trainer.precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()
