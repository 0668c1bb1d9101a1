from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.corpora.base import Document
from datamodules.documents import DocumentIndex, DocumentWriter, index_documents
from datamodules.splits import held_out, shuffled, within_budget
from mohge.errors import UserError


def make_index(keys: list[str], domains: list[int], sizes: list[int] | None = None) -> DocumentIndex:
    numbers = np.arange(len(keys))
    return DocumentIndex(
        path=Path("unused"),
        offsets=numbers,
        lengths=numbers,
        bytes=np.array(sizes or [100] * len(keys)),
        domains=np.array(domains),
        keys=keys,
        domain_names=tuple(f"d{number}" for number in range(max(domains) + 1)),
    )


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=60), st.floats(0.01, 0.9)
)
def test_no_key_is_on_both_sides_and_every_domain_is(pairs: list[tuple[int, int]], fraction: float) -> None:
    # Two keys per domain at least, and each key in one domain.
    pairs += [(100, 0), (101, 0), (102, 1), (103, 1), (104, 2), (105, 2)]
    keys, domains = [f"{domain}-{key}" for key, domain in pairs], [domain for _, domain in pairs]
    index = make_index(keys, domains)
    order = shuffled(index)
    validation = held_out(index, order, fraction)
    sides = {True: set[str](), False: set[str]()}
    for number, side in zip(order, validation, strict=True):
        sides[bool(side)].add(keys[number])
    assert not sides[True] & sides[False]
    for domain in range(3):
        assert set(validation[index.domains[order] == domain]) == {True, False}


def test_a_key_shared_by_domains_stays_on_one_side() -> None:
    keys = [f"module{number}" for number in range(40)]
    index = make_index(keys * 2, [0] * 40 + [1] * 40)
    order = shuffled(index)
    validation = held_out(index, order, 0.1)
    by_number = dict(zip(order.tolist(), validation.tolist(), strict=True))
    assert all(by_number[number] == by_number[number + 40] for number in range(40))


def test_the_share_held_out_is_about_the_fraction_and_stays_when_the_corpus_grows() -> None:
    small = make_index([f"k{number}" for number in range(1000)], [0] * 1000)
    large = make_index([f"k{number}" for number in range(2000)], [0] * 2000)
    sides = []
    for index in (small, large):
        order = shuffled(index)
        sides.append(dict(zip(order.tolist(), held_out(index, order, 0.1).tolist(), strict=True)))
    assert 70 < sum(sides[0].values()) < 130
    assert all(sides[1][number] == side for number, side in sides[0].items())


def test_a_single_long_file_holds_out_its_end() -> None:
    index = make_index(["file"] * 20, [0] * 20)
    order = shuffled(index)
    validation = held_out(index, order, 0.1)
    assert sorted(order[validation].tolist()) == [18, 19]


def test_a_domain_of_one_document_is_refused() -> None:
    index = make_index(["a", "b", "c"], [0, 0, 1])
    with pytest.raises(UserError, match=r"domain 'd1' .* too small"):
        held_out(index, shuffled(index), 0.1)


def test_a_budget_is_spread_over_domains_in_proportion() -> None:
    index = make_index([f"k{number}" for number in range(400)], [0] * 300 + [1] * 100)
    order = shuffled(index)
    kept = within_budget(index, order, 20_000)
    domains = index.domains[kept]
    assert (domains == 0).sum() == 150
    assert (domains == 1).sum() == 50
    assert np.array_equal(kept, order[np.isin(order, kept)]), "order is kept"
    assert within_budget(index, order, None) is order


def test_the_order_is_a_permutation_that_mixes_parts() -> None:
    index = make_index(["file"] * 50, [0] * 50)
    order = shuffled(index)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != list(range(50))


def test_writer_drops_repetitions_and_blanks_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    with path.open("wb") as file:
        writer = DocumentWriter(file)
        for text in ("Hello  World\n", "hello world", " \n ", "", "Grüße \u2028 two"):
            writer.add(Document(text, "s", "b" if "h" in text.lower() else "a", text))
    assert (writer.duplicates, sum(writer.documents.values())) == (1, 2)
    index = index_documents(path)
    assert list(index.texts(np.array([1, 0]))) == ["Grüße \u2028 two", "Hello  World\n"]
    assert index.bytes.tolist() == [13, len("Grüße \u2028 two".encode())]
    assert set(json.loads(path.read_text("utf-8").split("\n")[0])) == {"text", "source", "domain", "key"}


def test_writer_refuses_half_a_surrogate_pair_and_too_many_domains(tmp_path: Path) -> None:
    with (tmp_path / "documents.jsonl").open("wb") as file:
        writer = DocumentWriter(file)
        with pytest.raises(UserError, match=r"row 7 holds an unpaired surrogate \(\\ud800\)"):
            writer.add(Document("a\ud800", "row 7", "a", "k"))
        for number in range(1000):
            writer.add(Document(f"text {number}", "s", f"d{number}", "k"))
        with pytest.raises(UserError, match="more than 1000 domains"):
            writer.add(Document("one more text", "s", "one more domain", "k"))
