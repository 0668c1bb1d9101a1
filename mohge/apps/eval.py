"""mohge-eval: lm-eval and bits per byte of checkpoints, beside a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mohge.apps.output import emit
from mohge.apps.resume import override_key
from mohge.apps.runner import run_app
from mohge.config.eval_schema import EvalConfig
from mohge.config.targets import build
from mohge.errors import RunError, UserError
from mohge.parallel.ranks import this_rank

_KEYS = (
    *("_target_", "checkpoint", "baseline", "batch_size", "device", "ranks", "expert_parallel"),
    *("benchmarks", "record", "output", "format", "eval", "paths.cache_dir", "paths.output_dir"),
)


def run(config: EvalConfig, overrides: list[str]) -> None:
    """Evaluates the checkpoints, prints the tables and where they are."""
    for override in overrides:
        key = override_key(override)
        if not any(key == known or key.startswith(f"{known}.") for known in _KEYS):
            raise UserError(
                f"{override} has no effect, as all of training comes from the checkpoints: leave it out"
            )
    if not config.eval.tasks and config.eval.held_out == 0:
        raise UserError(
            "eval.tasks=[] and eval.held_out=0 ask nothing: name tasks, or how much held-out text to score"
        )
    for named in config.checkpoint:
        if not Path(named).expanduser().exists():
            raise UserError(
                f"checkpoint={named} does not exist: give the folder of a run, a checkpoint or a model"
            )
    benchmarks: Path | None = None
    if config.eval.needs_benchmarks:
        benchmarks = build("benchmarks", config.benchmarks.target, config.paths.cache_dir)
    outcome = build("evaluation", config.target, config, benchmarks)
    if not this_rank().is_first:
        return
    result: dict[str, Any] = outcome.comparison
    emit(result, outcome.render, config.format, output=None)
    if outcome.failures:
        raise RunError("; ".join(outcome.failures))


def main() -> None:
    """Console entry point."""
    run_app("eval", EvalConfig, run)


if __name__ == "__main__":  # torchrun -m mohge.apps.eval
    main()
