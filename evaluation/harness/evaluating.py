"""What mohge-eval does: evaluate checkpoints, compare them, and tell the tracker.

Nothing heavy is imported before the input has been looked at.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mohge.config.eval_schema import EvalConfig
from mohge.config.schema import SuiteConfig
from mohge.config.targets import build
from mohge.errors import UserError
from mohge.parallel.launch import launch
from mohge.parallel.ranks import found_rank, this_rank
from mohge.training.checkpoint_choice import choose_checkpoint, run_of
from mohge.training.run_folder import RESULTS, RunFolder

log = logging.getLogger(__name__)

_EVAL = "eval"


@dataclass(frozen=True)
class Outcome:
    """What mohge-eval has found."""

    comparison: dict[str, Any]
    """Of all checkpoints, machine-readable."""
    render: Callable[[], RenderableType]
    """Makes the tables for people."""
    failures: list[str]
    """A sentence for each task that failed."""


def evaluate(config: EvalConfig, benchmarks: Path | None) -> Outcome | None:
    """Evaluate checkpoints, compare them, and add results to the runs that have trained them.

    Args:
        config: checkpoints, suite, and how to run.
        benchmarks: folder of local tasks, if some are asked for.

    Returns:
        None on ranks other than the first.

    Raises:
        UserError: wrong input.
    """
    _check_ranks(config)
    named = [one for given in config.checkpoint for one in _single(given)]
    _check_baseline(config.baseline, named)
    # Once, since a run that is still training has another newest checkpoint a minute later.
    checkpoints = [_chosen(one) for one in named]
    if config.eval.held_out != 0:
        for checkpoint in checkpoints:  # now, and not after hours of tasks
            if run_of(checkpoint) is None:
                raise no_held_out(checkpoint)
    folders = [_folder(checkpoint, config.eval) for checkpoint in checkpoints]
    if len(set(folders)) < len(folders):
        raise UserError("checkpoint names one of the models twice: name each once")
    # Late, since these import torch.
    from evaluation.harness.launched import Job, evaluate_all

    job = Job(config, tuple(map(str, checkpoints)), tuple(folders), benchmarks)
    if config.ranks > 1 and found_rank() is None:
        launch("evaluation.harness.launched:evaluate_rank", job, config.ranks)
    else:
        evaluate_all(job)
    return _outcome(config, folders) if this_rank().is_first else None


def no_held_out(source: Path) -> UserError:
    """That a model outside runs cannot be asked for a run's held-out text."""
    return UserError(
        f"{source} is no checkpoint of a run, and so has no held-out text: use eval.held_out=0, or name the "
        "run"
    )


def _outcome(config: EvalConfig, folders: list[Path]) -> Outcome:
    """Compares the evaluations, and records them."""
    from evaluation.benchmarks.comparing import compare
    from evaluation.benchmarks.terminal import render
    from evaluation.benchmarks.writing import write_comparison

    found = [json.loads((folder / RESULTS).read_text(encoding="utf-8")) for folder in folders]
    tables = _tables_folder(config, folders)
    try:
        comparison = compare(folders, config.baseline)
        write_comparison(comparison, tables)
    finally:  # scores are kept where they belong also if they cannot be compared
        if config.record is not None:
            for results, folder in zip(found, folders, strict=True):
                refusal = build("record", config.record.target, results, folder, tables)
                if refusal is not None:
                    log.warning("%s", refusal)
    where = Text(
        f"Tables: {tables} with comparison.md, .tex, .html and .json", overflow="ignore", no_wrap=True
    )
    return Outcome(
        comparison={
            **comparison,
            "folder": str(tables),
            "evaluations": [str(folder) for folder in folders],
        },
        render=lambda: Group(render(comparison), where),
        failures=[
            f"task {name} failed on {results['name']} ({entry['error']}): {folder / 'errors'} tells where"
            for results, folder in zip(found, folders, strict=True)
            for name, entry in results["tasks"].items()
            if entry["status"] == "failed"
        ],
    )


def _check_baseline(baseline: str | None, named: list[str]) -> None:
    """Refuses a word that no run is called by; paths, and arms that differ in more, are known at the end."""
    if baseline is None or not baseline.isidentifier() or Path(baseline).expanduser().exists():
        return
    known: set[str] = set()
    for one in named:
        run = RunFolder(Path(one).expanduser())
        if not run.exists:
            return
        config = run.read_config()
        known |= {config["arch_name"], config["logger"].get("run_name") or config["arch_name"]}
    if baseline not in known:
        raise UserError(
            f"baseline={baseline} is none of the models: choose one of {', '.join(sorted(known))}, or a path"
        )


def _check_ranks(config: EvalConfig) -> None:
    launched = found_rank()
    ranks = config.ranks if launched is None else launched.world
    if launched is not None and config.ranks not in (1, launched.world):
        raise UserError(
            f"ranks={config.ranks} disagrees with torchrun or srun, which has started {launched.world}: "
            "leave ranks out"
        )
    if ranks % config.expert_parallel:
        raise UserError(
            f"expert_parallel={config.expert_parallel} does not divide ranks={ranks}: set "
            f"ranks={config.expert_parallel}"
        )


def _single(named: str) -> list[str]:
    """The model that is named, or those of a comparison's runs."""
    run = RunFolder(Path(named).expanduser())
    if run.exists and not run.checkpoints_dir.is_dir():
        comparison = run.read_config().get("comparison")
        if comparison:
            return [str(run.path / name) for name in comparison["arms"]]
    return [named]


def _chosen(named: str) -> Path:
    """The checkpoint that is meant, or the folder of a model outside runs."""
    path = Path(named).expanduser()
    if (path / "config.json").is_file():  # exported, or of transformers
        return path
    checkpoint = choose_checkpoint(named)
    if run_of(checkpoint) is None:
        raise UserError(
            f"checkpoint={named} is in no run's folder, so that its tokenizer is unknown: give the run, or a "
            "folder that mohge-export has made"
        )
    return checkpoint


def _folder(checkpoint: Path, suite: SuiteConfig) -> Path:
    """Where results of a model go."""
    run = run_of(checkpoint)
    place = checkpoint / _EVAL if run is None else run.eval_dir / checkpoint.name
    return place / suite.folder


def _tables_folder(config: EvalConfig, folders: list[Path]) -> Path:
    if config.output is not None:
        return Path(config.output).expanduser()
    if len(folders) == 1:
        return folders[0]
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path(config.paths.output_dir).expanduser() / _EVAL / f"{config.eval.name}_{now}"
