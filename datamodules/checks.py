"""What can be found wrong with a data configuration before torch is imported or text is read."""

from __future__ import annotations

import os
from pathlib import Path

from datamodules.cache import cache_folder, documents_folder
from datamodules.corpora.select import build_corpus
from mohge.config.schema import DataConfig
from mohge.errors import UserError


def check(cfg: DataConfig) -> None:
    """Look, in well under a second, for what would make the preparation fail.

    Raises:
        UserError: a path that does not exist, a tokenizer that does not fit, a system that lacks what the
            corpus needs, a cache that cannot be written, … and benchmarks, which are no corpus.
    """
    if cfg.name == "benchmarks":
        raise UserError(
            "data=benchmarks holds items to score, not text to train on: choose another data=, and prepare "
            "the benchmarks for mohge-eval with mohge-prepare data=benchmarks."
        )
    check_cache(cache_folder(cfg))
    # The tokenizers library is a compiled module of its own: quick to import, unlike torch.
    from datamodules.tokenizer import SMALLEST_VOCABULARY, load_tokenizer

    if cfg.tokenizer is not None:
        load_tokenizer(Path(cfg.tokenizer).expanduser(), cfg.vocab_size)
    elif cfg.vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            f"data.vocab_size={cfg.vocab_size} is too small for a byte-level tokenizer: "
            f"set model.vocab_size to {SMALLEST_VOCABULARY} or more."
        )
    corpus = build_corpus(cfg)
    if not documents_folder(cfg, corpus).exists():
        corpus.check()


def check_cache(folder: Path) -> None:
    """Raise UserError if the folder of prepared data could not be made or written."""
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UserError(
            f"data.cache_dir={folder} cannot be a folder, since {nearest} is a file: choose another."
        )
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(
            f"data.cache_dir={folder} cannot be written: choose another with paths.cache_dir=DIR."
        )
