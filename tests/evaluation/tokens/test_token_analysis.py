"""From a trained run to its files."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_runs import TINY_MODEL, tiny_data, train_here, write_corpus

from evaluation.tokens import analyse
from evaluation.tokens.scan import scan
from mohge.config.targets import build
from mohge.errors import UserError
from mohge.training.export import load_checkpoint_model

STEP = "step_00000003"
RUN = ("trainer.max_steps=3", "logger=none", "callbacks=none", "model.layers=2", "optim.lr=1e-2")
FILES = {"tokens.json", "text.html", "difficulty.csv", "parts.csv", "domains.csv", "experts.csv"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and two runs: two groups, and one of a standard MoE."""
    folder = tmp_path_factory.mktemp("work")
    corpus = write_corpus(folder / "corpus")
    data = [*TINY_MODEL, *tiny_data(corpus, folder / "cache"), *RUN]
    experts = ("experts.per_group=2", "experts.shared_width=8")
    train_here(
        folder / "run",
        *(*data, *experts, "experts.widths=[8,16]", "router.group_top_k=2", "router.expert_top_k=2"),
    )
    train_here(folder / "moe", "arch=moe", *data, *experts, "experts.widths=[16]", "router.expert_top_k=1")
    return folder


@pytest.fixture(scope="module")
def result(work: Path) -> dict[str, Any]:
    return analyse(work / "run" / "checkpoints" / STEP, 640, work / "analysis", progress=False)


def test_it_writes_what_it_returns(work, result):
    made = work / "analysis"
    assert {path.name for path in made.iterdir()} == FILES
    assert json.loads((made / "tokens.json").read_text(encoding="utf-8")) == result
    facts = {
        key: result[key] for key in ("format", "checkpoint", "step", "trained_tokens", "corpus", "split")
    }
    assert facts == {
        **{"format": "mohge-tokens-1", "checkpoint": STEP, "step": 3, "trained_tokens": 3 * 4 * 32},
        **{"corpus": "text_files", "split": "validation"},
    }
    assert (result["tokens"], result["sequences"]) == (640, 20)
    assert (result["widths"], result["per_group"]) == ([8, 16], 2)
    assert (result["layers"], result["expert_top_k"]) == (2, 2)
    assert [domain["domain"] for domain in result["domains"]] == ["lists", "prose"]
    assert [text["source"] for text in result["texts"]] == ["lists", "prose"]
    assert "Rarer tokens" in (made / "text.html").read_text(encoding="utf-8")


def test_tables_are_told_as_csv(work, result):
    tables = {
        name: list(csv.DictReader((work / "analysis" / f"{name}.csv").open(encoding="utf-8")))
        for name in ("difficulty", "parts", "domains", "experts")
    }
    assert [row["layer"] for row in tables["difficulty"]] == ["0", "0", "1", "1", "all", "all"]
    overall = result["difficulty"][-1]
    last = tables["difficulty"][-1]
    assert float(last["loss_high"]) == overall["groups"][1]["loss"]["high"]
    assert float(last["rarity_correlation_rho"]) == overall["rarity_correlation"]["rho"]
    assert float(tables["domains"][1]["share_group_1_width_16"]) == result["domains"][1]["shares"][1]
    assert [row["part"] for row in tables["parts"]] == [part["part"] for part in result["parts"]]
    assert len(tables["experts"]) == 2 * 4
    typical = [typical["token"] for typical in result["experts"][0]["typical"]]
    assert json.loads(tables["experts"][0]["typical"]) == typical != []


def test_every_token_and_row_is_accounted_for(result):
    rows = result["tokens"] * result["expert_top_k"]
    for entry in result["difficulty"][:-1]:
        assert sum(group["rows"] for group in entry["groups"]) == rows
        assert sum(group["share"] for group in entry["groups"]) == pytest.approx(1)
        experts = [expert for expert in result["experts"] if expert["layer"] == entry["layer"]]
        assert np.mean([expert["load"] for expert in experts]) == pytest.approx(1)
        for group in entry["groups"]:
            assert group["rows"] == sum(e["rows"] for e in experts if e["group"] == group["group"])
    assert sum(group["rows"] for group in result["difficulty"][-1]["groups"]) == 2 * rows
    for entries in (result["parts"], result["domains"]):
        assert sum(entry["tokens"] for entry in entries) == result["tokens"]
        assert all(sum(entry["shares"]) == pytest.approx(1) for entry in entries)


def test_a_pass_records_what_the_model_decided(work):
    config, model, _ = load_checkpoint_model(work / "run" / "checkpoints" / STEP)
    tokens_BS = torch.randint(0, 300, (3, 33), generator=torch.Generator().manual_seed(0))
    batches = [
        {"tokens": tokens_BS[:2], "domain": torch.tensor([1, 0])},
        {"tokens": tokens_BS[2:, :9], "domain": torch.tensor([1])},
    ]
    seen: list[int] = []
    record = scan(model, config, batches, ("a", "b"), seen.append)
    assert seen == [64, 8]
    assert record.domain_N.tolist() == [1, 0, 1]
    assert np.bincount(record.sequence_P).tolist() == [32, 32, 8]
    with torch.no_grad():
        output = model(tokens_BS[2:, :8], tokens_BS[2:, 1:9], reduction="none")
        logits_SV = model(tokens_BS[2:, :8]).logits_BSV[0]
    expected_S = torch.nn.functional.cross_entropy(logits_SV, tokens_BS[2, 1:9], reduction="none")
    np.testing.assert_allclose(record.loss_P[64:], expected_S, rtol=1e-4)
    assert record.tokens_P[64:].tolist() == tokens_BS[2, :8].tolist()
    for layer, decision in enumerate(output.decisions):
        wide_T = (decision.expert_ids_TK >= 2).sum(1)
        assert record.groups_PLG[64:, layer, 1].tolist() == wide_T.tolist()
        np.testing.assert_allclose(record.mean_width_P(layer)[64:], 8 + 8 * wide_T / 2)
        assert record.pairs[layer].rows.sum() == 72 * 2


def test_a_text_of_the_users_is_one_document_after_the_end_of_another(work, tmp_path):
    (tmp_path / "note.txt").write_text("abc 12, déf\n" * 30, encoding="utf-8")
    checkpoint = work / "run" / "checkpoints" / STEP
    result = analyse(checkpoint, 10_000, tmp_path / "made", text=tmp_path / "note.txt", progress=False)
    assert (result["corpus"], result["split"]) == ("note.txt", "text")
    (text,) = result["texts"]
    assert text["tokens"][0]["text"] == "<|endoftext|>"
    spelt = "".join(token["text"] for token in text["tokens"][1:])
    assert spelt.replace("\\xc3\\xa9", "é") == "abc 12, déf\n" * 30
    assert result["tokens"] == len(text["tokens"]), "the last one predicts the end"
    few = analyse(checkpoint, 40, tmp_path / "few", text=tmp_path / "note.txt", progress=False)
    assert (few["tokens"], few["sequences"]) == (40, 2)
    assert few["difficulty"][-1]["rarity_correlation"] is None, "no interval from two sequences"


def test_another_corpus_is_cut_by_the_runs_tokenizer(work, tmp_path):
    (tmp_path / "other" / "poems").mkdir(parents=True)
    for number in range(20):
        (tmp_path / "other" / "poems" / f"{number}.txt").write_text(f"poem {number} of many words " * 20)
    config, _, _ = load_checkpoint_model(work / "run" / "checkpoints" / STEP)
    data = dataclasses.replace(config.data, path=str(tmp_path / "other"), vocab_size=9999, context=7)
    result = analyse(work / "run" / "checkpoints" / STEP, 300, tmp_path / "made", data, progress=False)
    assert [domain["domain"] for domain in result["domains"]] == ["poems"]
    assert result["tokens"] == 32 * result["sequences"], "the context is the run's"
    own = build("data", config.data.target, config.data, 1)
    own.prepare(progress=False)
    first = own.tokenizer.decode(own.encode("poem 1"), skip_special_tokens=False)
    assert first == "poem 1"
    stores = [json.loads(path.read_text()) for path in (work / "cache" / "tokens").glob("*/tokenizer.json")]
    assert len(stores) >= 2
    assert all(store["model"] == stores[0]["model"] for store in stores)


def test_experts_of_one_width_have_no_direction(work, tmp_path):
    result = analyse(work / "moe" / "checkpoints" / STEP, 300, tmp_path / "made", progress=False)
    assert all(entry["rarity_correlation"] is None for entry in result["difficulty"])
    assert result["findings"] == [
        f"{kind} tokens cannot go to wider or narrower groups: all experts have one width."
        for kind in ("Rarer", "Harder")
    ]


def test_a_corpus_that_has_changed_since_the_run_is_refused(work, tmp_path):
    checkpoint = work / "run" / "checkpoints" / STEP
    kept = (work / "corpus" / "lists" / "0.txt").read_text()
    try:
        (work / "corpus" / "lists" / "0.txt").write_text("something else entirely " * 50)
        with pytest.raises(UserError, match=r"data=text_files\) has changed since the run"):
            analyse(checkpoint, 300, tmp_path / "made", progress=False)
    finally:
        (work / "corpus" / "lists" / "0.txt").write_text(kept)
    assert not (tmp_path / "made").exists()
