"""bench=parallel: a training step of several ranks of this machine, as several meshes, against one process.

All make the same optimizer step of the same micro-batches, in turns. While the one process computes, on rank
0 with all threads, the other ranks wait; the ranks of a mesh share the threads. A mesh's step lasts from a
barrier until its last rank is done.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mohge.bench.parallel_ranks import ONE_PROCESS, RanksJob
from mohge.bench.progress import say
from mohge.bench.rows import Measured, Row
from mohge.bench.sizes import shape_name
from mohge.bench.timing import Timing
from mohge.config.bench_schema import ParallelBenchConfig
from mohge.config.schema import ParallelConfig, TrainConfig
from mohge.errors import UserError
from mohge.parallel.launch import launch
from mohge.parallel.rank_plan import rank_plan
from mohge.parallel.sizes import MeshSizes

NOTES = (
    "meshes are (dp_replicate, dp_shard, expert_parallel); threads are those of each rank",
    "all computed the same first loss",
    "waiting: share of a rank's step in which it is blocked until a collective ends, because data are under "
    "way or another rank is late; the mean over ranks. Collectives that go on beside computing are not in it",
    "sent MiB: in a step, as planned, by the rank that sends most",
    "MiB: most that a rank holds, weights and optimizer state included; of the fullest rank",
)


def measure_parallel(config: TrainConfig, bench: ParallelBenchConfig, device: torch.device) -> Measured:
    """Rows of one process and of each mesh.

    Raises:
        UserError: a mesh does not fit the configuration, or there are fewer GPUs than ranks.
        RunError: the contestants do not compute the same, or a rank failed.
    """
    meshes = tuple(MeshSizes(*mesh) for mesh in bench.meshes)
    ranks = meshes[0].world
    sent = {str(sizes): _sent_bytes(config, sizes) for sizes in meshes}
    if device.type == "cuda" and torch.cuda.device_count() < ranks:
        raise UserError(
            f"bench.meshes={[list(mesh) for mesh in bench.meshes]} needs {ranks} GPUs and this machine has "
            f"{torch.cuda.device_count()}: give smaller meshes, or trainer.accelerator=cpu"
        )
    say(f"parallel: {', '.join([ONE_PROCESS, *sent])}, {bench.rounds} rounds on {ranks} ranks")
    with tempfile.TemporaryDirectory(prefix="mohge-bench-") as folder:
        job = RanksJob(
            config=config,
            meshes=meshes,
            rounds=bench.rounds,
            warmup=bench.warmup,
            threads=torch.get_num_threads(),
            result=Path(folder) / "result.json",
        )
        launch("mohge.bench.parallel_ranks:measure", job, ranks)
        found: dict[str, list[dict[str, Any]]] = json.loads(job.result.read_text(encoding="utf-8"))
    timings = {name: _step_timing(parts) for name, parts in found.items()}
    peaks = {name: max(part["peak_bytes"] for part in parts) for name, parts in found.items()}

    def row(name: str) -> Row:
        together = name in sent
        return Row(
            bench="parallel",
            shape=shape_name(config),
            dtype=config.trainer.precision,
            kernel=config.experts.kernel,
            peer=name,
            against=ONE_PROCESS,
            ratio=timings[name].median / timings[ONE_PROCESS].median,
            timing=timings[name],
            threads=job.threads,
            ranks=ranks if together else 1,
            threads_per_rank=job.threads_per_rank if together else job.threads,
            tokens_per_second=config.tokens_per_step / timings[name].median,
            # On a GPU, a wait only orders kernels after each other: the host goes on.
            waiting_share=_waiting_share(found[name]) if together and device.type == "cpu" else None,
            sent_bytes=sent.get(name),
            peak_bytes=peaks[name],
            peak_ratio=peaks[name] / peaks[ONE_PROCESS],
            peak_against=ONE_PROCESS,
        )

    return Measured([row(name) for name in found], list(NOTES))


def _sent_bytes(config: TrainConfig, sizes: MeshSizes) -> int:
    """What the busiest rank of a mesh sends in a step, by the plan."""
    parallel = ParallelConfig(name="fsdp_ep", **dataclasses.asdict(sizes))
    trainer = dataclasses.replace(config.trainer, devices=sizes.world, nodes=1)
    try:
        plan = rank_plan(dataclasses.replace(config, parallel=parallel, trainer=trainer))
    except UserError as error:
        mesh, reason = list(dataclasses.astuple(sizes)), str(error).partition(": ")[0]
        raise UserError(
            f"bench.meshes has {mesh}, but {reason}: leave it out, or change the configuration"
        ) from error
    return plan.busiest_sender.sent.total


def _step_timing(parts: Sequence[dict[str, Any]]) -> Timing:
    """Rounds of a contestant, each as long as its slowest rank."""
    return Timing(np.max([part["seconds"] for part in parts], axis=0).tolist())


def _waiting_share(parts: Sequence[dict[str, Any]]) -> float:
    """Median over rounds of the mean over ranks."""
    shares = [np.divide(part["waiting_seconds"], part["seconds"]) for part in parts]
    return float(np.median(np.mean(shares, axis=0)))
