"""A tiny corpus and a tiny model: runs that take a second."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from composing import composed

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.training.run_folder import RunFolder

TINY_MODEL = (
    "model.d_model=32",
    "model.layers=1",
    "model.heads=2",
    "model.kv_heads=1",
    "model.vocab_size=300",
    "model.context=32",
)
TINY_EXPERTS = ("experts.widths=[8,16]", "experts.per_group=2", "experts.shared_width=8")
TINY_ROUTER = ("router.group_top_k=1", "router.expert_top_k=2")


def write_corpus(folder: Path) -> Path:
    """Made-up sentences in two domains, the same ones at every call; returns the folder."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 7))) for _ in range(200)]
    for domain, end in (("lists", " 1, 2;"), ("prose", ".")):
        (folder / domain).mkdir(parents=True)
        for number in range(10):
            lines = (" ".join(rng.choices(words, k=8)) + end for _ in range(60))
            (folder / domain / f"{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def tiny_data(corpus: Path, cache: Path) -> list[str]:
    """Overrides that read the tiny corpus."""
    return [
        *("data=text_files", f"data.path={corpus}", f"paths.cache_dir={cache}"),
        *("data.batch_sequences=4", "data.validation_fraction=0.2", "trainer.val_sequences=4"),
    ]


def tiny_run(corpus: Path, cache: Path) -> list[str]:
    """Overrides of a run of a hundred steps a second, each of them recorded."""
    return [
        *(*TINY_MODEL, *TINY_EXPERTS, *TINY_ROUTER, *tiny_data(corpus, cache)),
        *("logger=none", "callbacks=none", "trainer.log_every=1"),
    ]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run, in order."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def train_here(run: Path, *overrides: str) -> list[dict[str, Any]]:
    """Train in this process, as mohge-train would in one of its own; returns the records of the run."""
    from mohge.training.run import train  # here: it takes seconds to import

    config = typed(TrainConfig, composed(*overrides, f"paths.run_dir={run}"))
    train(config, RunFolder(run), list(overrides))
    return read_metrics(run)
