"""A corpus that was prepared anew in the middle of a sweep is noticed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from mohge.apps.output import FILE_WIDTH
from mohge.sweep.cells import Cell, Plan
from mohge.sweep.same_data import different_data
from mohge.sweep.table import Display

ARMS = ("moe", "mohge", "long")
PLAN = Plan(
    name="mine",
    baseline="moe",
    seeds=[1, 2],
    overrides=[],
    arms={arm: {} for arm in ARMS},
    contrasts={},
    cells=[Cell(f"{arm}{seed}", arm, seed, "", 10, []) for seed in (1, 2) for arm in ARMS],
)
SETTINGS = {"name": "debian_docs", "context": 256, "cache_dir": "/a", "workers": 0}


def write(folder: Path, id: str, fingerprint: str, *versions: str, **settings: Any) -> None:
    run = folder / "cells" / id
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"data": SETTINGS | settings}))
    sources = [
        {"name": f"doc{number}", "version": version, "sha256": version}
        for number, version in enumerate(versions)
    ]
    (run / "data.json").write_text(json.dumps({"fingerprint": fingerprint, "sources": sources}))
    (run / "status.json").write_text(json.dumps({"state": "finished", "step": 10}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "moe1", "f00d", "1", "1")
    write(tmp_path, "mohge1", "f00d", "1", "1", cache_dir="/b", workers=4)
    write(tmp_path, "long1", "cafe", "1", "1", context=512)  # a setting of its own, so other tokens
    return tmp_path


def test_the_same_data_and_other_settings_are_no_remark(folder):
    assert different_data(folder, PLAN) is None


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        (("1", "1"), "settings: reports"),
        (("1", "2"), "settings (other versions of doc1): reports"),
        (("2",), "settings (other versions of doc0, doc1): reports"),
        (("2", "2", "2", "2", "2"), "settings (other versions of doc0, doc1, doc2 and 2 more): reports"),
    ],
)
def test_other_tokens_with_the_same_settings_are_told_with_the_sources_that_differ(folder, versions, told):
    write(folder, "moe2", "beef", *versions)
    remark = different_data(folder, PLAN)
    assert remark is not None
    assert remark.startswith("moe seed 1 (as 1 more) and moe seed 2 read different data with the same ")
    assert told in remark


@pytest.mark.parametrize(
    ("name", "text"), [("data.json", "{"), ("data.json", "[]"), ("config.yaml", "data: [")]
)
def test_what_is_damaged_is_left_to_the_state_of_its_cell(folder, name, text):
    write(folder, "moe2", "beef")
    (folder / "cells/moe2" / name).write_text(text)
    assert different_data(folder, PLAN) is None


def test_the_display_tells_it_once(folder):
    write(folder, "moe2", "beef")
    console = Console(file=io.StringIO(), width=FILE_WIDTH)
    with Display(folder, PLAN, console) as display:
        display.update()
        write(folder, "mohge2", "beef")
        display.update()
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert told.count("read different data") == 2  # once for one cell, and once for two
    assert "moe seed 1 (as 1 more) and moe seed 2 (as 1 more) read" in " ".join(told.split())
