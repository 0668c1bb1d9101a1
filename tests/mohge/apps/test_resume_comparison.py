"""A comparison that was interrupted continues as a whole, from any folder."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from commands import Forked, run_forked
from tiny_runs import TINY_MODEL, read_metrics, tiny_data, write_corpus

pytestmark = pytest.mark.slow

ARMS = ("mohge", "moe")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    write_corpus(folder / "corpus")
    return folder


def settings(run_dir: str) -> list[str]:
    lengths = ("trainer.max_steps=60", "trainer.val_every=20", "trainer.checkpoint_every=10")
    data = tiny_data(Path("corpus"), Path("cache"))
    quiet = ("logger=none", "callbacks=none", "trainer.log_every=1")
    return ["experiment=quickstart", *TINY_MODEL, *data, *lengths, *quiet, f"paths.run_dir={run_dir}"]


@pytest.mark.parametrize("stopped_arm", ARMS)
def test_a_stopped_comparison_ends_as_an_uninterrupted_one(folder, tmp_path, stopped_arm):
    assert run_forked("mohge-train", settings("whole"), folder).status == 0
    command = Forked("mohge-train", settings("stopped"), folder)
    metrics = folder / "stopped" / stopped_arm / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while command.running and not (metrics.exists() and metrics.read_bytes().count(b"\n") > 10):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    command.kill(signal.SIGTERM)
    finished = command.wait()
    assert finished.status == 143
    stopped = folder / "stopped"
    assert f"the whole comparison continues with mohge-train resume={stopped.relative_to(folder)}" in (
        finished.stderr
    )
    assert json.loads((stopped / "status.json").read_text(encoding="utf-8"))["state"] == "interrupted"

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    finished = run_forked("mohge-train", [f"resume={stopped}"], elsewhere)
    assert finished.status == 0, finished.stderr
    assert ("mohge: finished before" in finished.stdout) == (stopped_arm == "moe")
    for arm in ARMS:
        assert read_metrics(stopped / arm) == read_metrics(folder / "whole" / arm)
    assert (stopped / "comparison.json").is_file()
    assert json.loads((stopped / "status.json").read_text(encoding="utf-8"))["state"] == "finished"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("parallel", [[], ["parallel=single", "trainer.devices=1"]])
def test_changes_of_a_continuation_hold_for_all_arms_and_for_the_next_one(folder, parallel):
    """Also for arms that had not begun, whose command line had another length, or another mesh."""
    run = folder / "run"
    begun = settings("run") + (["parallel=ep", "trainer.devices=2"] if parallel else [])
    stop_in(run / ARMS[0], Forked("mohge-train", begun, folder))
    longer = [f"resume={run}", "trainer.max_tokens=11264", *parallel]  # 88 steps of 4 sequences of 32 tokens
    stop_in(run / ARMS[0], Forked("mohge-train", longer, folder))
    finished = run_forked("mohge-train", [f"resume={run}"], folder)
    assert finished.status == 0, finished.stderr
    steps = {arm: read_metrics(run / arm)[-1]["step"] for arm in ARMS}
    assert steps == dict.fromkeys(ARMS, 88)
    again = run_forked("mohge-train", [f"resume={run}"], folder)
    assert [f"{arm}: finished before" in again.stdout for arm in ARMS] == [True, True]
    longest = run_forked("mohge-train", [f"resume={run}", "trainer.max_steps=90"], folder)
    assert longest.status == 0, longest.stderr
    assert {read_metrics(run / arm)[-1]["step"] for arm in ARMS} == {90}


def stop_in(arm: Path, command: Forked) -> None:
    """Stops it by SIGTERM once this arm has gone on by some steps."""
    metrics = arm / "metrics.jsonl"
    before = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    deadline = time.monotonic() + 120
    while command.running and not (metrics.exists() and metrics.read_bytes().count(b"\n") > before + 5):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    command.kill(signal.SIGTERM)
    assert command.wait().status == 143
