"""From a checkpoint to a folder that tells who goes where."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mohge.config.schema import DataConfig
from mohge.errors import UserError
from mohge.files import refuse_taken


def analyse(
    checkpoint: Path,
    tokens: int,
    output: Path,
    data: DataConfig | None = None,
    text: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Send a text through a checkpoint's model, and write what its tokens are and which experts they got.

    One process, in float32, on a GPU if there is one. The loss of a token is that of predicting the token
    after it, which is what the routed state at its position is for. Its frequency is counted in the training
    part of the corpus that the run has read, whatever text is sent through.

    Args:
        checkpoint: its folder, with checksums that were looked at, as `choose_checkpoint` does.
        tokens: of held-out text to read, about, or of `text` at most.
        output: folder to make: tokens.json, text.html, difficulty.csv, parts.csv, domains.csv, experts.csv.
        data: another corpus than the run's own, whose held-out text is read; it is cut by the run's
            tokenizer and context, whatever it says itself.
        text: a file in UTF-8 to read instead of a corpus.
        progress: show bars at a terminal.

    Returns:
        The content of tokens.json, described in docs/TOKENS.md.

    Raises:
        UserError: the folder is taken, the text cannot be read, the model has no experts to choose from, the
            run's corpus is gone or has changed, or the disk refuses.
    """
    refuse_taken(output)
    content = _read_text(text) if text is not None else None

    # Late: torch takes seconds to import, and mohge-report imports this package for its page alone.
    import numpy as np
    import torch

    from evaluation.tokens.experts import experts_table
    from evaluation.tokens.findings import findings
    from evaluation.tokens.intervals import Bootstrap
    from evaluation.tokens.parts import parts_of, token_texts
    from evaluation.tokens.scan import scan
    from evaluation.tokens.source import open_own, open_source
    from evaluation.tokens.tables import difficulty_table, domains_table, parts_table
    from evaluation.tokens.texts import excerpts
    from evaluation.tokens.write import write_folder
    from mohge.training.export import corpus_of, load_checkpoint_model

    config, model, state = load_checkpoint_model(checkpoint)
    if not config.experts.widths:
        raise UserError(
            f"checkpoint {checkpoint} is of a dense model, where every token goes the same way: give one of "
            "a model with experts"
        )
    own = open_own(checkpoint, config, corpus_of(config, state), progress)
    source = open_source(own, config, tokens, data, content, text.name if text else None, progress)
    model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    with _bar("routing tokens", source.tokens, progress) as advance:
        record = scan(model, config, source.batches, source.domains, advance)

    texts = token_texts(own.tokenizer, config.model.vocab_size)
    frequency_V = log_frequency(own.token_counts().numpy(), config.model.vocab_size)
    frequency_P = frequency_V[record.tokens_P]
    part_P = parts_of(record.tokens_P, record.sequence_P, texts)
    bootstrap = Bootstrap(record.domain_N, config.seed)
    result: dict[str, Any] = {
        "format": "mohge-tokens-1",
        "checkpoint": checkpoint.name,
        "step": state["global_step"],
        "trained_tokens": state["global_step"] * config.tokens_per_step,
        "corpus": source.name,
        "split": source.split,
        "tokens": len(record.tokens_P),
        "sequences": len(record.domain_N),
        "level": bootstrap.level,
        "resamples": bootstrap.resamples,
        "widths": list(record.widths),
        "per_group": record.per_group,
        "layers": record.layers,
        "expert_top_k": record.expert_top_k,
        "difficulty": difficulty_table(record, frequency_P, bootstrap),
        "domains": domains_table(record, bootstrap),
        "parts": parts_table(record, part_P, frequency_P, bootstrap),
        "experts": experts_table(record, texts),
        "texts": excerpts(record, part_P, texts, whole=text is not None),
    }
    result["findings"] = findings(result)
    assert np.isfinite(record.loss_P).all(), "a checkpoint of finite weights"
    write_folder(output, result)
    return result


def log_frequency(counts_V: Any, vocab_size: int) -> Any:
    """log10 of the occurrences of each token per million training tokens: float64 (vocab_size,).

    A token that never occurs counts as half an occurrence, so that it is rarer than any other.

    Args:
        counts_V: occurrences in the training text, of the tokens that its tokenizer has.
        vocab_size: rows of the model's embedding, at least as many.
    """
    import numpy as np

    padded_V = np.zeros(vocab_size)
    padded_V[: len(counts_V)] = counts_V
    return np.log10(np.maximum(padded_V, 0.5) / counts_V.sum() * 1e6)


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(f"text={path} cannot be read ({error.strerror}): give a file of text") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"text={path} is not UTF-8 (byte {error.start}): give a file of text in UTF-8"
        ) from error
    if not content.strip():
        raise UserError(f"text={path} is empty: give a file with some text")
    return content


@contextmanager
def _bar(description: str, total: int, enabled: bool) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, for a person at a terminal only; yields the function that advances it."""
    if not (enabled and sys.stderr.isatty()):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)
