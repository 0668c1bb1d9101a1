from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus_samples import Configure, words
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import TextDataModule
from datamodules.sampler import CountedBatches, Part, WindowOrder
from mohge.errors import UserError


def batches(module: TextDataModule, count: int) -> list[torch.Tensor]:
    return [batch["tokens"] for batch in itertools.islice(module.train_dataloader(), count)]


def make(configure: Configure, folder: Path, seed: int = 1, **fields: Any) -> TextDataModule:
    module = TextDataModule(configure(path=str(folder), **fields), seed)
    module.setup("fit")
    return module


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_every_window_is_seen_once_before_any_is_seen_again(windows: int, batch: int, seed: int) -> None:
    order = WindowOrder(windows, batch, seed)
    flat = [window for position in range(3 * windows) for window in order.batch(position)]
    for epoch in range(3):
        assert sorted(flat[epoch * windows : (epoch + 1) * windows]) == list(range(windows))
    assert WindowOrder(windows, batch, seed).batch(2 * windows) == order.batch(2 * windows)


def test_epochs_and_seeds_differ() -> None:
    order = WindowOrder(100, 100, 1)
    assert order.batch(0) != order.batch(1)
    assert order.batch(0) != WindowOrder(100, 100, 2).batch(0)


def test_iteration_starts_at_the_position_of_that_moment() -> None:
    order, position = WindowOrder(10, 3, 1), 0
    sampler = CountedBatches(order, lambda: position, Part())
    position = 7
    assert next(iter(sampler)) == order.batch(7)


@given(st.lists(st.integers(), max_size=20), st.integers(1, 9))
def test_parts_of_a_batch_are_the_batch(windows: list[int], count: int) -> None:
    parts = [Part(index, count).of(windows) for index in range(count)]
    assert list(itertools.chain(*parts)) == windows
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("count", [2, 4])
def test_ranks_read_together_what_one_process_reads(configure: Configure, folder: Path, count: int) -> None:
    alone = make(configure, folder)
    ranks = [make(configure, folder) for _ in range(count)]
    for index, module in enumerate(ranks):
        module.read_part(index, count)
        module.val_sequences = alone.val_sequences = 3  # batches that do not divide among the ranks
    together = zip(*(batches(module, 10) for module in ranks), strict=True)
    assert all(map(torch.equal, map(torch.cat, together), batches(alone, 10)))

    seen = [list(module.val_dataloader()) for module in ranks]
    expected = list(alone.val_dataloader())
    assert all(len(rank) == len(expected) for rank in seen), "every rank enters as many forward passes"
    assert any(len(batch["tokens"]) == 0 for rank in seen for batch in rank), "or nothing is shown here"
    for number, batch in enumerate(expected):
        for name in ("tokens", "domain"):
            pieces = [rank[number][name] for rank in seen if len(rank[number]["tokens"])]
            assert torch.equal(torch.cat(pieces), batch[name])


def test_batches_do_not_depend_on_workers_and_continue_from_a_checkpoint(
    configure: Configure, folder: Path
) -> None:
    module = make(configure, folder)
    expected = batches(module, 40)
    assert expected[0].shape == (4, 33)
    assert expected[0].dtype == torch.int64
    assert all(map(torch.equal, batches(make(configure, folder, workers=2), 40), expected))
    for _ in range(17):
        module.advance()
    # Through JSON, since checkpoints carry plain data only.
    state = json.loads(json.dumps(module.state_dict()))
    resumed = make(configure, folder, workers=2)
    resumed.load_state_dict(state)
    assert resumed.position == 17
    assert all(map(torch.equal, batches(resumed, 23), expected[17:]))


def test_another_seed_gives_another_order_of_the_same_windows(configure: Configure, folder: Path) -> None:
    one, two = (make(configure, folder, seed=seed, batch_sequences=1) for seed in (1, 2))
    count = (one.manifest.tokens("train") - 1) // 32
    first, second = (torch.cat(batches(module, count)).tolist() for module in (one, two))
    assert first != second
    assert sorted(first) == sorted(second)


def test_a_checkpoint_of_other_data_is_refused(configure: Configure, folder: Path) -> None:
    state = make(configure, folder).state_dict()
    (folder / "prose" / "new.txt").write_text(words(7, 50), encoding="utf-8")
    with pytest.raises(UserError, match=r"trained with data\.fingerprint="):
        make(configure, folder).load_state_dict(state)
    with pytest.raises(UserError, match=r"trained with seed=1, and this run has 2"):
        make(configure, folder, seed=2).load_state_dict(
            {**state, "data.fingerprint": _fingerprint(configure, folder)}
        )


def _fingerprint(configure: Configure, folder: Path) -> str:
    return make(configure, folder).manifest.fingerprint


def test_windows_and_documents_account_for_all_tokens_and_bytes(configure: Configure, folder: Path) -> None:
    module = make(configure, folder)
    store, manifest = module.store, module.manifest
    tokens = store.tokens.read(0, len(store.tokens))
    ends = store.documents["start"] + store.documents["length"]
    assert (tokens[ends - 1] == module.end_token_id).all()
    assert (tokens == module.end_token_id).sum() == len(store.documents)
    assert np.array_equal(ends[:-1], store.documents["start"][1:])
    assert ends[-1] == len(tokens)
    sizes = module.token_bytes_V.numpy()[tokens]
    assert np.array_equal(np.add.reduceat(sizes, store.documents["start"]), store.documents["bytes"])
    assert sum(manifest.corpus.bytes.values()) == sizes.sum()
    for split, validation in (("train", False), ("validation", True)):
        chosen = store.documents[store.documents["validation"] == validation]
        counts = manifest.counts[split]  # type: ignore[index]
        assert sum(count.tokens for count in counts.values()) == chosen["length"].sum()
    targets = torch.cat([window[0, 1:] for window in batches(make(configure, folder, batch_sequences=1), 20)])
    assert targets.max() < manifest.vocab_size


def test_documents_come_back_as_text(configure: Configure, folder: Path) -> None:
    module = make(configure, folder)
    texts = set()
    for record in module.store.documents:
        ids = module.store.tokens.read(record["start"], record["length"] - 1)
        texts.add(module.tokenizer.decode(ids.tolist(), skip_special_tokens=False))
    originals = {path.read_text("utf-8") for path in folder.rglob("*") if path.suffix in (".txt", ".md")}
    assert originals <= texts


def test_validation_windows_stay_in_their_domain(configure: Configure, folder: Path) -> None:
    module = make(configure, folder)
    assert module.domains == ("lines", "poems", "prose")
    seen: dict[int, list[torch.Tensor]] = {}
    for batch in module.val_dataloader():
        assert set(batch) == {"tokens", "domain"}
        for tokens, domain in zip(batch["tokens"], batch["domain"], strict=True):
            seen.setdefault(int(domain), []).append(tokens)
    for number, name in enumerate(module.domains):
        start, length = module.store.validation_range(number)
        assert length == module.manifest.counts["validation"][name].tokens
        targets = torch.cat([tokens[1:] for tokens in seen[number]])
        expected = module.store.tokens.read(start + 1, (length - 1) // 32 * 32)
        assert targets.tolist() == expected.tolist(), "each held-out token is a target once"


def test_a_domain_with_less_than_a_window_gives_a_shorter_one(configure: Configure, folder: Path) -> None:
    (folder / "tiny").mkdir()
    for number in range(2):
        (folder / "tiny" / f"{number}.txt").write_text(f"few words {number}")
    module = make(configure, folder)
    tiny = module.domains.index("tiny")
    chosen = [batch["tokens"] for batch in module.val_dataloader() if (batch["domain"] == tiny).any()]
    assert [tokens.shape[0] for tokens in chosen] == [1]
    assert chosen[0].shape[1] == module.manifest.counts["validation"]["tiny"].tokens < 33


def test_validation_can_be_limited_per_domain(configure: Configure, folder: Path) -> None:
    module = make(configure, folder)
    every = torch.cat([batch["domain"] for batch in module.val_dataloader()])
    module.val_sequences = 2
    some = torch.cat([batch["domain"] for batch in module.val_dataloader()])
    assert torch.bincount(every).min() > 2
    assert torch.bincount(some).tolist() == [2, 2, 2]


def test_summary_is_plain_data(configure: Configure, folder: Path) -> None:
    summary = make(configure, folder).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert (
        summary["domains"]["prose"]["train"]["documents"]
        + summary["domains"]["prose"]["validation"]["documents"]
        == 12
    )
    assert summary["licences"] == ["the user's own files"]


def test_a_corpus_shorter_than_a_window_is_refused(configure: Configure, folder: Path) -> None:
    with pytest.raises(UserError, match=r"the validation part of data=text_files has \d+ tokens, fewer than"):
        make(configure, folder, context=2000)
    with pytest.raises(UserError, match=r"the train part of data=text_files has \d+ tokens, fewer than"):
        make(configure, folder, context=200_000)
