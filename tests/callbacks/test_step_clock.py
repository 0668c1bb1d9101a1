"""Time charged to parts of a step, by hand and in Lightning's own loop; the clock moves only when told to."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from callbacks.step_clock import PARTS, StepClock, StepProfiler

NOTHING = dict.fromkeys(PARTS, 0.0)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def steps(clock):
    return StepClock(clock)


def spend(clock, steps, part, seconds):
    steps.enter(part)
    clock.now += seconds
    steps.leave()


def test_time_belongs_to_the_innermost_part_alone(clock, steps):
    spend(clock, steps, "data", 2)
    steps.enter("optimizer")
    clock.now += 1
    steps.enter("backward")
    clock.now += 3
    spend(clock, steps, "communication", 4)
    clock.now += 2
    steps.leave()
    clock.now += 1
    steps.leave()
    clock.now += 7
    seconds = {"data": 2, "optimizer": 2, "backward": 5, "communication": 4, "other": 7}
    assert steps.take_shares() == NOTHING | {part: spent / 20 for part, spent in seconds.items()}


def test_each_record_counts_what_came_after_the_one_before(clock, steps):
    steps.enter("logging")
    clock.now += 1
    assert steps.take_shares() == NOTHING | {"logging": 1}
    clock.now += 3
    steps.leave()
    spend(clock, steps, "forward", 1)
    assert steps.take_shares() == NOTHING | {"logging": 0.75, "forward": 0.25}


def test_pauses_and_what_is_left_out_count_nowhere(clock, steps):
    spend(clock, steps, "forward", 1)
    steps.enter("logging")
    steps.pause()
    clock.now += 50
    spend(clock, steps, "communication", 50)
    steps.resume()
    clock.now += 1
    steps.leave()
    profiler = StepProfiler(steps)
    with profiler.profile("[Callback]Checkpoints.on_train_batch_start"):
        clock.now += 2
        with profiler.profile("save_checkpoint"):
            clock.now += 50
            spend(clock, steps, "communication", 50)
            with profiler.profile("[Callback]RecordWriter.on_save_checkpoint"):
                clock.now += 50
    assert steps.take_shares() == NOTHING | {"forward": 0.25, "logging": 0.75}


class Texts(Dataset):
    def __init__(self, clock):
        self.clock = clock

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.clock.now += 1
        return torch.ones(1)


class Toy(pl.LightningModule):
    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch, batch_idx):
        self.clock.now += 3
        return (self.weight * batch).sum()

    def backward(self, loss):
        loss.backward()
        self.clock.now += 5

    def configure_gradient_clipping(self, *args, **kwargs):
        self.clock.now += 4

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.clock.now += 2

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.clock.now += 7

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Watcher(pl.Callback):
    def __init__(self, clock):
        self.clock = clock

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.clock.now += 11

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.clock.now += 13


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_names_every_part(clock, steps, tmp_path, accumulate):
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        callbacks=[Watcher(clock)],
        profiler=StepProfiler(steps),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Toy(clock), DataLoader(Texts(clock), batch_size=1))
    batches, updates = 8, 8 // accumulate
    seconds = {
        "data": 1 * batches,
        "forward": 3 * batches,
        "backward": 5 * batches,
        "optimizer": (4 + 2) * updates,
        "logging": 11 * batches + 13 * updates,
        "other": 7 * batches,
    }
    total = sum(seconds.values())
    expected = NOTHING | {part: spent / total for part, spent in seconds.items()}
    assert steps.take_shares() == pytest.approx(expected)
