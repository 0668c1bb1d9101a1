"""Runs the tasks of a suite on one model, one after another, and writes what was found.

FOLDER/results.json     scores, cost and settings; format "mohge-eval-1"
FOLDER/samples/         an object per item, for each task
FOLDER/errors/          the traceback of each task that failed
FOLDER/../answers.sqlite  all answers of the model, which other suites use too
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import random
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evaluation.harness.offline import prepare_libraries
from evaluation.harness.ranks import Ranks
from evaluation.language_model import LanguageModel
from mohge.budget import budget
from mohge.config.load import as_dict
from mohge.config.schema import SuiteConfig, TrainConfig
from mohge.errors import Interrupted, RunError, UserError, disk_refusal, first_line
from mohge.files import write_json_atomically, write_text_atomically
from mohge.training.environment import describe_environment
from mohge.training.run_folder import RESULTS

if TYPE_CHECKING:
    from evaluation.harness.bridge import MohgeLM
    from evaluation.harness.results import Found
    from evaluation.harness.tasks import Tasks

log = logging.getLogger(__name__)

FORMAT = "mohge-eval-1"
SAMPLES, ERRORS, ANSWERS = "samples", "errors", "answers.sqlite"
_SEED = 1234
_ELSEWHERE = ("path", "tokenizer", "cache_dir", "workers", "check", "_target_")
"""Keys of data that may differ between machines."""


def run_suite(
    model: LanguageModel,
    suite: SuiteConfig,
    folder: Path,
    *,
    batch_size: int,
    benchmarks: Path | None,
    ranks: Ranks | None = None,
    keep_answers: bool = True,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> dict[str, Any]:
    """Run all tasks; one that fails is reported, and the others go on. Collective over `ranks`.

    Args:
        model: to be asked.
        suite: tasks, and how much of them.
        folder: for results; those of an earlier evaluation of the same suite are replaced at the end.
        batch_size: sequences of a forward pass.
        benchmarks: folder of local tasks.
        ranks: that share the work; by default those of the process group.
        keep_answers: in a file beside the folder, where an evaluation that was stopped finds them.
        progress: called with a task's label, requests answered and all requests of it.

    Returns:
        The content of results.json.

    Raises:
        UserError: a task that does not exist, a corpus that is gone, a folder with results of another
            suite, or a disk that refuses.
        RunError: a task failed on some of the ranks.
    """
    prepare_libraries(suite.tasks)
    # Late, since they import lm-eval.
    from evaluation.harness.bridge import MohgeLM
    from evaluation.harness.held_out import NAME, score_held_out
    from evaluation.harness.task_run import run_task
    from evaluation.harness.tasks import Tasks

    tasks = Tasks(suite.tasks, suite.fewshot, benchmarks)
    answers = str(folder.parent / ANSWERS) if keep_answers else None
    lm = MohgeLM(language_model=model, batch_size=batch_size, ranks=ranks, cache=answers)
    lm.ranks.first(lambda: _refuse_others(folder, suite))
    jobs: dict[str, Callable[[], list[Found]]] = {
        name: partial(run_task, lm, tasks, name, suite, progress) for name in suite.tasks
    }
    if suite.held_out != 0:
        jobs[NAME] = partial(score_held_out, lm, suite.held_out, progress)
    with closing(lm):
        done, entries, errors = _run(lm, tasks, jobs)
    results = {**_facts(model, suite, batch_size, lm.ranks.world), "tasks": entries}
    lm.ranks.first(lambda: _write(folder, results, done, errors))
    return results


def _run(
    lm: MohgeLM, tasks: Tasks, jobs: Mapping[str, Callable[[], list[Found]]]
) -> tuple[list[Found], dict[str, Any], dict[str, str]]:
    """What was found, the facts of each task, and the traceback of each that failed."""
    done: list[Found] = []
    entries: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, job in jobs.items():
        random.seed(_SEED)
        np.random.seed(_SEED)
        torch.manual_seed(_SEED)
        failure: Exception | None = None
        try:
            found = job()
            done += found
            entries.update({one.name: {**one.entry, "samples": f"samples/{one.name}.jsonl"} for one in found})
        except Exception as error:
            if isinstance(error, UserError | Interrupted | RunError) or disk_refusal(error) is not None:
                raise
            failure = error
            lm.take_usage()
            entries[name] = {"status": "failed", "error": first_line(error), "label": tasks.label(name)}
            errors[name] = traceback.format_exc()
            log.warning("task %s failed: %s", name, first_line(error))
        said = lm.ranks.meet(f"the end of {name}", None if failure is None else first_line(failure))
        if len({one is None for one in said}) > 1:
            raise RunError(f"task {name} failed on some ranks, and not on all: {said}") from failure
    return done, entries, errors


def _refuse_others(folder: Path, suite: SuiteConfig) -> None:
    """Keeps the results of another suite, which would be replaced."""
    try:
        settings = json.loads((folder / RESULTS).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    if not isinstance(settings, dict):
        return
    for name, value in _asked(suite).items():
        if settings.get(name, value) != value:
            raise UserError(
                f"{folder} holds results of another eval.{name} ({_shown(settings[name])}): give this suite "
                "a name of its own with eval.name=NAME, or delete the folder"
            )


def _asked(suite: SuiteConfig) -> dict[str, Any]:
    """What decides the scores of a suite; plain values."""
    return {
        "tasks": list(suite.tasks),
        "fewshot": dict(suite.fewshot),
        "limit": suite.limit,
        "held_out": suite.held_out,
    }


def _shown(value: Any) -> str:
    """As one writes it on the command line."""
    return json.dumps(value).replace('"', "").replace(" ", "")


def _write(folder: Path, results: dict[str, Any], done: Sequence[Found], errors: dict[str, str]) -> None:
    """All files. results.json goes before the others and comes last: where it is, all else belongs to it."""
    new = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    try:
        for one in done:
            lines = [json.dumps(item.plain()) + "\n" for item in one.items]
            write_text_atomically(new / SAMPLES / f"{one.name}.jsonl", "".join(lines))
        for name, text in errors.items():
            write_text_atomically(new / ERRORS / f"{name}.txt", text)
        write_json_atomically(new / RESULTS, results)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULTS).unlink(missing_ok=True)
        for name in (SAMPLES, ERRORS):
            shutil.rmtree(folder / name, ignore_errors=True)
            if (new / name).is_dir():
                (new / name).rename(folder / name)
        (new / RESULTS).rename(folder / RESULTS)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _facts(model: LanguageModel, suite: SuiteConfig, batch_size: int, world: int) -> dict[str, Any]:
    """All of results.json but the tasks."""
    config, plan = model.config, budget(model.config)
    trained = model.tokens is not None  # else seed and corpus of the configuration mean nothing
    return {
        "format": FORMAT,
        "suite": suite.name,
        "checkpoint": str(model.source),
        "run": None if model.run is None else str(model.run.path),
        "name": model.name,
        "arch": config.arch_name,
        "model": config.model.name,
        "seed": config.seed if trained else None,
        "corpus": config.data.name if trained else None,
        "corpus_fingerprint": model.corpus,
        "design": design_of(config) if trained else None,
        "step": model.step,
        "training_tokens": model.tokens,
        "parameters": {
            "total": plan.parameters.total,
            "active": float(plan.active_parameters.expected),
        },
        "flops_per_token": float(plan.flops_per_token.forward),
        "widths": list(config.experts.widths) if config.router.kind != "none" else [],
        "revision": describe_environment()["git"]["revision"],
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": {
            **_asked(suite),
            "batch_size": batch_size,
            "ranks": world,
            "device": str(model.model.embedding.weight.device),
            "context": config.model.context,
        },
    }


def design_of(config: TrainConfig) -> str:
    """Checksum of what a run was to learn and how: equal for runs that differ in their seed alone.

    Folders, logging, hardware and how often the run was looked at do not count.
    """
    plain = as_dict(config)
    learned = {name: plain[name] for name in ("model", "experts", "router", "loss", "optim")}
    data = {name: value for name, value in plain["data"].items() if name not in _ELSEWHERE}
    trainer = {name: plain["trainer"][name] for name in ("max_steps", "max_tokens", "accumulate", "clip")}
    learned["experts"] = {**plain["experts"], "kernel": None}
    text = json.dumps([learned, data, trainer, plain["trainer"]["precision"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
