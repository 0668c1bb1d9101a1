"""The little of a trainer and a module that callbacks look at."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class FakeTrainer:
    max_steps: int = 100
    global_step: int = 0
    sanity_checking: bool = False
    is_global_zero: bool = True
    loggers: list[Any] = field(default_factory=list)


@dataclass
class FakeModule:
    run: Any = None
    config: Any = None
    tokens_per_step: int = 1000
    recording: bool = False
    record: dict[str, float] = field(default_factory=dict)
    step_counts: Any = None
    val_routing: Any = None
    layer_losses: dict[str, list[float]] = field(default_factory=dict)


def train_steps(callback, trainer, module, steps, accumulate=1, log_every=10):
    """Call the callback as Lightning does, once per micro-batch; yields after each optimizer step."""
    for step in range(trainer.global_step + 1, trainer.global_step + steps + 1):
        for micro in range(accumulate):
            last = micro == accumulate - 1
            trainer.global_step = step if last else step - 1
            module.recording = last and step % log_every == 0
            callback.on_train_batch_end(trainer, module, None, None, micro)
        yield step


def validate(callback, trainer, module):
    """Call the callback as Lightning does around a validation."""
    callback.on_validation_start(trainer, module)
    callback.on_validation_end(trainer, module)
