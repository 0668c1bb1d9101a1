"""mohge-bench: speed and memory, always as a ratio to a named peer or bound."""

from __future__ import annotations

import os

from mohge.apps.output import emit
from mohge.apps.runner import run_app
from mohge.bench.checks import check_bench
from mohge.config.bench_schema import BenchConfig, CallbacksBenchConfig, ProfileBenchConfig
from mohge.config.targets import check_data


def run(config: BenchConfig, overrides: list[str]) -> None:
    """Measures what the configuration asks for, and prints it."""
    check_bench(config.bench)
    if isinstance(config.bench, ProfileBenchConfig | CallbacksBenchConfig):
        check_data(config.data)
    # Torch's profiler would report on stderr when it starts and stops, and which blocks it does not know.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Late, since torch takes seconds to import: a wrong configuration has been refused by now.
    from mohge.bench.run import measure
    from mohge.bench.table import render

    result, rows = measure(config, overrides)
    emit(result, lambda: render(result, rows), config.format, config.output)


def main() -> None:
    """Console entry point."""
    run_app("bench", BenchConfig, run)
