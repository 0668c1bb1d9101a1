"""One benchmark, from configuration to result."""

from __future__ import annotations

import datetime
from typing import Any

import torch

from mohge.bench.callbacks import measure_callbacks
from mohge.bench.experts import measure_experts
from mohge.bench.generation import measure_generation
from mohge.bench.growth import measure_growth
from mohge.bench.likelihood import measure_likelihood
from mohge.bench.machine import describe_machine
from mohge.bench.parallel import measure_parallel
from mohge.bench.profiling import measure_profile
from mohge.bench.rows import Measured, Row
from mohge.bench.step import measure_step
from mohge.config.bench_schema import (
    BenchConfig,
    CallbacksBenchConfig,
    ExpertsBenchConfig,
    GenerationBenchConfig,
    GrowthBenchConfig,
    LikelihoodBenchConfig,
    ParallelBenchConfig,
    StepBenchConfig,
)
from mohge.config.load import as_dict
from mohge.training.allocator import keep_freed_memory
from mohge.training.device import device_of
from mohge.training.environment import describe_environment


def measure(config: BenchConfig, overrides: list[str]) -> tuple[dict[str, Any], list[Row]]:
    """Run the benchmark that `config.bench` names.

    Args:
        config: what to measure.
        overrides: the command line's, for the record.

    Returns:
        The result as plain values, and its rows.

    Raises:
        UserError: there is no such device, the data cannot be read, or a size does not fit.
        RunError: processes that should compute the same do not, or one of them is lost.
    """
    device = device_of(config.trainer)
    keep_freed_memory()  # as training does
    machine = describe_machine()
    before = torch.get_num_threads()
    measured = Measured()
    try:
        for threads in config.bench.threads or (before,):
            torch.set_num_threads(threads)
            measured.add(_measure(config, device))
    finally:
        torch.set_num_threads(before)
    result = {
        "command": "mohge-bench",
        "bench": config.bench.kind,
        "machine": machine,
        "revision": describe_environment()["git"],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "overrides": overrides,
        "config": as_dict(config)["bench"],
        "notes": measured.notes,
        "rows": [row.as_dict() for row in measured.rows],
    }
    return result, measured.rows


def _measure(config: BenchConfig, device: torch.device) -> Measured:
    bench = config.bench
    if isinstance(bench, ExpertsBenchConfig):
        return measure_experts(bench, seed=config.seed, device=device)
    if isinstance(bench, StepBenchConfig):
        return measure_step(config, bench, device)
    if isinstance(bench, GrowthBenchConfig):
        return measure_growth(config, bench, device)
    if isinstance(bench, ParallelBenchConfig):
        return measure_parallel(config, bench, device)
    if isinstance(bench, CallbacksBenchConfig):
        return measure_callbacks(config, bench)
    if isinstance(bench, GenerationBenchConfig):
        return measure_generation(config, bench, device)
    if isinstance(bench, LikelihoodBenchConfig):
        return measure_likelihood(config, bench, device)
    return measure_profile(config, bench, device)
