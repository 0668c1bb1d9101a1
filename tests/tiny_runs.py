"""A tiny corpus, a tiny model, and the commands run on them as a user would."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY_MODEL = (
    "model.d_model=32",
    "model.layers=1",
    "model.heads=2",
    "model.kv_heads=1",
    "model.vocab_size=300",
    "model.context=32",
    "model.mla.kv_rank=16",
    "model.mla.nope_dim=8",
    "model.mla.rope_dim=8",
    "model.mla.value_dim=8",
)
"""Sizes that any model choice shrinks to."""

TINY_EXPERTS = ("experts.widths=[8,16]", "experts.per_group=2", "experts.shared_width=8")
TINY_TWO_LEVEL = ("router.group_top_k=1", "router.expert_top_k=2")

QUIET = ("logger=none", "callbacks=none")


def write_corpus(folder: Path, lines: int = 1200) -> Path:
    """Two domains of made-up sentences, the same ones at every call."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 7))) for _ in range(200)]
    for domain in ("prose", "lists"):
        (folder / domain).mkdir(parents=True)
        for number in range(10):
            text = "\n".join(
                " ".join(rng.choices(words, k=8)) + ("." if domain == "prose" else " 1, 2;")
                for _ in range(lines // 20)
            )
            (folder / domain / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder


def tiny_overrides(corpus: Path, cache: Path) -> list[str]:
    """A run of a fraction of a second per ten steps."""
    return [
        *("model=nano", *TINY_MODEL, *TINY_EXPERTS, *TINY_TWO_LEVEL, *QUIET),
        *("data=text_files", f"data.path={corpus}", f"paths.cache_dir={cache}", "data.batch_sequences=4"),
        *("data.validation_fraction=0.2", "trainer.val_sequences=4", "trainer.log_every=1"),
    ]


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    status: int
    stdout: str
    stderr: str
    cpu_seconds: float

    @property
    def text(self) -> str:
        return self.stdout + self.stderr


def run_command(name: str, arguments: Sequence[str], cwd: Path, **environment: str) -> Finished:
    """Run a console command of this environment in folder `cwd`."""
    process = start_command(name, arguments, cwd, **environment)
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = process.communicate(timeout=300)
    return Finished(process.returncode, stdout, stderr, 0.0)


def start_command(
    name: str, arguments: Sequence[str], cwd: Path, **environment: str
) -> subprocess.Popen[str]:
    """Start a console command of this environment in folder `cwd`."""
    return subprocess.Popen(
        [Path(sys.executable).with_name(name), *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The records of a run, in order."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
