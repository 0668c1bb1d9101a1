"""Where prepared folders are."""

from __future__ import annotations

from pathlib import Path

from datamodules.corpora.base import Corpus
from datamodules.files import digest
from mohge.config.schema import DataConfig


def cache_folder(cfg: DataConfig) -> Path:
    """`data.cache_dir` with ~ expanded."""
    return Path(cfg.cache_dir).expanduser()


def documents_identity(cfg: DataConfig, corpus: Corpus) -> dict[str, object]:
    """All that determines the documents of a corpus."""
    return {"name": cfg.name, **corpus.identity()}


def documents_folder(cfg: DataConfig, corpus: Corpus) -> Path:
    """Folder of a corpus's documents, named by a digest of what determines them."""
    return _folder(cfg, "corpora", documents_identity(cfg, corpus))


def tokens_folder(cfg: DataConfig, documents_sha256: str, settings: dict[str, object]) -> Path:
    """Folder of a token store, named by a digest of the documents and the settings."""
    return _folder(cfg, "tokens", [documents_sha256, settings])


def remedy(cfg: DataConfig, folder: Path) -> str:
    """What to type when a prepared folder is damaged."""
    return f"delete {folder} and run mohge-prepare data={cfg.name} again with the same overrides"


def _folder(cfg: DataConfig, stage: str, content: object) -> Path:
    return cache_folder(cfg) / stage / f"{cfg.name}-{digest(content)[:16]}"
