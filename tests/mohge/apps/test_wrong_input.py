"""Wrong input: one sentence, exit status 2, and nothing left behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import run_command
from refusals import assert_refused, contents

CONFIG_SECONDS = 2.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with things to get wrong."""
    files = {
        "binary/a.txt": b"text\0text" * 50,
        "pictures/a.png": b"\x89PNG",
        "file": b"",
        "not_a_tokenizer.json": b"{}",
        "word_level.json": _word_level_tokenizer(),
        "damaged_run/config.yaml": b"model: [",
        "taken/config.yaml": b"seed: 1\n",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "empty").mkdir()
    return tmp_path


def _word_level_tokenizer() -> bytes:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).to_str().encode()


CONFIG_MISTAKES = [
    # unknown keys and choices
    ("mohge-train", "model.d_modl=64", ["model.d_modl", "did you mean model.d_model?"]),
    ("mohge-train", "+router.group_topk=2", ["router.group_topk", "did you mean router.group_top_k?"]),
    ("mohge-train", "+colour=blue", ["unknown key colour"]),
    ("mohge-train", "archi=moe", ["archi", "did you mean arch"]),
    (
        "mohge-train",
        "arch=mohgee",
        ["arch=mohgee", "dense, moe, mohge", "did you mean mohge?"],
    ),
    ("mohge-train", "experiment=quickstrat", ["experiment=quickstrat", "did you mean quickstart?"]),
    ("mohge-plan", "model=huge", ["model=huge", "nano", "tiny"]),
    ("mohge-plan", "model=[nano,tiny]", ["model is not one size", "nano"]),
    # wrong types and values
    ("mohge-train", "model.d_model=wide", ["model.d_model='wide'", "whole number"]),
    ("mohge-train", "model.layers=2.5", ["model.layers=2.5", "whole number"]),
    ("mohge-train", "trainer.max_steps=true", ["trainer.max_steps=true", "a number"]),
    ("mohge-train", "experts.widths=64", ["experts.widths=64", "a list such as [64,128]"]),
    ("mohge-train", "optim.lr=-1", ["optim.lr=-1", "greater than 0"]),
    ("mohge-train", "optim.lr=inf", ["optim.lr=inf", "finite"]),
    ("mohge-train", "data.validation_fraction=1.5", ["data.validation_fraction=1.5", "less than 1"]),
    ("mohge-train", "trainer.precision=fp8", ["trainer.precision='fp8'", "'fp32' or 'bf16'"]),
    ("mohge-train", "seed=null", ["seed=None", "whole number"]),
    ("mohge-plan", "format=xml", ["format='xml'", "'table' or 'json'"]),
    # malformed overrides
    ("mohge-train", "trainer.max_steps", ["'trainer.max_steps'", "key=value"]),
    ("mohge-train", "experts.widths=[1", ["'experts.widths=[1'", "key=value"]),
    ("mohge-train", "seed=${nowhere}", ["seed", "nowhere"]),
    # combinations that cannot work
    ("mohge-train", "model.heads=7", ["model.heads=7", "model.d_model=128"]),
    ("mohge-train", "router.expert_top_k=9", ["router.expert_top_k=9", "at most 8"]),
    ("mohge-train", "router.group_top_k=5", ["router.group_top_k=5", "4 groups"]),
    ("mohge-train", "experts.groups=3", ["experts.groups=3", "[48, 80, 112, 144]"]),
    ("mohge-train", "trainer.devices=2", ["trainer.devices=2", "parallel=single"]),
    ("mohge-train", "data.context=512", ["data.context=512", "model.context=256"]),
    ("mohge-train", "data=text_files", ["data.path"]),
    # folders and files
    ("mohge-train", "resume=nowhere", ["nowhere", "holds no run"]),
    ("mohge-train", "resume=damaged_run", ["damaged_run/config.yaml is damaged"]),
    ("mohge-train", "paths.run_dir=taken", ["paths.run_dir=taken holds a run already", "resume=taken"]),
    ("mohge-train", "paths.run_dir=file/run", ["file/run", "paths.run_dir"]),
    ("mohge-train", "paths.output_dir=file", ["file/nano-mohge", "Not a directory"]),
    ("mohge-train", "paths.cache_dir=file", ["data.cache_dir=file", "file is a file"]),
    ("mohge-plan", "output=file/plan.json", ["cannot write file/plan.json"]),
    ("mohge-train", "data.check=nowhere.check", ["data.check=nowhere.check", "cannot be imported"]),
    ("mohge-train", "data=text_files data.path=nowhere", ["data.path=nowhere does not exist"]),
    ("mohge-train", "data=text_files data.path=empty", ["data.path=empty holds no .txt, .md or .jsonl"]),
    ("mohge-train", "data=text_files data.path=pictures", ["data.path=pictures holds no .txt"]),
    ("mohge-train", "data=text_files data.path=binary", ["binary/a.txt is binary"]),
    ("mohge-prepare", "data=text_files data.path=binary", ["binary/a.txt is binary"]),
    ("mohge-train", "data.tokenizer=nowhere.json", ["data.tokenizer=nowhere.json cannot be read"]),
    ("mohge-train", "data.tokenizer=not_a_tokenizer.json", ["not_a_tokenizer.json is not a tokenizer"]),
    ("mohge-prepare", "data.tokenizer=word_level.json", ["not a byte-level BPE", "WordLevel"]),
    ("mohge-train", "model.vocab_size=100", ["vocab_size=100"]),
]


@pytest.mark.parametrize(
    ("command", "overrides", "fragments"), CONFIG_MISTAKES, ids=[f"{c} {o}" for c, o, _ in CONFIG_MISTAKES]
)
def test_a_wrong_configuration_is_refused_before_anything_heavy(folder, command, overrides, fragments):
    before = contents(folder)
    cache = [] if "cache_dir" in overrides else ["paths.cache_dir=cache"]
    quiet = [] if command == "mohge-plan" else cache
    finished = run_command(
        command,
        [*overrides.split(), *quiet],
        folder,
        environment={"PYTHONPROFILEIMPORTTIME": "1"},
    )
    assert_refused(finished, fragments)
    assert contents(folder) == before
    assert not (folder / "cache").exists()
    assert finished.cpu_seconds < CONFIG_SECONDS
    imported = set(re.findall(r"\| +([\w.]+)$", finished.stderr, flags=re.MULTILINE))
    assert "mohge.config.schema" in imported, "the profile of imports works"
    assert imported.isdisjoint({"torch", "lightning", "mlflow", "datasets"})
