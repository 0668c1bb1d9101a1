"""Lifelines: who holds one, and what is left of those that nobody holds."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from mohge.sweep import stopping
from mohge.sweep.stopping import is_cut, lifeline


def test_a_lifeline_is_there_as_long_as_it_is_held(tmp_path):
    line = tmp_path / "deep" / ".a.lifeline"
    assert is_cut(line)
    with lifeline(line):
        assert not is_cut(line)
        assert list(line.parent.iterdir()) == [line]
    assert is_cut(line)
    assert list(line.parent.iterdir()) == []


def test_those_of_killed_commands_are_removed_and_those_of_others_stay(tmp_path):
    (tmp_path / ".killed.lifeline").touch()
    with lifeline(tmp_path / ".other.lifeline"), lifeline(tmp_path / ".a.lifeline"):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".a.lifeline", ".other.lifeline"]


def test_one_that_another_command_took_for_dead_is_made_again(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Between the moment that it is there and the moment that it is held."""
    line, lock, removed = tmp_path / ".a.lifeline", fcntl.flock, [False]

    def lock_late(file: object, how: int) -> None:
        if not removed[0] and how == fcntl.LOCK_EX:
            removed[0] = True
            stopping._remove_cut(line)
            assert not line.exists()
        lock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with lifeline(line):
        assert removed == [True]
        assert not is_cut(line)


def test_what_is_held_is_not_removed(tmp_path: Path):
    with lifeline(tmp_path / ".a.lifeline"):
        stopping._remove_cut(tmp_path / ".a.lifeline")
        assert not is_cut(tmp_path / ".a.lifeline")
