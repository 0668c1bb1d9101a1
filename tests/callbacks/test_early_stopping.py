"""When a run ends early, and that a stop does not change it."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
from benchmarks_targets import train_on_ranks
from composing import composed
from fabricated_runs import train_config
from fake_training import FakeModule, FakeTrainer
from lightning.pytorch.trainer.states import TrainerFn
from ranks_here import run_ranks
from tiny_runs import read_metrics, tiny_run, train_here, write_corpus

from callbacks import EarlyStoppingCallback
from mohge.apps.resume import continued_config
from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.training.run import train
from mohge.training.run_folder import RunFolder

# An improvement by 100 bits is the first validation alone.
NEVER_BETTER = "callbacks.early_stopping.min_change=100"
STEPS = ("trainer.max_steps=14", "trainer.val_every=2", "trainer.checkpoint_every=1")


def patience(number):
    return f"callbacks.early_stopping.patience={number}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    names = ("routing", "throughput", "alarms", "progress", "plots", "benchmarks")
    off = (f"callbacks.{name}=null" for name in names)
    return [*tiny_run(write_corpus(folder / "corpus"), folder / "cache"), *STEPS, "callbacks=default", *off]


@pytest.fixture(scope="module")
def ended(tiny, tmp_path_factory):
    """The folder of a run whose patience ran out at step 8: the best at 2, and three validations after it."""
    folder = tmp_path_factory.mktemp("ended") / "run"
    train_here(folder, *tiny, NEVER_BETTER, patience(3))
    return folder


class FailsAt(pl.Callback):
    """A machine that dies as step `step` + 1 begins."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise OSError("the machine is gone")


def go_on(folder, *overrides):
    """Continue a run here, as mohge-train resume= would; returns its status."""
    config = continued_config(typed(TrainConfig, composed(*overrides, f"resume={folder}")), list(overrides))
    return train(config, RunFolder(folder), list(overrides))


@pytest.mark.parametrize(
    ("min_change", "stops_at"),
    [(0.0, 6), (0.2, 5), (1.0, 3)],  # 3.9 again is none; nor is 3.9 after 4.0; nor are 4.25 and 4.0 after 5.0
)
def test_it_stops_after_so_many_validations_without_improvement(min_change, stops_at):
    config = train_config(patience(2), f"callbacks.early_stopping.min_change={min_change}")
    callback = EarlyStoppingCallback(config.callbacks.early_stopping, config)
    trainer, module = FakeTrainer(), FakeModule()
    trainer.callback_metrics, trainer.fast_dev_run, trainer.should_stop = {}, False, False
    trainer.current_epoch, trainer.state = 0, SimpleNamespace(fn=TrainerFn.FITTING)
    trainer.strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
    stops = []
    for bits in (5.0, 4.25, 4.0, 3.9, 4.1, 3.9, 4.0):
        module.record = {"val/bits_per_byte": bits}
        callback.on_validation_end(trainer, module)
        stops.append(trainer.should_stop)
    assert stops.index(True) + 1 == stops_at


def test_a_run_that_no_longer_learns_ends_as_a_finished_one(ended):
    records, status = read_metrics(ended), RunFolder(ended).read_status()
    assert [record["step"] for record in records] == list(range(1, 9))
    bits = {r["step"]: r["val/bits_per_byte"] for r in records if "val/bits_per_byte" in r}
    assert list(bits) == [2, 4, 6, 8]
    assert (status["state"], status["step"]) == ("finished", 8)
    assert status["checkpoints"][-1] == "checkpoints/step_00000008"
    reason = f"3 validations in a row found no better than {bits[2]:.4f} bits per byte"
    assert status["stopped_early"] == {"step": 8, "reason": reason}


def test_without_patience_every_step_is_trained_and_nothing_kept(tiny, tmp_path):
    assert len(train_here(tmp_path / "run", *tiny, NEVER_BETTER)) == 14
    assert RunFolder(tmp_path / "run").read_status()["stopped_early"] is None


def test_the_last_step_is_no_early_stop(tiny, tmp_path):
    """The patience runs out at the last step, which is an end like any other."""
    shorter = "trainer.max_steps=4"
    assert len(train_here(tmp_path / "run", *tiny, shorter, NEVER_BETTER, patience(1))) == 4
    assert RunFolder(tmp_path / "run").read_status()["stopped_early"] is None


def test_a_run_that_was_interrupted_stops_at_the_same_step(tiny, ended, tmp_path):
    run, overrides = RunFolder(tmp_path / "run"), [*tiny, NEVER_BETTER, patience(3)]
    config = typed(TrainConfig, composed(*overrides, f"paths.run_dir={run.path}"))
    watching = EarlyStoppingCallback(config.callbacks.early_stopping, config)
    with pytest.raises(OSError, match="machine is gone"):
        train(config, run, overrides, callbacks=[watching, FailsAt(5)])
    status = go_on(run.path)
    assert read_metrics(run.path) == read_metrics(ended)
    assert status["stopped_early"] == RunFolder(ended).read_status()["stopped_early"]


def test_an_ended_run_stays_ended_until_it_is_given_more_patience(tiny, tmp_path):
    run = tmp_path / "run"
    records = train_here(run, *tiny, NEVER_BETTER, patience(1))
    told = RunFolder(run).read_status()["stopped_early"]
    assert told["step"] == 4
    assert go_on(run)["stopped_early"] == told
    assert read_metrics(run) == records
    assert go_on(run, patience(3))["stopped_early"]["step"] == 8
    status = go_on(run, patience("null"))
    assert (status["step"], status["stopped_early"]) == (14, None)


@pytest.mark.slow
def test_ranks_stop_together(tiny, tmp_path):
    overrides = [*tiny, NEVER_BETTER, patience(1), "parallel=ddp"]
    records, nothing = run_ranks(train_on_ranks, 2, tmp_path / "run", overrides)
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert nothing == []
    assert RunFolder(tmp_path / "run").read_status()["stopped_early"]["step"] == 4
