"""Tasks of lm-eval with invented items: one of each kind of request."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import yaml

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "while", "seven", "small", "cats")
CHOICE, WORD, TEXT, WRITE, GROUP, BROKEN = (
    f"invented_{kind}_local" for kind in ("choice", "word", "text", "write", "group", "broken")
)
ACCURACY = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]


def write_tasks(folder: Path, items: int = 12) -> Path:
    """Writes tasks and their items; returns the folder of tasks.

    CHOICE: four continuations of a context, with acc and acc_norm. WORD: the last word of a passage, as
    LAMBADA has. TEXT: bits per byte of texts. WRITE: greedy generation. GROUP: two tasks of choices. BROKEN:
    its items lack what its prompt names.
    """
    rng = random.Random(7)

    def phrase(least: int, most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))

    choices = [
        {"question": phrase(2, 30), "options": [phrase(1, 3) for _ in range(4)], "gold": rng.randrange(4)}
        for _ in range(items)
    ]
    passages = [{"passage": phrase(1, 25), "last": rng.choice(WORDS)} for _ in range(items)]
    texts = [{"text": phrase(1, 40)} for _ in range(items - 1)] + [{"text": "x"}]
    multiple = {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "{{gold}}",
        "metric_list": [*ACCURACY, {**ACCURACY[0], "metric": "acc_norm"}],
    }
    _write(folder, CHOICE, choices, {**multiple, "task_alias": "Invented choices"})
    _write(
        *(folder, WORD, passages),
        {
            "output_type": "loglikelihood",
            "doc_to_text": "{{passage}}",
            "doc_to_target": "{{' ' + last}}",
            "metric_list": [
                {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
                *ACCURACY,
            ],
        },
    )
    _write(
        *(folder, TEXT, texts),
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "bits_per_byte"}],
        },
    )
    _write(
        *(folder, WRITE, passages),
        {
            "output_type": "generate_until",
            "doc_to_text": "{{passage}}",
            "doc_to_target": "{{last}}",
            "generation_kwargs": {"until": ["\n", "zebra"], "max_gen_toks": 6, "do_sample": False},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    )
    parts = []
    for part, some in (("a", choices[: items // 3]), ("b", choices[items // 3 :])):
        parts.append(f"{GROUP}_{part}")
        _write(folder, parts[-1], some, multiple)
    metric = {"metric": "acc", "weight_by_size": True}
    group = {"group": GROUP, "task": parts, "aggregate_metric_list": [metric], "metadata": {"version": 1.0}}
    (folder / "tasks" / "_group.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    _write(folder, BROKEN, passages, multiple)
    return folder / "tasks"


def _write(folder: Path, name: str, items: list[dict[str, Any]], definition: dict[str, Any]) -> None:
    tasks, data = folder / "tasks", folder / "items"
    for some in (tasks, data):
        some.mkdir(parents=True, exist_ok=True)
    file = data / f"{name}.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        **definition,
        "metadata": {"version": 1.0},
    }
    (tasks / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")


def find_tasks(cache_dir: str) -> Path:
    """Stands where mohge-eval looks for prepared benchmarks: those of CACHE/invented."""
    return Path(cache_dir) / "invented" / "tasks"
