"""Who may run a cell, by its log of attempts."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from mohge.sweep.attempts import Attempt, CellFolder, claimed, failure, may_start


def attempt(event: str, status: int | None = None, invocation: str = "first") -> Attempt:
    return Attempt(event, "2026-01-31T12:00:00+00:00", "host:1", invocation, status)  # type: ignore[arg-type]


START, STOPPED, KILLED, FAILED = (
    [attempt("start")],
    [attempt("start"), attempt("end")],
    [attempt("start"), attempt("end", -9)],
    [attempt("start"), attempt("end", 1)],
)


@pytest.mark.parametrize(
    ("attempts", "same", "next_one", "retrying"),
    [
        ([], True, True, True),
        (START, True, True, True),  # its worker was killed
        (STOPPED, True, True, True),
        (KILLED, False, True, True),
        (FAILED, False, False, True),
        ([*FAILED, attempt("start", invocation="second")], True, True, True),
    ],
)
def test_who_may_start(attempts, same, next_one, retrying):
    assert may_start(attempts, "first", retry=True) == same
    assert may_start(attempts, "other", retry=False) == next_one
    assert may_start(attempts, "other", retry=True) == retrying


def test_only_the_last_attempt_can_have_failed():
    assert failure(FAILED) == FAILED[-1]
    assert failure([*FAILED, *START]) is None
    assert failure([*FAILED, *STOPPED]) is None


def test_a_cell_is_held_by_one(tmp_path):
    cell = CellFolder(tmp_path / "cells", "one")
    assert (cell.taken, cell.attempts(), cell.state()) == (False, [], "waiting")
    with claimed(cell, "first") as claim, claimed(cell, "second") as other:
        assert claim is not None
        assert other is None
        assert cell.state() == "running"
    assert cell.state() == "waiting"


def test_a_run_that_somebody_continues_by_hand_is_taken(tmp_path):
    cell = CellFolder(tmp_path, "one")
    cell.run.path.mkdir()
    with (cell.run.path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with claimed(cell, "first") as claim:
            assert claim is None
    with claimed(cell, "first") as claim:
        assert claim is not None


def test_lines_follow_half_a_line_of_a_killed_worker(tmp_path):
    cell = CellFolder(tmp_path, "one")
    with claimed(cell, "first") as claim:
        claim.note("start")
    with cell.attempts_path.open("a") as log:
        log.write('{"event": "en')
    with claimed(cell, "second") as claim:
        claim.note("start")
        claim.note("end", 2, "wrong")
    assert [(a.event, a.invocation, a.status, a.reason) for a in cell.attempts()] == [
        ("start", "first", None, None),
        ("start", "second", None, None),
        ("end", "second", 2, "wrong"),
    ]
    assert cell.state() == "failed"
    fields = json.loads(Path(cell.attempts_path).read_text().splitlines()[-1])
    assert fields.keys() >= {"event", "time", "worker", "status", "reason"}
