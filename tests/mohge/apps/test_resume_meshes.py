"""A run that is stopped and continued in other meshes is the run of one process that was never stopped."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Forked, run_forked
from composing import composed
from refusals import assert_refused, contents
from tiny_runs import read_metrics, tiny_run, write_corpus

from mohge.apps.resume import continued_config
from mohge.config.load import as_dict, typed
from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.parallel.sizes import MeshSizes, mesh_sizes
from mohge.training.run_folder import RunFolder

STEPS, LONGER = 24, 30
RUN = (
    *("trainer.accelerator=cpu", "trainer.log_every=2", "trainer.val_every=6", "trainer.keep_checkpoints=1"),
    # a schedule that does not depend on the run's length
    *("optim.schedule=wsd", "optim.decay_fraction=0", "optim.warmup_fraction=0", "loss.group_start=0"),
)


def stop(folder: Path, arguments: list[str], after: int, ranks: int) -> int:
    """Train in the folder's run until so many records are there, then SIGTERM; the step that was saved."""
    run = folder / "run"
    command = Forked("mohge-train", arguments, folder)
    deadline = time.monotonic() + 120
    metrics = run / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < after:
        assert command.running, command.wait()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    command.kill(signal.SIGTERM)
    finished = command.wait()
    assert finished.status == 128 + signal.SIGTERM
    status = RunFolder(run).read_status()
    (saved,) = (run / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step_"))
    assert finished.stderr == (
        f"SIGTERM received: step {step} is saved; continue with mohge-train resume={run}\n"
    )
    assert status["state"] == "interrupted"
    assert status["checkpoints"] == [f"checkpoints/{saved.name}"]
    assert len(list(saved.glob("*.safetensors"))) == ranks, "each rank saved this step"
    return step


@pytest.mark.slow
def test_stopped_and_continued_on_four_ranks_one_and_two(tmp_path):
    folder = tmp_path / "work"
    write_corpus(folder / "corpus")
    settings = [*tiny_run(Path("corpus"), Path("cache")), *RUN]
    whole = [*settings, f"trainer.max_steps={LONGER}", "paths.run_dir=whole"]
    assert run_forked("mohge-train", whole, folder).status == 0

    tracked = [*settings, "logger=mlflow", f"logger.tracking_uri=sqlite:///{folder}/mlflow.db"]
    mesh = ["parallel=fsdp_ep", "trainer.devices=4"]
    start = [*tracked, *mesh, f"trainer.max_steps={STEPS}", "paths.run_dir=run"]
    first = stop(folder, start, after=3, ranks=4)
    second = stop(folder, ["resume=run", "parallel=single"], after=first // 2 + 2, ranks=1)
    third = run_forked("mohge-train", ["resume=run", "parallel=ep", "trainer.devices=2"], folder)
    assert third.status == 0, third.stderr
    # It goes on in the mesh that it had last, from a state that was saved right after a validation.
    last = run_forked("mohge-train", ["resume=run", f"trainer.max_steps={LONGER}"], folder)
    assert last.status == 0, last.stderr

    run = folder / "run"
    records, expected = read_metrics(run), read_metrics(folder / "whole")
    assert [record["step"] for record in records] == list(range(2, LONGER + 1, 2))
    for record, other in zip(records, expected, strict=True):
        assert other.keys() <= record.keys()
        for name in ("train/loss", "train/grad_norm", "train/lr", "aux/intra", "val/loss"):
            assert record.get(name) == pytest.approx(other.get(name), abs=1e-5), (record["step"], name)

    loads = [json.loads(line) for line in (run / "rank_load.jsonl").read_text(encoding="utf-8").splitlines()]
    trained = dict.fromkeys(range(1, first + 1), 4) | dict.fromkeys(range(second + 1, LONGER + 1), 2)
    assert {load["step"]: len(load["rows"]) for load in loads} == trained
    assert len(loads) == len(trained)

    status = RunFolder(run).read_status()
    assert status["state"] == "finished"
    assert status["step"] == LONGER
    assert status["mesh"] == {"dp_replicate": 1, "dp_shard": 1, "expert_parallel": 2}
    assert len((run / "resumes.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    with sqlite3.connect(folder / "mlflow.db") as store:
        tracked_runs = store.execute("select run_uuid, status from runs").fetchall()
    assert tracked_runs == [(status["mlflow_run_id"], "FINISHED")]


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a run leaves of its configuration: 2 experts of a width, 4 sequences, 2 ranks."""
    monkeypatch.chdir(tmp_path)
    tiny = tiny_run(Path("corpus"), Path("cache"))
    config = typed(TrainConfig, composed(*tiny, "parallel=ep", "trainer.devices=2", "paths.run_dir=run"))
    RunFolder("run").write_config(as_dict(config))
    return tmp_path


def continued(*overrides: str) -> TrainConfig:
    config = typed(TrainConfig, composed("resume=run", *overrides))
    return continued_config(config, ["resume=run", *overrides])


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("overrides", "mesh"),
    [
        ([], (1, 1, 2)),
        (["trainer.devices=1"], (1, 1, 1)),
        (["trainer.devices=4", "parallel.dp_replicate=2"], (2, 1, 2)),
        (["parallel.expert_parallel=2", "trainer.devices=null"], (1, 1, 2)),
        (["parallel=single"], (1, 1, 1)),
        (["parallel=ddp", "trainer.devices=4"], (4, 1, 1)),
        (["trainer.devices=4", "parallel=fsdp_ep"], (1, 2, 2)),
    ],
)
def test_the_mesh_is_that_of_the_folder_with_what_the_command_line_changes(overrides, mesh):
    config = continued(*overrides)
    assert mesh_sizes(config) == MeshSizes(*mesh)
    assert config.resume == "run"


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize(
    ("ranks", "overrides", "mesh"),
    [(2, [], (1, 1, 2)), (4, ["parallel=ddp"], (4, 1, 1)), (1, ["parallel=single"], (1, 1, 1))],
)
def test_under_torchrun_too(monkeypatch, ranks, overrides, mesh):
    launched: dict[str, Any] = {"RANK": 0, "WORLD_SIZE": ranks, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": ranks}
    for name, number in launched.items():
        monkeypatch.setenv(name, str(number))
    assert mesh_sizes(continued(*overrides)) == MeshSizes(*mesh)


@pytest.mark.usefixtures("stored")
def test_another_number_of_ranks_under_torchrun_is_refused_with_what_would_do(monkeypatch):
    for name, number in {"RANK": 0, "WORLD_SIZE": 4, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(number))
    with pytest.raises(UserError, match=r"^trainer.devices=2 disagrees .* use trainer.devices=4$"):
        continued()
    with pytest.raises(UserError, match=r"^parallel.expert_parallel=4 does not divide experts.per_group=2"):
        continued("trainer.devices=4")


@pytest.mark.parametrize(
    ("overrides", "fragments"),
    [
        ("parallel.expert_parallel=3", ["=3 does not fit trainer.devices=2: use parallel.expert_parallel=2"]),
        (
            "parallel=ep trainer.devices=4",
            ["experts.per_group=2", "use trainer.devices=1 or 2, or parallel="],
        ),
        ("parallel=ddp trainer.devices=8", ["data.batch_sequences=4", "trainer.devices=1, 2 or 4"]),
        ("trainer.nodes=2", ["experts.per_group=2", "trainer.devices=1"]),
    ],
)
def test_a_mesh_that_does_not_fit_the_run_is_refused(stored, overrides, fragments):
    before = contents(stored)
    assert_refused(run_forked("mohge-train", ["resume=run", *overrides.split()], stored), fragments)
    assert contents(stored) == before
