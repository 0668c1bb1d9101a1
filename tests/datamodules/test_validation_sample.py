"""Samples of held-out text, counts of tokens, and texts of the user's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_samples import Configure, words

from datamodules import TextDataModule
from datamodules import text as text_module
from datamodules.windows import ValidationWindows


def make(configure: Configure, **sizes: int) -> TextDataModule:
    """A prepared module of domains with so many documents of a hundred words."""
    root = Path(configure().cache_dir).parent / "texts"
    for number, (domain, documents) in enumerate(sizes.items()):
        (root / domain).mkdir(parents=True)
        for document in range(documents):
            content = words(1000 * number + document, 100)
            (root / domain / f"{document}.txt").write_text(content, encoding="utf-8")
    module = TextDataModule(configure(path=str(root)), seed=1)
    module.prepare(progress=False)
    return module


def test_a_sample_is_spread_over_domains_and_over_their_text(configure: Configure) -> None:
    module = make(configure, large=60, small=2)
    windows = ValidationWindows(module.store, 32, None)
    of_domain = [int(windows[number]["domain"]) for number in range(len(windows))]
    large, small = of_domain.count(0), of_domain.count(1)
    assert small < 10 < 40 < large, "or the test would show nothing"

    chosen = windows.spread(small + 10)
    assert sorted(set(chosen)) == chosen
    assert [of_domain[number] for number in chosen].count(1) == min(small, (small + 10) // 2)
    # The small domain has no more than its own windows; the large one gives the others, evenly spaced.
    chosen = windows.spread(small + 40)
    assert [number for number in chosen if of_domain[number] == 1] == list(range(large, large + small))
    steps = np.diff([number for number in chosen if of_domain[number] == 0])
    assert len(steps) == 39
    assert steps.max() - steps.min() <= 1
    assert windows.spread(10**9) == list(range(len(windows)))
    assert len(windows.spread(0)) == 2, "one of each domain at least"


def test_a_sample_is_a_part_of_what_validation_reads(configure: Configure) -> None:
    module = make(configure, a=10, b=10)
    sample = [batch["tokens"] for batch in module.validation_sample(10 * 32)]
    assert sum(len(tokens) for tokens in sample) == 10
    assert all(tokens.shape[1] == 33 and len(tokens) <= 4 for tokens in sample)
    everything = {tuple(row) for batch in module.val_dataloader() for row in batch["tokens"].tolist()}
    assert {tuple(row) for tokens in sample for row in tokens.tolist()} <= everything


def test_a_window_is_of_the_document_that_its_middle_is_of(configure: Configure) -> None:
    module = make(configure, a=60, b=20)
    windows, documents = ValidationWindows(module.store, 32, None), module.store.documents
    found = [windows.document(number) for number in range(len(windows))]
    assert all(documents["validation"][found])
    assert documents["domain"][found].tolist() == [
        int(windows[number]["domain"]) for number in range(len(windows))
    ]
    for number, document in enumerate(found):
        start, length, _ = windows._windows[number]
        assert 0 <= start + length // 2 - documents["start"][document] < documents["length"][document]
    assert len(set(found)) > 2


def test_tokens_are_counted_in_the_training_part(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_module, "_COUNTED_AT_ONCE", 100)
    module = make(configure, a=10)
    counts_V = module.token_counts()
    training = module.store.tokens.read(0, module.manifest.tokens("train"))
    assert counts_V.tolist() == [int((training == token).sum()) for token in range(len(counts_V))]
    assert int(counts_V[module.end_token_id]) == module.manifest.counts["train"]["a"].documents


def test_a_text_is_encoded_as_documents_are(configure: Configure) -> None:
    module = make(configure, a=10)
    first = module.store.documents[0]
    stored = module.store.tokens.read(int(first["start"]), int(first["length"]))
    text = module.tokenizer.decode(stored[:-1].tolist(), skip_special_tokens=False)
    assert torch.equal(torch.tensor(module.encode(text)), torch.from_numpy(stored[:-1]))
