from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from mohge.errors import UserError
from mohge.training.checkpoint import (
    TENSORS,
    VerifiedCheckpointIO,
    discard_after,
    find_damage,
    load_checkpoint,
    load_tensors,
    newest_intact,
    read_tensors,
)
from mohge.training.checkpoint_names import checkpoint_name, list_checkpoints


def save(folder: Path, step: int) -> Path:
    path = folder / checkpoint_name(step)
    checkpoint = {"global_step": step, TENSORS: {"model.a": torch.arange(6.0).view(2, 3) + step}}
    VerifiedCheckpointIO().save_checkpoint(checkpoint, path)
    return path


SHARD = "shard-00001-model-00001-of-00001.safetensors"


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "manifest.json is missing": lambda path: (path / "manifest.json").unlink(),
    "manifest.json is unreadable": lambda path: (path / "manifest.json").write_text('{"bytes": 1'),
    "state.ckpt is missing": lambda path: (path / "state.ckpt").unlink(),
    "state.ckpt has": lambda path: truncate(path / "state.ckpt"),
    "state.ckpt does not match its checksum": lambda path: flip_a_bit(path / "state.ckpt"),
    f"{SHARD} is missing": lambda path: (path / SHARD).unlink(),
    f"{SHARD} has": lambda path: truncate(path / SHARD),
    f"{SHARD} does not match its checksum": lambda path: flip_a_bit(path / SHARD),
}


def test_what_was_saved_is_loaded(tmp_path):
    path = save(tmp_path, 100)
    assert path.name == "step_00000100"
    assert find_damage(path) is None
    loaded = load_checkpoint(path)
    assert loaded["global_step"] == 100
    tensors = {"model.a": torch.zeros(2, 3)}
    load_tensors(path, tensors)
    assert torch.equal(tensors["model.a"], torch.arange(6.0).view(2, 3) + 100)
    assert torch.equal(read_tensors(path, "model.")["a"], tensors["model.a"])
    assert list_checkpoints(tmp_path) == [path]


@pytest.mark.parametrize("tensors", [{"model.b": torch.zeros(2, 3)}, {"model.a": torch.zeros(3, 3)}])
def test_tensors_of_another_model_are_refused(tmp_path, tensors):
    remedy = "continue with the code that wrote it, or start a new run without resume"
    with pytest.raises(UserError, match=f"does not hold the tensors of this model .*: {remedy}"):
        load_tensors(save(tmp_path, 1), tensors)


def test_folders_of_a_user_are_no_checkpoints(tmp_path):
    saved = [save(tmp_path, step) for step in (20, 99_999_999, 100_000_000)]
    kept = [tmp_path / name for name in ("step_00000020_best", "step_", "step_last", "step_100000001.old")]
    for path in kept:
        path.mkdir()
    (tmp_path / "step_00000030").write_text("a file")
    assert list_checkpoints(tmp_path) == saved, "the oldest first, however many digits there are"
    assert newest_intact(tmp_path) == (saved[-1], [])
    discard_after(tmp_path, saved[0])
    assert list_checkpoints(tmp_path) == saved[:1]
    assert all(path.is_dir() for path in kept)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_the_checkpoint_before_is_used(tmp_path, damage):
    oldest, before, newest = (save(tmp_path, step) for step in (5, 50, 500))
    DAMAGES[damage](newest)
    path, sentences = newest_intact(tmp_path)
    assert path == before
    assert len(sentences) == 1
    assert f"checkpoint {newest} is damaged ({damage}" in sentences[0]
    with pytest.raises(UserError, match=f"checkpoint {newest} is damaged"):
        load_checkpoint(newest)
    assert find_damage(oldest) is None


def test_with_nothing_but_damaged_checkpoints_each_is_named(tmp_path):
    paths = [save(tmp_path, step) for step in (5, 50)]
    for path in paths:
        truncate(path / "state.ckpt")
    with pytest.raises(UserError, match="no intact one is left") as caught:
        newest_intact(tmp_path)
    assert all(str(path) in str(caught.value) for path in paths)


def test_without_checkpoints_there_is_none(tmp_path):
    assert newest_intact(tmp_path / "absent") == (None, [])


@pytest.mark.parametrize(("where", "failing"), [(torch, "save"), (os, "fsync"), (os, "rename")])
def test_a_save_that_fails_leaves_neither_half_nor_temporary(tmp_path, monkeypatch, where, failing):
    kept = save(tmp_path, 1)

    def refuse(*arguments: object, **settings: object) -> None:
        if failing == "save":
            raise RuntimeError("PytorchStreamWriter failed writing file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, failing, refuse)
    with pytest.raises(UserError, match=r"cannot write checkpoint .*step_00000002: .*free space"):
        save(tmp_path, 2)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [kept]
    assert newest_intact(tmp_path) == (kept, [])


class Payload:
    """Unpickles by calling a function of its choice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._path),)


def test_a_checkpoint_with_code_is_refused_and_the_code_not_run(tmp_path):
    """The checksum does not help here: whoever writes the code writes the manifest too."""
    path = save(tmp_path, 1)
    torch.save({"global_step": 1, "weights": Payload(tmp_path / "owned")}, path / "state.ckpt")
    content = (path / "state.ckpt").read_bytes()
    assert b"mkdir" in content or pickle.MARK in content
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.ckpt"] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        UserError, match=r"is not a checkpoint of this program .*: use another, or the version"
    ):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()
