from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_samples import Configure, words
from pydantic import TypeAdapter

from datamodules.prepare import prepare
from datamodules.store import open_store
from mohge.config.schema import DataConfig
from mohge.errors import UserError


def stages(cfg: DataConfig) -> list[str]:
    return sorted(path.name for path in Path(cfg.cache_dir).glob("*/*"))


def test_preparing_twice_does_nothing_the_second_time(configure: Configure, folder: Path) -> None:
    cfg = configure(path=str(folder))
    store = prepare(cfg, progress=False)
    made = {path: path.stat().st_mtime_ns for path in store.iterdir()}
    assert prepare(cfg, progress=False) == store
    assert {path: path.stat().st_mtime_ns for path in store.iterdir()} == made
    assert len(stages(cfg)) == 2


def test_the_same_corpus_gives_the_same_store_in_another_cache(
    configure: Configure, folder: Path, tmp_path: Path
) -> None:
    manifests = []
    for cache in ("one", "two"):
        cfg = configure(path=str(folder), cache_dir=str(tmp_path / cache))
        manifests.append((prepare(cfg, progress=False) / "manifest.json").read_text())
    assert manifests[0] == manifests[1]


def test_settings_share_documents_and_changed_files_do_not(configure: Configure, folder: Path) -> None:
    cfg = configure(path=str(folder))
    prepare(cfg, progress=False)
    prepare(configure(path=str(folder), vocab_size=290), progress=False)
    assert len(stages(cfg)) == 3
    (folder / "prose" / "00.md").write_text(words(99, 40), encoding="utf-8")
    prepare(cfg, progress=False)
    assert len(stages(cfg)) == 5


def test_two_processes_do_not_collide(configure: Configure, folder: Path) -> None:
    cfg = configure(path=str(folder))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.starmap(_prepare_quietly, [(cfg,), (cfg,)])
    assert first == second
    open_store(first, "remedy")
    assert len(stages(cfg)) == 2


def _prepare_quietly(cfg: DataConfig) -> Path:
    return prepare(cfg, progress=False)


def test_max_bytes_is_kept_and_shared_by_domains(configure: Configure, folder: Path) -> None:
    full = open_store(prepare(configure(path=str(folder)), progress=False), "").manifest
    half = sum(full.corpus.bytes.values()) // 2
    part = open_store(prepare(configure(path=str(folder), max_bytes=half), progress=False), "").manifest
    used = {name: sum(part.counts[split][name].bytes for split in part.counts) for name in part.domains}  # type: ignore[index]
    assert 0.6 * half < sum(used.values()) <= half
    assert all(0.5 < 2 * used[name] / full.corpus.bytes[name] <= 1.01 for name in used)


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove", "manifest"])
@pytest.mark.parametrize("name", ["tokens.bin", "documents.npy", "tokenizer.json"])
def test_a_damaged_store_is_named_with_its_remedy(
    configure: Configure, folder: Path, name: str, damage: str
) -> None:
    store = prepare(configure(path=str(folder)), progress=False)
    path = store / name
    content = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "alter":
        path.write_bytes(content[:-2] + b"!!")
    elif damage == "remove":
        path.unlink()
    else:
        path = store / "manifest.json"
        path.write_text(path.read_text()[:-100])
    with pytest.raises(UserError) as caught:
        open_store(store, f"delete {store} and run mohge-prepare data=text_files again")
    assert str(path) in str(caught.value)
    assert f"delete {store}" in str(caught.value)


def test_altered_documents_are_named(configure: Configure, folder: Path) -> None:
    cfg = configure(path=str(folder))
    shutil.rmtree(prepare(cfg, progress=False))
    (documents,) = Path(cfg.cache_dir).glob("corpora/*/documents.jsonl")
    documents.write_text(documents.read_text("utf-8").replace("expert", "export"), "utf-8")
    with pytest.raises(UserError, match=r"documents.jsonl has changed since it was made: delete .* again"):
        prepare(cfg, progress=False)


def test_what_a_killed_process_left_is_replaced(configure: Configure, folder: Path) -> None:
    cfg = configure(path=str(folder))
    store = prepare(cfg, progress=False)
    shutil.move(store, f"{store}.partial")
    (Path(f"{store}.partial") / "tokens.bin").write_bytes(b"half")
    assert prepare(cfg, progress=False) == store
    open_store(store, "remedy")
    assert not list(Path(cfg.cache_dir).glob("*/*.partial"))


_LIMITED = """
import resource, sys, json
from mohge.config.schema import DataConfig
from mohge.errors import UserError
from datamodules.prepare import prepare
cfg = DataConfig(**json.loads(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    prepare(cfg, progress=False)
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("stage", ["documents", "tokens"])
def test_a_full_disk_is_told_and_nothing_half_written_stays(
    configure: Configure, folder: Path, stage: str
) -> None:
    cfg = configure(path=str(folder))
    if stage == "tokens":
        shutil.rmtree(prepare(cfg, progress=False))
    before = stages(cfg)
    fields = TypeAdapter(DataConfig).dump_python(cfg)
    result = subprocess.run(
        [sys.executable, "-c", _LIMITED, json.dumps(fields)], capture_output=True, text=True, check=True
    )
    assert "cannot write under data.cache_dir" in result.stdout
    assert result.stdout.count("\n") == 1
    assert stages(cfg) == before
