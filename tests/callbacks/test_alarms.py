"""Alarms of real runs, and where they are told."""

import json
import logging

import pytest
from fabricated_runs import train_config
from fake_training import FakeModule, FakeTrainer, train_steps
from throughput_targets import slow_windows
from tiny_runs import tiny_run, train_here, write_corpus

from callbacks import AlarmsCallback
from callbacks.alarm_rules import IN_A_ROW, SETTLING
from callbacks.tracking import TrackingLogger
from datamodules.windows import TrainWindows
from mohge.errors import RunError
from mohge.training.run_folder import RunFolder


class Tags(TrackingLogger):
    """A logger that keeps tags to itself."""

    def __init__(self):
        self.tags = {}

    def set_tag(self, name, value):
        self.tags[name] = value


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return [*tiny_run(write_corpus(folder / "corpus"), folder / "cache"), "callbacks=default"]


@pytest.fixture
def callback():
    config = train_config()
    return AlarmsCallback(config.callbacks.alarms, config)


def read_alarms(run):
    return [json.loads(line) for line in run.alarms_path.read_text(encoding="utf-8").splitlines()]


def test_an_alarm_is_a_warning_a_line_and_a_tag(callback, tmp_path, caplog):
    logger, run = Tags(), RunFolder(tmp_path)
    trainer, module = FakeTrainer(max_steps=1000, loggers=[logger, object()]), FakeModule(run=run)
    callback.on_train_start(trainer, module)
    module.record = {"routing/dead_experts": 2.0}
    for _ in train_steps(callback, trainer, module, 400, accumulate=2):
        pass
    (alarm,) = read_alarms(run)
    text, step = alarm.pop("text"), 50 + SETTLING + 10 * IN_A_ROW  # a twentieth of the steps is warm-up
    assert alarm == {"step": step, "tokens": 1000 * step, "kind": "idle_experts"}
    assert logger.tags == {"alarm.idle_experts": f"step {step}: {text}"}
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, f"alarm at step {step}: {text}")
    ]


def test_a_failure_of_another_kind_is_no_alarm(callback, tmp_path):
    module = FakeModule(run=RunFolder(tmp_path))
    callback.on_exception(FakeTrainer(), module, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_noticed_once(tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(TrainWindows, "__getitem__", slow_windows(0.01))
    train_here(tmp_path, *tiny, "trainer.max_steps=12", "trainer.val_every=100")
    (alarm,) = read_alarms(RunFolder(tmp_path))
    assert (alarm["kind"], alarm["step"]) == ("loader_stall", IN_A_ROW)
    assert "raise data.workers (0)" in alarm["text"]
    assert f"alarm at step {IN_A_ROW}: {alarm['text']}" in caplog.messages


@pytest.mark.parametrize("stopped_after", [IN_A_ROW - 2, IN_A_ROW + 2])
def test_a_continued_run_is_told_what_an_unbroken_one_is(tiny, tmp_path, monkeypatch, stopped_after):
    monkeypatch.setattr(TrainWindows, "__getitem__", slow_windows(0.01))
    train_here(tmp_path, *tiny, f"trainer.max_steps={stopped_after}")
    train_here(tmp_path, *tiny, "trainer.max_steps=14", f"resume={tmp_path}")
    alarms = read_alarms(RunFolder(tmp_path))
    assert [(alarm["kind"], alarm["step"]) for alarm in alarms] == [("loader_stall", IN_A_ROW)]


def test_a_loss_that_is_not_finite_is_noted_before_the_run_ends(tiny, tmp_path):
    steep = ("optim.lr=1e30", "optim.warmup_fraction=0", "trainer.clip=null", "trainer.max_steps=20")
    with pytest.raises(RunError) as caught:
        train_here(tmp_path, *tiny, *steep)
    run = RunFolder(tmp_path)
    alarm = read_alarms(run)[-1]
    assert alarm["kind"] == "non_finite"
    assert alarm["text"] == str(caught.value)
    assert alarm["step"] == run.read_status()["step"] + 1
    assert "try a lower optim.lr" in alarm["text"]
