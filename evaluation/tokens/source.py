"""The text that is looked at: held-out windows of a corpus, or a file of the user's.

Shapes: B batch, S sequence.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mohge.config.schema import DataConfig, TrainConfig
from mohge.config.targets import build
from mohge.errors import UserError
from mohge.training.export import TOKENIZER


@dataclass(frozen=True)
class Source:
    """Windows of tokens with their domain."""

    name: str
    """Of the corpus or file."""
    split: str
    """validation, or text for a file of the user's."""
    domains: tuple[str, ...]
    tokens: int
    """That will be scored, about: for a progress bar."""
    batches: Iterable[dict[str, Tensor]]
    """{"tokens": int64 (B, S+1), "domain": int64 (B,)}."""


def open_own(
    checkpoint: Path,
    config: TrainConfig,
    fingerprint: str | None,
    progress: bool,
    otherwise: str = "train anew",
) -> Any:
    """The data module of the corpus that the run has read, prepared.

    It has the tokenizer, and the training text in which tokens are counted.

    Args:
        checkpoint: for messages.
        config: of the run.
        fingerprint: of the corpus that the run has read.
        progress: show bars if the corpus must be prepared again.
        otherwise: what a user can do who cannot restore it.

    Raises:
        UserError: the corpus is gone, or is not what it was.
    """
    data = build("data", config.data.target, config.data, config.seed)
    data.prepare(progress=progress)
    if data.manifest.fingerprint != fingerprint:
        raise UserError(
            f"the corpus of checkpoint {checkpoint} (data={config.data.name}) has changed since the run, so "
            f"that its tokens would mean other text: restore what the run has read, or {otherwise}"
        )
    return data


def open_source(
    own: Any,
    config: TrainConfig,
    tokens: int,
    data: DataConfig | None,
    content: str | None,
    file_name: str | None,
    progress: bool,
) -> Source:
    """The text to look at: `content` if given, else held-out text of `data`, else that of the run's corpus.

    Args:
        own: data module of the run's corpus.
        config: of the run.
        tokens: to read, about.
        data: another corpus.
        content: a text of the user's.
        file_name: where it comes from.
        progress: show bars while another corpus is prepared.

    Raises:
        UserError: the other corpus cannot be prepared.
    """
    if content is not None:
        assert file_name is not None
        return _of_text(own, config, content, file_name, tokens)
    module = own
    if data is not None:
        data = dataclasses.replace(
            data,
            tokenizer=str(own.store.folder / TOKENIZER),
            vocab_size=config.data.vocab_size,
            context=config.data.context,
        )
        module = build("data", data.target, data, config.seed)
        module.prepare(progress=progress)
    return Source(
        name=(data or config.data).name,
        split="validation",
        domains=module.domains,
        tokens=tokens,
        batches=module.validation_sample(tokens),
    )


def _of_text(own: Any, config: TrainConfig, content: str, name: str, tokens: int) -> Source:
    """A text as one document: after the end of another, and with its own end, as in training."""
    end = own.end_token_id
    ids = torch.tensor([end, *own.encode(content), end])[: tokens + 1]
    return Source(
        name=name,
        split="text",
        domains=(name,),
        tokens=len(ids) - 1,
        batches=_cut(ids, config.data.context, config.data.batch_sequences),
    )


def _cut(ids: Tensor, context: int, batch_sequences: int) -> Iterator[dict[str, Tensor]]:
    """Batches of windows of S + 1 tokens that advance by S; the last window may be shorter."""
    full = (len(ids) - 1) // context
    windows = [ids[start * context : (start + 1) * context + 1] for start in range(full)]
    batches = [windows[at : at + batch_sequences] for at in range(0, full, batch_sequences)]
    if len(ids) - 1 > full * context:
        batches.append([ids[full * context :]])
    for batch in batches:
        yield {"tokens": torch.stack(batch), "domain": torch.zeros(len(batch), dtype=torch.int64)}
