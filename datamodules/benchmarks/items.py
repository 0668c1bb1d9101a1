"""From what the wheel holds to the schema of the datasets that lm-eval's stock definitions read.

Where the wheel has prompts instead of a dataset's fields, the fields are cut out of the prompts; an item
that does not have the expected form raises ValueError, so that none changes silently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
_LETTERS = "ABCDEFGH"


def fields(requests: Sequence[Row], *names: str) -> list[Row]:
    """Items that have all fields, under the same names."""
    return [{name: request["doc"][name] for name in names} for request in requests]


def passages(requests: Sequence[Row]) -> list[Row]:
    """LAMBADA: the text with its last word, which the stock definition splits off again at a blank."""
    return [
        {"text": request["request"]["context"] + request["request"]["continuation"]} for request in requests
    ]


def lettered(requests: Sequence[Row], question: str) -> list[Row]:
    """ARC and OpenBookQA: questions with choices, lettered anew from A.

    Args:
        requests: with the prompt "Question: …\\nAnswer:", the choices and the number of the right one.
        question: name of the field with the question.
    """
    rows = []
    for request in requests:
        item = request["doc"]
        texts = item["choices"]
        rows.append(
            {
                "id": item["id"],
                question: between(item["query"], "Question: ", "\nAnswer:"),
                "choices": {"text": texts, "label": list(_LETTERS[: len(texts)])},
                "answerKey": _LETTERS[item["gold"]],
            }
        )
    return rows


def titled(rows: Sequence[Row], requests: Sequence[Row]) -> list[Row]:
    """BoolQ as in SuperGLUE: a passage starts with its title, and the label is a number, 1 for yes.

    The dataset in the wheel has neither; the prompts have the title.

    Args:
        rows: of the dataset, with question, answer (true or false) and passage.
        requests: with the prompt made of the titled passage and the question, in the same order.
    """
    items = []
    for number, (row, request) in enumerate(zip(rows, requests, strict=True)):
        passage = between(request["doc"]["query"], "", f"\nQuestion: {row['question']}?\nAnswer:")
        if not passage.endswith(row["passage"]):
            raise ValueError(f"item {number} has another passage in its prompt: {passage[:80]!r}")
        items.append(
            {"question": row["question"], "passage": passage, "idx": number, "label": int(row["answer"])}
        )
    return items


def trivia(rows: Sequence[Row]) -> list[Row]:
    """TriviaQA without the columns of evidence, which are empty in this configuration."""
    return [{name: row[name] for name in ("question", "question_id", "answer")} for row in rows]


def between(text: str, start: str, end: str) -> str:
    """What is between a start and an end; raises ValueError if the text has not both."""
    if not (text.startswith(start) and text.endswith(end)):
        raise ValueError(f"expected {start!r} … {end!r}, not {text[:40]!r} … {text[-40:]!r}")
    return text[len(start) : len(text) - len(end)]
