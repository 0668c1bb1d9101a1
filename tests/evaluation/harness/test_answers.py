"""Answers that are kept."""

import sqlite3
from pathlib import Path

import pytest

from evaluation.harness.answers import Answers
from mohge.errors import UserError


def test_answers_outlive_the_process_that_asked(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.sqlite"
    first = Answers(path, "weights")
    keys = [first.key("score", [1, 2], [number]) for number in range(1200)]
    first.add((key, [number, True]) for number, key in enumerate(keys))
    first.close()
    found = Answers(path, "weights").find([*keys, first.key("score", [9], [9])])
    assert found == {key: [number, True] for number, key in enumerate(keys)}


def test_another_model_kind_or_request_has_another_key(tmp_path: Path) -> None:
    one, other = (Answers(None, model) for model in ("a", "b"))
    keys = {one.key("score", [1], [2]), other.key("score", [1], [2]), one.key("generate", [1], [2])}
    keys |= {one.key("score", [1, 2], []), one.key("score", [], [1, 2])}
    assert len(keys) == 5


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers.sqlite", "weights")
    with pytest.raises(TypeError, match="serializable"):
        answers.add([("one", 1), ("two", object())])
    assert answers.find(["one", "two"]) == {}
    answers.add([("one", 1)])
    assert answers.find(["one", "two"]) == {"one": 1}


def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    one, other = (Answers(tmp_path / "answers.sqlite", "weights") for _ in range(2))
    one.add([("a", 1)])
    other.add([("a", 1), ("b", 2)])
    assert one.find(["a", "b"]) == other.find(["a", "b"]) == {"a": 1, "b": 2}


def test_a_file_of_another_program_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(UserError, match="delete the file"):
        Answers(path, "weights")
    assert path.read_bytes().startswith(b"no database")


def test_a_damaged_answer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    answers = Answers(path, "weights")
    answers.add([("one", 1)])
    with sqlite3.connect(path) as file:
        file.execute("UPDATE answers SET answer = '[1,'")
    with pytest.raises(UserError, match="answers are computed again"):
        answers.find(["one"])
