"""The corpus that a configuration names."""

from __future__ import annotations

from datamodules.corpora.base import Corpus
from mohge.config.schema import DataConfig


def build_corpus(cfg: DataConfig) -> Corpus:
    """The corpus of `data.name`; cheap, since each kind imports its readers when it needs them."""
    if cfg.name == "python_stdlib":
        from datamodules.corpora.python_stdlib import PythonStdlib

        return PythonStdlib()
    if cfg.name == "text_files":
        from datamodules.corpora.text_files import TextFiles

        return TextFiles(cfg)
    if cfg.name == "debian_docs":
        from datamodules.corpora.debian_docs import DebianDocs

        return DebianDocs(cfg)
    from datamodules.corpora.hf import HubDataset

    return HubDataset(cfg)
