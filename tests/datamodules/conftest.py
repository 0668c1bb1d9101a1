from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from corpus_samples import Configure, words

from mohge.config.schema import DataConfig


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """A small data configuration; keyword arguments replace its fields."""

    def make(**fields: Any) -> DataConfig:
        defaults: dict[str, Any] = {
            "target": "datamodules.TextDataModule",
            "name": "text_files",
            "vocab_size": 300,
            "context": 32,
            "batch_sequences": 4,
            "cache_dir": str(tmp_path / "cache"),
            "validation_fraction": 0.2,
        }
        return DataConfig(**{**defaults, **fields})

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two domains of text files and one of JSON lines."""
    root = tmp_path / "texts"
    for domain, count in (("prose", 12), ("poems", 6)):
        (root / domain).mkdir(parents=True)
        for number in range(count):
            text = words(sum(domain.encode()) * 100 + number, 120)
            (root / domain / f"{number:02}.{'txt' if number % 2 else 'md'}").write_text(
                text, encoding="utf-8"
            )
    (root / "lines").mkdir()
    records = [{"text": words(1000 + number, 60), "topic": f"t{number % 2}"} for number in range(20)]
    (root / "lines" / "all.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return root
