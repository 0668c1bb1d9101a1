"""A trained model with its tokenizer, from any folder that holds one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from tokenizers import Tokenizer
from torch import Tensor

from mohge.config.run_names import run_name
from mohge.config.schema import TrainConfig
from mohge.end_token import END_TOKENS, end_token
from mohge.errors import UserError, first_line
from mohge.interchange import begin_token_id, end_token_id, is_transformers_folder, load_transformers
from mohge.model.transformer import TransformerLM
from mohge.training.checkpoint_choice import choose_checkpoint, run_of
from mohge.training.export import (
    CONFIG,
    FACTS,
    TOKENIZER,
    corpus_of,
    find_tokenizer,
    load_checkpoint_model,
    load_exported,
)
from mohge.training.run_folder import RunFolder


@dataclass(frozen=True)
class LanguageModel:
    """What evaluation and generation need to know of a trained model."""

    config: TrainConfig
    """That it was trained with; of an imported model, sizes alone mean something."""
    model: TransformerLM
    """In evaluation mode, float32."""
    tokenizer: Tokenizer
    end_token_id: int
    """Ends a document."""
    source: Path
    """Checkpoint, or folder of an exported or imported model."""
    step: int | None
    """Optimizer steps of training, if known."""
    tokens: int | None
    """Training tokens, if known."""
    run: RunFolder | None
    """That the checkpoint is in."""
    corpus: str | None
    """Fingerprint of the corpus that the run has read."""
    begin: tuple[int, ...] = ()
    """What stands before every text: that of some imported models begins with a token of its own."""
    begin_token_id: int | None = None
    """What stands before a text that has nothing else before it; None for the end of another document."""

    @property
    def name(self) -> str:
        """Of the run, for tables."""
        return run_name(self.config)

    @property
    def prefix_token_id(self) -> int:
        """What the first token of a text is predicted from."""
        return self.end_token_id if self.begin_token_id is None else self.begin_token_id

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without `begin`; what spells a special token is ordinary text, as in training."""
        return [
            found.ids for found in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts that are to be continued: after `begin`; of an empty text, what the first follows."""
        return [[*self.begin, *ids] or [self.prefix_token_id] for ids in self.encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)

    @cached_property
    def digest(self) -> str:
        """Checksum of all that answers depend on: weights, what is computed with them, and the tokenizer."""
        digest = hashlib.blake2b(digest_size=16)
        config = self.config
        computed = [
            TypeAdapter(type(part)).dump_json(part) for part in (config.model, config.experts, config.router)
        ]
        for part in (
            *computed,
            self.tokenizer.to_str().encode(),
            str((self.end_token_id, self.begin, self.begin_token_id)).encode(),
        ):
            digest.update(part)
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(_bytes(tensor))
        return digest.hexdigest()


def load_language_model(named: str, device: str | torch.device = "cpu") -> LanguageModel:
    """Load a model and its tokenizer.

    Args:
        named: a run's folder (its newest intact checkpoint), a checkpoint, a folder of mohge-export, or a
            folder of transformers that holds a model of a known kind.
        device: where to.

    Raises:
        UserError: there is none, it is damaged or of another version, or its tokenizer is gone.
    """
    folder = Path(named).expanduser()
    if is_transformers_folder(folder):
        config, model = load_transformers(folder)
        tokenizer = _tokenizer(_tokenizer_file(folder), folder)
        loaded = _of_folder(folder, config, model.to(device), tokenizer, end_token_id(folder))
        return replace(loaded, begin=_begin(tokenizer), begin_token_id=begin_token_id(folder))
    if (folder / CONFIG).is_file():
        config, model = load_exported(folder)
        tokenizer = _tokenizer(_tokenizer_file(folder), folder)
        return _of_folder(folder, config, model.to(device), tokenizer, _end_of(tokenizer, folder))
    checkpoint = choose_checkpoint(named)
    config, model, state = load_checkpoint_model(checkpoint)
    corpus = corpus_of(config, state)
    content = find_tokenizer(checkpoint, corpus)
    if content is None:
        raise UserError(
            f"the tokenizer of checkpoint {checkpoint} is not where the run has left it: prepare the corpus "
            f"again with mohge-prepare data={config.data.name}, or give a folder that mohge-export has made"
        )
    tokenizer, step = _tokenizer(content, checkpoint), int(state["global_step"])
    return LanguageModel(
        config=config,
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        end_token_id=_end_of(tokenizer, checkpoint),
        source=checkpoint,
        step=step,
        tokens=step * config.tokens_per_step,
        run=run_of(checkpoint),
        corpus=corpus,
    )


def _of_folder(
    folder: Path, config: TrainConfig, model: TransformerLM, tokenizer: Tokenizer, end_token_id: int
) -> LanguageModel:
    """A model outside a run; what it was trained with is known if we have exported it."""
    facts: dict[str, Any] = {}
    with suppress(FileNotFoundError, ValueError):
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return LanguageModel(
        config=config,
        model=model.eval(),
        tokenizer=tokenizer,
        end_token_id=end_token_id,
        source=folder,
        step=facts.get("step"),
        tokens=facts.get("tokens"),
        run=None,
        corpus=None,
    )


def _tokenizer(content: bytes, source: Path) -> Tokenizer:
    """From the content of tokenizer.json."""
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"the tokenizer of {source} is damaged: {first_line(error)}") from error
    return as_in_training(tokenizer)


def as_in_training(tokenizer: Tokenizer) -> Tokenizer:
    """Set a tokenizer to take text whole, and text that spells a special token as ordinary text."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _begin(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts before every text, as that of Llama does."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a").ids
    return tuple(whole[: whole.index(bare[0])]) if bare and bare[0] in whole else ()


def _end_of(tokenizer: Tokenizer, source: Path) -> int:
    end = end_token(tokenizer)
    if end is None:
        raise UserError(
            f"the tokenizer of {source} has no special token that ends a document: it needs one of "
            f"{', '.join(END_TOKENS)}"
        )
    number = tokenizer.token_to_id(end)
    assert number is not None, "it is one of the tokenizer's"
    return number


def _tokenizer_file(folder: Path) -> bytes:
    try:
        return (folder / TOKENIZER).read_bytes()
    except OSError as error:
        raise UserError(f"{folder} has no {TOKENIZER}: put the model's own there") from error


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
