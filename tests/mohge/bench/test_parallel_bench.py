"""bench=parallel: contestants do the same work, and what a rank waits for is counted, whoever started it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from composing import composed
from ranks_here import run_ranks
from rich.console import Console
from tiny_benches import PARALLEL, bench_config, by_name

from mohge.bench.parallel import measure_parallel
from mohge.bench.parallel_ranks import counting_waits, require_same
from mohge.bench.run import measure
from mohge.bench.table import render
from mohge.bench.training_step import RandomBatches, TrainingStep
from mohge.config.bench_schema import ParallelBenchConfig
from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.errors import RunError, UserError
from mohge.parallel.exchange import Exchange
from mohge.parallel.mesh import build_mesh
from mohge.parallel.rank_plan import rank_plan
from mohge.parallel.sizes import MeshSizes

CPU = torch.device("cpu")
MODEL = PARALLEL[1:]
MESHES = {
    "(1, 1, 2)": ("parallel=ep", "trainer.devices=2"),
    "(1, 2, 1)": ("parallel=fsdp", "trainer.devices=2"),
    "(2, 1, 1)": ("parallel=ddp", "trainer.devices=2"),
}
LATE = 0.4
"""Seconds that rank 1 is late."""


def test_rows():
    # Counts of the global batch are all-reduced: a process that is alone in name only would wait for ever.
    config = bench_config(*PARALLEL, "bench.threads=[2]", "trainer.accumulate=2", "loss.scope=global_batch")
    result, measured = measure(config, [])
    assert json.loads(json.dumps(result)) == result
    rows = by_name(result["rows"], "peer")
    assert set(rows) == {"one process", *MESHES}
    one = rows["one process"]
    assert (one["ratio"], one["peak_ratio"], one["ranks"], one["threads_per_rank"]) == (1, 1, 1, 2)
    assert "waiting_share" not in one
    assert "sent_bytes" not in one
    for row in rows.values():
        assert (row["against"], row["shape"], row["threads"]) == ("one process", "nano mohge 4x32x2", 2)
        assert row["rounds"] == 2
        assert row["ratio"] == pytest.approx(row["median_seconds"] / one["median_seconds"])
        assert row["tokens_per_second"] == pytest.approx(2 * 4 * 32 / row["median_seconds"])
        assert row["peak_ratio"] == row["peak_bytes"] / one["peak_bytes"]
    for name, overrides in MESHES.items():
        row = rows[name]
        assert (row["ranks"], row["threads_per_rank"]) == (2, 1)
        assert 0 < row["waiting_share"] < 1
        plan = rank_plan(typed(TrainConfig, composed(*planned(), *overrides)))
        assert row["sent_bytes"] == plan.busiest_sender.sent.total
    assert rows["(1, 1, 2)"]["peak_ratio"] < 1

    console = Console(width=100)
    with console.capture() as capture:
        console.print(render(result, measured))
    shown = capture.get()
    assert shown.count("ratios to one process") == 1
    assert "…" not in shown


def planned() -> list[str]:
    """The model and batch of `test_rows`, without what measures it."""
    return [override for override in (*MODEL, "trainer.accumulate=2") if not override.startswith("bench.")]


def test_the_same_first_loss_is_required():
    require_same({"one process": 8.0, "(1, 1, 2)": 8.0 + 7e-4})
    for other in (8.0 + 9e-4, 8.0 - 9e-4, math.nan):
        with pytest.raises(RunError, match=r"one process 8\.0+, \(1, 1, 2\) .*bug"):
            require_same({"one process": 8.0, "(1, 1, 2)": other})


def test_a_mesh_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch):
    config = bench_config(*PARALLEL, "bench.meshes=[[1,4,1],[1,1,4]]")
    assert isinstance(config.bench, ParallelBenchConfig)
    with pytest.raises(
        UserError, match=r"^bench\.meshes has \[1, 1, 4\], but .*: leave it out, or change the"
    ):
        measure_parallel(config, config.bench, CPU)
    config = bench_config(*PARALLEL)
    assert isinstance(config.bench, ParallelBenchConfig)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"needs 2 GPUs and this machine has 1: .*accelerator=cpu"):
        measure_parallel(config, config.bench, torch.device("cuda"))


def add_up() -> None:
    dist.all_reduce(torch.ones(1))


def exchange() -> None:
    there = Exchange(dist.group.WORLD, [2, 2], [2, 2])
    there.receive(there.send(torch.ones(4, 3)))


def step_on(config: TrainConfig, *sizes: int) -> Callable[[], None]:
    mesh, batches = build_mesh(MeshSizes(*sizes), "cpu"), RandomBatches(config, CPU)
    step = TrainingStep(config, CPU, mesh)
    part = [tokens_BS.chunk(2)[dist.get_rank()] for tokens_BS in batches.current]
    return lambda: step(part)


def waits_for_a_late_rank(config: TrainConfig) -> dict[str, list[float]]:
    """Seconds of each wait of this rank, by what it does; rank 1 comes late to all of it."""
    found = {}
    for name, act in {
        "all_reduce": add_up,
        "exchange": exchange,
        "ep": step_on(config, 1, 1, 2),
        "fsdp": step_on(config, 1, 2, 1),
        "ddp": step_on(config, 2, 1, 1),
    }.items():
        dist.barrier()
        if dist.get_rank() == 1:
            time.sleep(LATE)
        with counting_waits() as waits:
            act()
        found[name] = waits
    before = dist.Work.wait
    with counting_waits():
        assert dist.Work.wait is not before
    assert dist.Work.wait is before
    return found


def test_all_that_a_rank_waits_for_is_counted():
    config = typed(TrainConfig, composed(*planned()))
    punctual, late = run_ranks(waits_for_a_late_rank, 2, config)
    for name, waits in punctual.items():
        assert sum(waits) > 0.9 * LATE, name
        assert len(waits) == len(late[name])
