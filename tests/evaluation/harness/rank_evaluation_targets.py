"""Evaluation by several ranks together, each in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_language_model import tiny_language_model

from evaluation.harness import bridge
from evaluation.harness.launched import spread
from evaluation.harness.ranks import connected_ranks
from evaluation.harness.suite import run_suite
from evaluation.harness.tasks import Tasks
from mohge.config.schema import SuiteConfig
from mohge.errors import RunError
from mohge.parallel.ranks import this_rank


def evaluate_together(folder: Path, benchmarks: Path, names: tuple[str, ...], expert_parallel: int) -> Any:
    """The content of results.json, as this rank has it."""
    model = tiny_language_model()
    if expert_parallel > 1:
        spread(model, expert_parallel, this_rank().world, "cpu")
    return run_suite(
        model,
        SuiteConfig(name="invented", tasks=names),
        folder / "eval" / "invented",
        batch_size=5,
        benchmarks=benchmarks,
        ranks=connected_ranks(lockstep=expert_parallel > 1),
    )


def evaluate_with_a_failure(folder: Path, benchmarks: Path, names: tuple[str, ...]) -> Any:
    """The same, where the second rank fails in its first batch."""
    if this_rank().index == 1:
        real, calls = bridge.score_batch, []

        def fail(*arguments: Any, **settings: Any) -> Any:
            calls.append(1)
            if len(calls) == 1:
                raise RuntimeError("out of memory")
            return real(*arguments, **settings)

        bridge.score_batch = fail
    return evaluate_together(folder, benchmarks, names, 1)


def refused_together(folder: Path, benchmarks: Path, names: tuple[str, ...]) -> str:
    """The kind of error that this rank gets."""
    try:
        evaluate_together(folder, benchmarks, names, 1)
    except Exception as error:
        return type(error).__name__
    return "none"


def load_fails_together(folder: Path, benchmarks: Path, names: tuple[str, ...]) -> str:
    """What this rank says in the end, where the second cannot load its first task."""
    if this_rank().index == 1:
        real = Tasks.load

        def fail(tasks: Tasks, name: str) -> Any:
            if name == names[0]:
                raise OSError("the data is not here")
            return real(tasks, name)

        Tasks.load = fail  # type: ignore[method-assign]
    try:
        evaluate_together(folder, benchmarks, names, 1)
    except RunError as error:
        return str(error)
    return "all went well"
