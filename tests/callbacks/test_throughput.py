import pytest
from fabricated_runs import train_config
from fake_training import FakeModule, FakeTrainer, train_steps, validate

from callbacks import ThroughputCallback
from callbacks.pace import Pace


@pytest.fixture
def now(monkeypatch):
    """The time in seconds, as a list of one entry that a test moves."""
    now = [0.0]
    monkeypatch.setattr("callbacks.throughput.Pace", lambda: Pace(clock=lambda: now[0]))
    return now


@pytest.fixture
def callback():
    config = train_config()
    return ThroughputCallback(config.callbacks.throughput, config)


def test_micro_batches_are_no_steps_and_validation_is_left_out(callback, now):
    trainer, module = FakeTrainer(), FakeModule(tokens_per_step=600)
    callback.on_train_start(trainer, module)
    steps = train_steps(callback, trainer, module, 10, accumulate=4)
    now[0] = 2.0
    for step in steps:
        now[0] += 2.0 if step < 10 else 0
        if step == 5:
            callback.on_validation_start(trainer, module)
            now[0] += 1000
            callback.on_validation_end(trainer, module)
    assert module.record == {"speed/seconds_per_step": 2.0, "speed/tokens_per_second": 300.0}


def test_nothing_is_recorded_between_log_steps(callback, now):
    trainer, module = FakeTrainer(), FakeModule()
    callback.on_train_start(trainer, module)
    for _ in train_steps(callback, trainer, module, 9):
        now[0] += 1
    assert module.record == {}


def test_a_resumed_run_counts_its_own_steps(callback, now):
    trainer, module = FakeTrainer(global_step=50), FakeModule(tokens_per_step=100)
    callback.on_train_start(trainer, module)
    now[0] = 1.0
    for _ in train_steps(callback, trainer, module, 10):
        now[0] += 1
    assert module.record["speed/seconds_per_step"] == 1


def test_a_validation_before_training_is_ignored(callback, now):
    trainer = FakeTrainer(sanity_checking=True)
    validate(callback, trainer, FakeModule())
