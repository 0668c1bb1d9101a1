import statistics
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from fabricated_runs import train_config
from fake_training import FakeModule, FakeTrainer, train_steps, validate
from ranks_here import run_ranks
from throughput_targets import late_ranks, slow_windows
from tiny_runs import tiny_run, train_here, write_corpus

from callbacks import ThroughputCallback
from callbacks.machine_peak import matmul_peak, peak_bytes
from callbacks.pace import Pace
from callbacks.step_clock import PARTS, StepClock
from datamodules.windows import TrainWindows
from mohge.budget import budget

CPU = torch.device("cpu")
PEAK = 1e9
SHARES = [f"time/{part}_share" for part in PARTS]


@dataclass
class Trainer(FakeTrainer):
    world_size: int = 1
    profiler: Any = "Lightning's own"


@dataclass
class Module(FakeModule):
    device: torch.device = field(default=CPU)


@pytest.fixture
def now(monkeypatch):
    """The time in seconds, as a list of one entry that a test moves."""
    now = [0.0]
    monkeypatch.setattr("callbacks.throughput.Pace", lambda: Pace(clock=lambda: now[0]))
    monkeypatch.setattr("callbacks.throughput.StepClock", lambda: StepClock(clock=lambda: now[0]))
    monkeypatch.setattr("callbacks.throughput.matmul_peak", lambda dtypes, device: PEAK)
    return now


@pytest.fixture
def config():
    return train_config()


@pytest.fixture
def callback(config):
    return ThroughputCallback(config.callbacks.throughput, config)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run that measures its speed."""
    folder = tmp_path_factory.mktemp("tiny")
    return [*tiny_run(write_corpus(folder / "corpus"), folder / "cache"), "callbacks=default"]


def test_micro_batches_are_no_steps_and_validation_is_left_out(callback, now):
    trainer, module = Trainer(), Module(tokens_per_step=600)
    callback.on_train_start(trainer, module)
    steps = train_steps(callback, trainer, module, 10, accumulate=4)
    now[0] = 2.0
    for step in steps:
        now[0] += 2.0 if step < 10 else 0
        if step == 5:
            callback.on_validation_start(trainer, module)
            now[0] += 1000
            callback.on_validation_end(trainer, module)
    assert module.record["speed/seconds_per_step"] == 2.0
    assert module.record["speed/tokens_per_second"] == 300.0


@pytest.mark.parametrize("ranks", [1, 4])
def test_flops_are_those_measured_and_the_peak_is_that_of_all_ranks(callback, config, now, ranks):
    trainer, module = Trainer(world_size=ranks), Module(tokens_per_step=600)
    callback.on_train_start(trainer, module)
    for _ in train_steps(callback, trainer, module, 9):
        now[0] += 2
    now[0] += 2
    module.record = {"routing/flops_per_token": 5e5}
    for _ in train_steps(callback, trainer, module, 1):
        pass
    callback.on_train_end(trainer, module)
    # 300 tokens a second of half a million operations each.
    assert module.record["speed/flops_per_second"] == 1.5e8
    assert module.record["speed/peak_share"] == pytest.approx(0.15 / ranks)


def test_a_peak_that_a_run_beats_is_measured_again(callback, now, monkeypatch):
    """The first is of a busy machine; one that stays too low is believed in the end."""
    peaks = iter([1e8, 2e8, 1e9])
    monkeypatch.setattr("callbacks.throughput.matmul_peak", lambda dtypes, device: next(peaks, 1e9))
    trainer, module = Trainer(), Module(tokens_per_step=600)
    callback.on_train_start(trainer, module)
    module.record = {"routing/flops_per_token": 1e6}
    shares = []
    now[0] += 2
    for _ in train_steps(callback, trainer, module, 4, log_every=1):
        shares.append(module.record["speed/peak_share"])
        now[0] += 2  # 300 tokens a second, 3e8 operations
    assert shares == pytest.approx([1.5, 0.3, 0.3, 0.3])
    assert next(peaks, None) is None, "each was asked for"


def test_without_measured_flops_the_budget_counts(callback, config, now):
    trainer, module = Trainer(), Module(tokens_per_step=600)
    callback.on_train_start(trainer, module)
    now[0] = 1
    for _ in train_steps(callback, trainer, module, 1, log_every=1):
        pass
    assert module.record["speed/flops_per_second"] == 600 * budget(config).flops_per_token.train


def test_nothing_is_recorded_between_log_steps(callback, now):
    trainer, module = Trainer(), Module()
    callback.on_train_start(trainer, module)
    for _ in train_steps(callback, trainer, module, 9):
        now[0] += 1
    assert module.record == {}


def test_a_resumed_run_counts_its_own_steps(callback, now):
    trainer, module = Trainer(global_step=50), Module(tokens_per_step=100)
    callback.on_train_start(trainer, module)
    now[0] = 1.0
    for _ in train_steps(callback, trainer, module, 10):
        now[0] += 1
    assert module.record["speed/seconds_per_step"] == 1


def test_a_validation_before_training_is_ignored(callback, now):
    trainer = Trainer(sanity_checking=True)
    validate(callback, trainer, Module())


@pytest.mark.parametrize("end", ["on_train_end", "on_exception"])
def test_all_is_watched_from_start_to_end_of_training_and_no_longer(callback, now, end):
    trainer, module, wait = Trainer(world_size=2), Module(), torch.distributed.Work.wait
    callback.on_train_start(trainer, module)
    assert trainer.profiler != "Lightning's own"
    assert torch.distributed.Work.wait is not wait
    getattr(callback, end)(trainer, module, *([RuntimeError()] if end == "on_exception" else []))
    assert trainer.profiler == "Lightning's own"
    assert torch.distributed.Work.wait is wait


def test_the_peak_is_measured_without_drawing_from_the_run():
    before = torch.get_rng_state()
    for dtypes in ([torch.float32], [torch.bfloat16, torch.float32]):
        assert 1e9 < matmul_peak(dtypes, CPU) < 1e14
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("precision", "dtypes"), [("fp32", {torch.float32}), ("bf16", {torch.bfloat16, torch.float32})]
)
def test_the_peak_is_of_what_the_run_may_compute_in(monkeypatch, precision, dtypes):
    tried = []
    monkeypatch.setattr(
        "callbacks.throughput.matmul_peak", lambda dtypes, device: tried.extend(dtypes) or PEAK
    )
    config = train_config(f"trainer.precision={precision}")
    callback, trainer = ThroughputCallback(config.callbacks.throughput, config), Trainer()
    callback.on_train_start(trainer, Module())
    callback.on_train_end(trainer, Module())
    assert set(tried) == dtypes


def test_memory_is_that_of_the_whole_process():
    held = torch.ones(60_000_000)  # 240 MB
    assert held.nbytes < peak_bytes(CPU) < 2**40


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_parts_of_a_real_step_sum_to_one(tiny, tmp_path, accumulate):
    steps = ("trainer.max_steps=15", "trainer.val_every=3", f"trainer.accumulate={accumulate}")
    records = train_here(tmp_path, *tiny, *steps)
    for record in records:
        assert sum(record[share] for share in SHARES) == pytest.approx(1, abs=1e-12)
        for part in ("data", "forward", "backward", "optimizer", "logging"):
            assert record[f"time/{part}_share"] > 0, part
        assert record["time/communication_share"] == 0
        assert 0 < record["speed/peak_share"] < 1
        assert record["memory/peak_bytes"] > 1e8
    # Of steps of milliseconds: in one of them the machine may have done something else.
    assert statistics.median(record["time/other_share"] for record in records) < 0.3


def test_waiting_for_data_is_told_as_such(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainWindows, "__getitem__", slow_windows(0.1))
    *_, last = train_here(tmp_path, *tiny, "trainer.max_steps=6", "trainer.val_every=100")
    # Four windows a step, a tenth of a second each; the step itself takes some hundredths.
    data = last["time/data_share"] * last["speed/seconds_per_step"]
    assert data == pytest.approx(0.4, rel=0.3)
    assert last["time/data_share"] > 0.5


@pytest.mark.slow
def test_waiting_for_a_late_rank_is_communication(tiny, tmp_path):
    (records, _) = run_ranks(late_ranks, 2, [*tiny, "trainer.max_steps=6"], tmp_path, 0.1)
    last = records[-1]
    assert last["time/communication_share"] > 0.5
    assert sum(last[share] for share in SHARES) == pytest.approx(1, abs=1e-12)
    assert last["time/data_share"] < 0.1
