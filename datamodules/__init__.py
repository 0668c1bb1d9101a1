"""Corpora, tokenizer, token store and samplers, as one LightningDataModule.

Importing this package is cheap: `TextDataModule` brings torch and Lightning with it, and is loaded when
it is first asked for. `datamodules.checks` looks at a configuration without either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.text import TextDataModule

__all__ = ["TextDataModule"]


def __getattr__(name: str) -> object:
    if name == "TextDataModule":
        from datamodules.text import TextDataModule

        return TextDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
