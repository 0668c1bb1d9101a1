"""The writer's promises, with an MLflow that is made up: it waits, refuses, or is away."""

import errno
import itertools
import socket
import sqlite3
import threading
import time
import warnings

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import OperationalError

from callbacks.tracking import writer as writer_module
from callbacks.tracking.store import may_pass
from callbacks.tracking.writer import Writer, whole_steps


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(writer_module, "_EVERY", 0.02)
    monkeypatch.setattr(writer_module, "_AGAIN", 0.01)


def step(number, values=3):
    return [Metric(f"m{index}", float(number), 0, number) for index in range(values)]


class Sink:
    """An MLflow that fails as told: one error for each of the next calls, None for success."""

    def __init__(self, *errors):
        self.errors = iter(errors)
        self.batches = []

    def __call__(self, metrics):
        error = next(self.errors, None)
        if error is not None:
            raise error
        self.batches.append([(metric.key, metric.step) for metric in metrics])

    @property
    def taken(self):
        return list(itertools.chain.from_iterable(self.batches))


def expected(*numbers, values=3):
    return [(f"m{index}", number) for number in numbers for index in range(values)]


def test_everything_arrives_in_order_and_in_few_requests():
    sink = Sink()
    writer = Writer(sink)
    for number in range(1000):
        writer.add_metrics(step(number))
    writer.drain()
    assert sink.taken == expected(*range(1000))
    assert 3 <= len(sink.batches) < 40


def test_a_request_holds_whole_steps_of_at_most_a_thousand_values():
    groups = list(whole_steps([step(1, 600), step(2, 400), step(3, 1), step(4, 1200), step(5, 1)]))
    assert [[len(part) for part in group] for group in groups] == [[600, 400], [1], [1200], [1]]


def test_a_step_of_more_values_than_a_request_takes_is_split():
    sink = Sink()
    writer = Writer(sink)
    writer.add_metrics(step(1, 2500))
    writer.drain()
    assert [len(batch) for batch in sink.batches] == [1000, 1000, 500]


def test_logging_does_not_wait_for_a_store_that_hangs():
    release = threading.Event()
    taken = []

    def hang(metrics):
        release.wait()
        taken.extend((metric.key, metric.step) for metric in metrics)

    writer = Writer(hang)
    writer.add_metrics(step(0))
    time.sleep(0.1)
    started = time.monotonic()
    for number in range(1, 200):
        writer.add_metrics(step(number))
        writer.add_call("tag", lambda: None)
    assert time.monotonic() - started < 0.5
    assert taken == []
    release.set()
    writer.drain()
    assert len(taken) == 600


def test_a_store_that_was_away_gets_all_when_it_is_back_and_the_user_one_warning():
    sink = Sink(*[ConnectionError("connection refused")] * 4)
    writer = Writer(sink)
    writer.add_metrics(step(1))
    writer.add_metrics(step(2))
    with pytest.warns(UserWarning, match="connection refused") as told:
        writer.drain()
    assert sink.taken == expected(1, 2)
    assert [str(item.message) for item in told] == [
        "MLflow did not take metrics: connection refused; it is tried again until the run ends"
    ]


def test_what_is_refused_for_good_is_told_once_and_holds_up_nothing():
    refusal = MlflowException("no such thing", error_code=INVALID_PARAMETER_VALUE)
    sink = Sink(refusal)
    done = []
    writer = Writer(sink)
    writer.add_metrics(step(1))
    writer.add_call("plots", lambda: open("/no/such/plots").close())
    writer.add_call("tag", lambda: done.append("tag"))
    with pytest.warns(UserWarning, match="did not take") as told:
        writer.drain()
    writer.add_metrics(step(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.drain()
    assert done == ["tag"]
    assert sink.taken == expected(2)
    assert [str(item.message).partition(":")[0] for item in told] == [
        "MLflow did not take metrics",
        "MLflow did not take plots",
    ]


def test_an_end_that_nothing_takes_is_given_up_with_a_count(monkeypatch):
    monkeypatch.setattr(writer_module, "_PATIENCE", 0.2)
    writer = Writer(Sink(*[OSError("database is locked")] * 10_000))
    writer.add_metrics(step(1))
    writer.add_call("the end of the run", lambda: None)
    with pytest.warns(UserWarning, match=r"MLflow misses 4 values of this run; metrics\.jsonl has all"):
        writer.drain()


def test_patience_counts_from_the_last_success_not_from_the_end(monkeypatch):
    """A slow store that takes one batch after another keeps being waited for."""
    monkeypatch.setattr(writer_module, "_PATIENCE", 0.3)
    taken = []

    def slow(metrics):
        time.sleep(0.1)
        if len(taken) % 2:
            taken.append(None)
            raise OSError("database is locked")
        taken.append(metrics[0].step)

    writer = Writer(slow)
    for number in range(6):
        writer.add_metrics(step(number, 1000))
    with pytest.warns(UserWarning, match="tried again"):
        writer.drain()
    assert [number for number in taken if number is not None] == list(range(6))


def test_memory_is_bounded_by_dropping_the_oldest(monkeypatch):
    monkeypatch.setattr(writer_module, "_MOST_METRICS", 30)
    release = threading.Event()
    taken = []

    def hang(metrics):
        release.wait()
        taken.extend(metric.step for metric in metrics[::3])

    writer = Writer(hang)
    writer.add_metrics(step(0))
    time.sleep(0.1)  # it is being sent
    for number in range(1, 101):
        writer.add_metrics(step(number))
    release.set()
    with pytest.warns(UserWarning, match="MLflow misses 273 values"):
        writer.drain()
    assert taken == [0, *range(91, 101)]


def test_it_can_be_drained_when_empty_and_again():
    sink = Sink()
    writer = Writer(sink)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.drain()
        writer.add_metrics(step(1))
        writer.drain()
        writer.drain()
    assert sink.taken == expected(1)
    assert not [thread for thread in threading.enumerate() if thread.name == "mlflow-writer"]


def test_a_server_that_is_away_may_come_back_and_a_wrong_request_stays_wrong(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = MlflowClient(f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(MlflowException) as away:
            client.get_run("0" * 32)
    assert may_pass(away.value)
    assert may_pass(OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked")))
    assert may_pass(OSError(errno.ENOSPC, "no space left on device"))
    assert not may_pass(MlflowException("no such thing", error_code=INVALID_PARAMETER_VALUE))
    assert not may_pass(FileNotFoundError("plots"))
    assert not may_pass(TypeError("a mistake of ours"))


def test_whoever_cannot_wait_long_leaves_the_rest_to_the_thread():
    away = threading.Event()
    taken = []

    def send(metrics):
        if not away.is_set():
            raise ConnectionError("connection refused")
        taken.extend((metric.key, metric.step) for metric in metrics)

    writer = Writer(send)
    writer.add_metrics(step(1))
    with pytest.warns(UserWarning, match="connection refused"):
        writer.drain(at_most=0.1)
    assert taken == []
    away.set()
    writer.add_metrics(step(2))
    writer.drain()
    assert taken == expected(1, 2)


def test_a_store_that_stays_away_is_waited_for_once(monkeypatch):
    monkeypatch.setattr(writer_module, "_PATIENCE", 1.0)
    writer = Writer(Sink(*[ConnectionError("connection refused")] * 1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer.add_metrics(step(1))
        writer.drain()
        begun = time.monotonic()
        writer.add_metrics(step(2))
        writer.drain()
    assert time.monotonic() - begun < 0.75
