"""Who may run a cell, by its log of attempts."""

from __future__ import annotations

import datetime
import fcntl
import json
from pathlib import Path

import pytest

from mohge.sweep.attempts import Attempt, CellFolder, claimed, failure, may_start


def attempt(event: str, status: int | None = None, invocation: str = "first") -> Attempt:
    noon = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
    return Attempt(event, noon, "host:1", invocation, status)  # type: ignore[arg-type]


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
        ([*KILLED, attempt("start", None, "second"), attempt("end", -9, "second")], False, True, True),
        ([*FAILED, attempt("start", None, "second"), attempt("end", 1, "second")], False, False, True),
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
    assert (cell.taken, cell.attempts(), cell.look().state) == (False, [], "waiting")
    with claimed(cell, "first") as claim, claimed(cell, "second") as other:
        assert claim is not None
        assert other is None
        assert cell.look().state == "running"
    assert cell.look().state == "waiting"


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
    assert cell.look().state == "failed"
    fields = json.loads(Path(cell.attempts_path).read_text().splitlines()[-1])
    assert fields.keys() >= {"event", "time", "worker", "status", "reason"}


LINE = {"event": "start", "time": "2026-01-31T12:00:00+00:00", "worker": "a:1", "invocation": "x"}


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ({**LINE, "host": "of a later version"}, 1),
        ({key: LINE[key] for key in ("event", "time", "worker")}, 0),
        ({**LINE, "time": "noon"}, 0),
        ({**LINE, "event": "middle"}, 0),
        ([], 0),
        (None, 0),
    ],
)
def test_a_line_that_cannot_be_read_is_none(tmp_path, line, read):
    cell = CellFolder(tmp_path, "one")
    cell.attempts_path.write_text(json.dumps(line) + "\n" + json.dumps(LINE) + "\n")
    assert [a.event for a in cell.attempts()] == ["start"] * (1 + read)


@pytest.mark.parametrize("text", ["", '{"state": "fini'])
def test_a_cell_whose_status_is_damaged_has_failed_unless_somebody_runs_it(tmp_path, text):
    cell = CellFolder(tmp_path, "one")
    cell.run.path.mkdir()
    (cell.run.path / "status.json").write_text(text)
    seen = cell.look()
    assert (seen.state, seen.status, cell.finished) == ("failed", {}, False)
    assert (
        seen.reason == f"{cell.run.path}/status.json is damaged: delete it, and the run continues without it"
    )
    with claimed(cell, "first"):
        assert cell.look().state == "running"
