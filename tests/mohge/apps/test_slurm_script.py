"""conf/slurm/train.sbatch, without SLURM: a script in place of srun starts the ranks as srun does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from tiny_runs import read_metrics, tiny_run, write_corpus

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.parallel.sizes import MeshSizes, mesh_sizes
from mohge.training.run_folder import RunFolder

SCRIPT = Path(__file__).parents[3] / "conf" / "slurm" / "train.sbatch"
JOB = {"SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "8"}
NOTES_CALL = """#!/bin/bash
printf '%s\\n' "$@" >> calls
exit "${STATUS:-0}"
"""
# Two nodes with one rank each. As srun, it leaves with the highest status of its tasks.
STARTS_RANKS = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
export SLURM_NTASKS=2 SLURM_NTASKS_PER_NODE=1 SLURM_NNODES=2 SLURM_NODELIST=127.0.0.1
export SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_TASKS_PER_NODE='1(x2)' SLURM_LOCALID=0
for task in 0 1; do
    SLURM_PROCID=$task SLURM_NODEID=$task "$@" & tasks[task]=$!
done
echo "${tasks[@]}" > tasks
highest=0
for task in "${tasks[@]}"; do
    wait "$task"; status=$?
    ((status > highest)) && highest=$status
done
exit $highest
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to submit from; `bin` in it has the commands of SLURM."""
    write(tmp_path, "srun", NOTES_CALL)
    write(tmp_path, "scontrol", NOTES_CALL)
    return tmp_path


def write(place: Path, name: str, content: str) -> None:
    (place / "bin").mkdir(exist_ok=True)
    (place / "bin" / name).write_text(content)
    (place / "bin" / name).chmod(0o755)


def start(place: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """As sbatch starts the script on the first node."""
    commands = os.pathsep.join([str(place / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        ["bash", SCRIPT, *arguments],
        cwd=place,
        env=os.environ | JOB | {"PATH": commands, "OMP_NUM_THREADS": "1"} | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def calls(place: Path) -> list[str]:
    """Arguments of all commands of SLURM that were called, one after another."""
    return (place / "calls").read_text().splitlines()


def requested() -> dict[str, str]:
    """What the script asks SLURM for."""
    found = re.findall(r"^#SBATCH --([\w-]+)=(\S+)", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(found)


def test_bash_accepts_it():
    subprocess.run(["bash", "-n", SCRIPT], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_accepts_it():
    subprocess.run(["shellcheck", SCRIPT], check=True)


@pytest.mark.parametrize(
    "more", [[], ["model=small", "arch=moe"], ["parallel=ddp", "trainer.precision=fp32"]]
)
def test_its_overrides_compose_on_every_rank_that_it_asks_for(place, monkeypatch, more):
    assert start(place, *more).wait() == 0
    options, overrides = calls(place)[:2], calls(place)[3:]
    assert options == ["--wait=300", "--cpus-per-task=8"]
    assert calls(place)[2] == "mohge-train"
    assert overrides[-len(more) :] == more if more else overrides
    nodes, local = int(requested()["nodes"]), int(requested()["ntasks-per-node"])
    assert requested()["gpus-per-node"] == str(local)
    for index in range(nodes * local):
        step: dict[str, Any] = {"NUM_TASKS": nodes * local, "NUM_NODES": nodes}
        step |= {"TASKS_PER_NODE": f"{local}(x{nodes})"}
        for name, value in step.items():
            monkeypatch.setenv(f"SLURM_STEP_{name}", str(value))
        for name, number in {"PROCID": index, "LOCALID": index % local, "NODEID": index // local}.items():
            monkeypatch.setenv(f"SLURM_{name}", str(number))
        config = typed(TrainConfig, composed(*overrides))
        sizes = mesh_sizes(config)
        assert sizes.world == nodes * local == 16
        assert config.parallel.name == "ddp" or sizes == MeshSizes(1, *((2, 8) if more else (4, 4)))
        assert config.paths.run_dir == "outputs/slurm-4711"


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (1, False), (2, False), (143, True)])
def test_only_a_run_that_was_told_to_save_and_leave_queues_again(place, status, requeued):
    process = start(place, "model=small", STATUS=str(status))
    assert process.wait() == status
    assert (calls(place)[-2:] == ["requeue", "4711"]) == requeued
    assert ("requeue" in calls(place)) == requeued


def test_a_run_that_was_begun_goes_on_with_what_it_began_with(place):
    (place / "outputs" / "slurm-4711").mkdir(parents=True)
    assert start(place, "model=small").wait() == 0
    assert "model=small" in calls(place), "nothing was begun"
    (place / "outputs" / "slurm-4711" / "config.yaml").touch()
    assert start(place, "model=small").wait() == 0
    assert calls(place)[-2:] == ["mohge-train", "resume=outputs/slurm-4711"]


@pytest.mark.slow
def test_ranks_that_srun_starts_train_save_at_the_end_of_their_time_and_go_on(place):
    write(place, "srun", STARTS_RANKS)
    write_corpus(place / "corpus")
    tiny = tiny_run(Path("corpus"), Path("cache"))
    settings = [*tiny, "trainer.accelerator=cpu", "trainer.precision=fp32", "trainer.max_steps=300"]
    process, run = start(place, *settings), place / "outputs" / "slurm-4711"
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for task in (place / "tasks").read_text().split():  # as SLURM does two minutes before the end
        os.kill(int(task), signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stdout + stderr
    step = RunFolder(run).read_status()["step"]
    assert (
        f"\nSIGTERM received: step {step} is saved; continue with mohge-train resume={run}\n" in f"\n{stderr}"
    )
    assert RunFolder(run).read_status()["state"] == "interrupted"
    assert calls(place) == ["requeue", "4711"]
    # More steps would take long, and another length does not make another run.
    write(place, "srun", STARTS_RANKS.replace('"$@" &', f'"$@" trainer.max_steps={step + 3} &'))
    process = start(place, *settings)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stdout + stderr
    assert f"continuing {run} from step {step}\n" in stdout
    status = RunFolder(run).read_status()
    assert (status["state"], status["step"]) == ("finished", step + 3)
    assert status["mesh"] == {"dp_replicate": 1, "dp_shard": 1, "expert_parallel": 2}
    assert [record["step"] for record in read_metrics(run)] == list(range(1, step + 4))
