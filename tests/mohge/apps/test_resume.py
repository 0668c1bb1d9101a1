"""A run that was interrupted, however it was, continues as if it had not been."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import Forked, run_forked
from tiny_runs import read_metrics, tiny_run, write_corpus

from mohge.training.checkpoint import read_tensors

pytestmark = pytest.mark.slow

STEPS = 100
RUN = (f"trainer.max_steps={STEPS}", "trainer.val_every=7", "trainer.checkpoint_every=5")

ROUTING = "callbacks.routing={_target_:callbacks.RoutingCallback,tier:detailed,picture_every:1000}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that commands run in, with a corpus."""
    folder = tmp_path_factory.mktemp("work") / "runs"
    write_corpus(folder / "corpus")
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """An uninterrupted run."""
    assert run_forked("mohge-train", settings("paths.run_dir=whole"), folder).status == 0
    return folder / "whole"


@pytest.fixture
def stopped(folder: Path, tmp_path: Path) -> Path:
    """A run that was killed when checkpoints of at least steps 5 and 10 were there."""
    run = tmp_path / "stopped"
    command = Forked("mohge-train", settings(f"paths.run_dir={run}"), folder)
    interrupt(command, run, 17, signal.SIGKILL)
    assert command.wait().status == -signal.SIGKILL
    return run


def settings(*extra: str) -> list[str]:
    return [*tiny_run(Path("corpus"), Path("cache")), *RUN, "loss.scope=global_batch", *extra]


def interrupt(command: Forked, run: Path, after: int, number: int) -> None:
    """Send the signal once `after` steps are recorded."""
    deadline = time.monotonic() + 120
    while command.running and lines(run / "metrics.jsonl") < after:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    command.kill(number)


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def status(run: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((run / "status.json").read_text(encoding="utf-8"))
    return loaded


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step_*"))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_killed_at_ten_random_steps_repeats_the_uninterrupted_one_bit_for_bit(folder, accumulate):
    whole, killed = folder / f"whole_{accumulate}", folder / f"killed_{accumulate}"
    extra = (f"trainer.accumulate={accumulate}", ROUTING)
    assert run_forked("mohge-train", settings(*extra, f"paths.run_dir={whole.name}"), folder).status == 0
    arguments = settings(*extra, f"paths.run_dir={killed.name}")
    for step in sorted(random.Random(accumulate).sample(range(1, STEPS - 5), 10)):
        command = Forked("mohge-train", arguments, folder)
        interrupt(command, killed, step, signal.SIGKILL)
        assert command.wait().status == -signal.SIGKILL
        arguments = [f"resume={killed.name}"]
    assert run_forked("mohge-train", arguments, folder).status == 0

    records = read_metrics(killed)
    assert [record["step"] for record in records] == list(range(1, STEPS + 1))
    assert records == read_metrics(whole)
    assert sum("val/routing/churn" in record for record in records) == STEPS // 7, "all but the first look"
    for name in ("routing.jsonl", "routing_steps.jsonl", "routing_layers.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert [record["step"] for record in records if "val/loss" in record] == [*range(7, STEPS, 7), STEPS]
    assert status(killed)["state"] == "finished"
    first, second = (
        torch.load(checkpoints(run)[-1] / "state.ckpt", weights_only=True) for run in (whole, killed)
    )
    tensors = [read_tensors(checkpoints(run)[-1], "") for run in (whole, killed)]
    assert any(name.startswith("optimizer.") for name in tensors[0])
    torch.testing.assert_close(tensors[0], tensors[1], rtol=0, atol=0)
    assert torch.equal(first["mohge"]["random_state"]["torch"], second["mohge"]["random_state"]["torch"])
    for part in ("global_step", "TextDataModule"):
        assert first[part] == second[part]
    assert list(killed.rglob("*.tmp")) == [], "left behind by a killed process"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_saves_the_step_and_the_run_continues_from_it(folder, whole, tmp_path, number):
    run = tmp_path / "run"
    arguments = settings(f"paths.run_dir={run}", "trainer.checkpoint_every=1000")
    for step in (3, 31, 60):
        command = Forked("mohge-train", arguments, folder)
        interrupt(command, run, step, number)
        finished = command.wait()
        assert finished.status == 128 + number
        reached = status(run)["step"]
        assert f"{number.name} received: step {reached} is saved" in finished.stderr
        assert f"mohge-train resume={run}" in finished.stderr
        assert status(run)["state"] == "interrupted"
        assert checkpoints(run)[-1].name == f"step_{reached:08d}"
        arguments = [f"resume={run}"]
    assert run_forked("mohge-train", arguments, folder).status == 0
    assert read_metrics(run) == read_metrics(whole)


def test_of_a_damaged_checkpoint_the_one_before_is_used(folder, whole, stopped):
    older, newest = checkpoints(stopped)[-2:]
    state = newest / "state.ckpt"
    state.write_bytes(state.read_bytes()[:-1000])
    finished = run_forked("mohge-train", [f"resume={stopped}"], folder)
    assert finished.status == 0
    assert f"checkpoint {newest} is damaged" in finished.stdout + finished.stderr
    assert f"using {older}" in finished.stdout + finished.stderr
    assert read_metrics(stopped) == read_metrics(whole)


def test_when_every_checkpoint_is_damaged_the_run_is_left_as_it_is(folder, stopped):
    older, newest = checkpoints(stopped)[-2:]
    (newest / "manifest.json").unlink()
    (older / "state.ckpt").write_bytes(b"")
    before = (stopped / "metrics.jsonl").read_bytes()
    finished = run_forked("mohge-train", [f"resume={stopped}"], folder)
    assert finished.status == 2
    assert finished.stderr.startswith(f"error: checkpoint {newest} is damaged (manifest.json is missing); ")
    assert f"checkpoint {older} is damaged" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_is_told_to_be_finished_and_can_be_trained_longer(folder, tmp_path):
    run, longer = tmp_path / "run", tmp_path / "longer"
    constant_rate = ("optim.schedule=wsd", "optim.decay_fraction=0", "optim.warmup_fraction=0")
    short = settings(*constant_rate, "loss.group_start=0", "optim.final_lr=1")
    length = "trainer.max_tokens=2560"  # 20 steps of 4 * 32 tokens
    assert (
        run_forked("mohge-train", [*short, "trainer.max_steps=10", f"paths.run_dir={run}"], folder).status
        == 0
    )
    ended = (run / "metrics.jsonl").read_bytes()

    assert run_forked("mohge-train", [f"resume={run}"], folder).status == 0
    assert (run / "metrics.jsonl").read_bytes() == ended
    assert status(run)["state"] == "finished"

    assert run_forked("mohge-train", [f"resume={run}", length], folder).status == 0
    everything = [*short, "trainer.max_steps=null", length, f"paths.run_dir={longer}"]
    assert run_forked("mohge-train", everything, folder).status == 0
    losses, expected = (
        [(record["step"], record["train/loss"]) for record in read_metrics(path)] for path in (run, longer)
    )
    assert [step for step, _ in losses] == list(range(1, 21))
    assert losses == expected


def test_what_would_make_another_run_is_refused(folder, stopped):
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    for override in ("optim.lr=0.1", "model=tiny", "seed=1", "data.context=16"):
        finished = run_forked("mohge-train", [f"resume={stopped}", override], folder)
        assert finished.status == 2
        assert finished.stderr.startswith(f"error: {override} cannot change when a run continues: ")
        assert finished.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_a_corpus_that_has_changed_is_refused(folder, stopped):
    corpus = write_corpus(stopped.parent / "corpus")
    (corpus / "prose" / "new.txt").write_text("A sentence that was not there before. " * 50, encoding="utf-8")
    config = yaml.safe_load((stopped / "config.yaml").read_text(encoding="utf-8"))
    config["data"]["path"] = str(corpus)
    (stopped / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    finished = run_forked("mohge-train", [f"resume={stopped}"], folder)
    assert finished.status == 2
    assert "the checkpoint was trained with data.fingerprint=" in finished.stderr
    assert finished.stderr.count("\n") == 1
