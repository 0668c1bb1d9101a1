"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from mohge.errors import UserError
from mohge.files import (
    atomic_folder,
    atomic_path,
    json_plain,
    locked,
    refuse_taken,
    sha256_of,
    write_json_atomically,
    write_text_atomically,
)


class InterruptionError(Exception):
    """Stands for whatever ends a writer in the middle."""


def test_numbers_that_json_does_not_have_become_null():
    assert json_plain({"a": [float("nan"), (1.5, float("inf"))], 2: -float("inf")}) == {
        "a": [None, [1.5, None]],
        "2": None,
    }


def test_what_is_already_plain_is_left_as_it_is():
    value = {"text": "nan", "number": 3, "flag": True, "nothing": None, "list": [0.5]}
    assert json_plain(value) == value


def test_a_text_replaces_the_one_before_and_makes_its_folders(tmp_path):
    path = tmp_path / "deep" / "note.txt"
    write_text_atomically(path, "one")
    write_text_atomically(path, "zwei ≤ drei")
    assert path.read_text(encoding="utf-8") == "zwei ≤ drei"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut may leave the name with nothing behind it."""
    path, flushed = tmp_path / "note.txt", []
    write_text_atomically(path, "before")
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append((os.pread(file, 9, 0), path.read_text())))
    write_text_atomically(path, "after")
    assert flushed == [(b"after", "before")]
    assert path.read_text() == "after"


def test_a_file_that_was_never_made_is_missed(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*note\.txt: No such file"),
        atomic_path(tmp_path / "note.txt"),
    ):
        pass


@pytest.mark.parametrize("named", [atomic_path, atomic_folder])
def test_hosts_that_share_a_folder_write_under_different_names(tmp_path, monkeypatch, named):
    """Their processes may have the same number."""
    names = []
    for host in ("one.local", "two/\n"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        with suppress(InterruptionError), named(tmp_path / "x") as temporary:
            names.append(temporary.name)
            raise InterruptionError
    assert names == [f".x.one_local.{os.getpid()}.tmp", f".x.two__.{os.getpid()}.tmp"]


def test_an_interrupted_write_leaves_the_file_before_and_nothing_beside_it(tmp_path):
    path = tmp_path / "result.json"
    write_json_atomically(path, {"step": 1})
    with suppress(InterruptionError), atomic_path(path) as temporary:
        temporary.write_text('{"step": 2')
        raise InterruptionError
    assert json.loads(path.read_text()) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.raises(UserError, match=r"cannot write .*file/result\.txt: .*give another folder"):
        write_text_atomically(tmp_path / "file" / "result.txt", "")


def test_a_folder_appears_whole(tmp_path):
    target = tmp_path / "a" / "b"
    with atomic_folder(target) as temporary:
        (temporary / "part").write_text("x")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["part"]
    assert list(target.parent.iterdir()) == [target]


def test_an_interrupted_folder_takes_along_the_parents_it_made(tmp_path):
    with suppress(InterruptionError), atomic_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "part").write_text("x")
        raise InterruptionError
    assert list(tmp_path.iterdir()) == []


def test_only_an_empty_folder_may_be_written_as_a_whole(tmp_path):
    refuse_taken(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    refuse_taken(tmp_path / "empty")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    for path in (tmp_path / "taken", tmp_path / "taken" / "file"):
        with pytest.raises(UserError, match="is not an empty folder: delete it, or give another output=DIR"):
            refuse_taken(path)


def test_a_lock_is_gone_when_its_work_is_done_or_failed(tmp_path):
    path = tmp_path / "folder" / ".lock"
    for fails in (False, True):
        with suppress(InterruptionError), locked(path, "testing"):
            assert path.exists()
            if fails:
                raise InterruptionError
        assert not path.exists()


def test_a_checksum_is_that_of_the_published_vector(tmp_path: Path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
