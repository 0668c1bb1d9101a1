"""bench=generation and bench=likelihood: the same tokens and scores, timed."""

from __future__ import annotations

import pytest
import torch
from tiny_benches import GENERATION, LIKELIHOOD, bench_config, by_name

from mohge.bench import exported, likelihood
from mohge.bench.run import measure
from mohge.errors import RunError

PEERS = ("transformers_GraniteMoeShared_eager", "transformers_GraniteMoeShared_grouped_mm")


def test_generation_makes_the_tokens_of_transformers():
    pytest.importorskip("transformers")
    result, _ = measure(bench_config(*GENERATION), [])
    libraries, contexts = result["rows"][:3], by_name(result["rows"][3:], "shape")
    rows = by_name(libraries, "peer")
    assert set(rows) == {"mohge", *PEERS}
    best = min((rows[name] for name in PEERS), key=lambda row: row["median_seconds"])
    for row in libraries:
        assert row["against"] == best["peer"]
        assert row["ratio"] == pytest.approx(best["median_seconds"] / row["median_seconds"])
        assert row["tokens_per_second"] == pytest.approx(2 * 6 / row["median_seconds"])
    assert set(contexts) == {"context=4", "context=40"}
    long, short = contexts["context=40"], contexts["context=4"]
    assert short["ratio"] == 1.0
    assert long["ratio"] == pytest.approx(long["median_seconds"] / short["median_seconds"])
    assert f"{PEERS[0]} 100.0%, {PEERS[1]} 100.0%" in result["notes"][0]


def test_an_architecture_that_transformers_lacks_is_compared_in_its_exported_class():
    pytest.importorskip("transformers")
    small = ("arch=mohge", "experts.widths=[8,16]", "router.group_top_k=1", "bench.rounds=1")
    result, _ = measure(bench_config(*GENERATION, *small), [])
    assert [row.get("peer") for row in result["rows"]] == ["mohge", "transformers_Mohge", None, None]
    assert "transformers_Mohge 100.0%" in result["notes"][0]


def test_likelihood_gives_the_scores_of_lm_eval(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("transformers")
    result, _ = measure(bench_config(*LIKELIHOOD), [])
    assert [row["peer"] for row in result["rows"]] == ["mohge", *PEERS] * 2
    assert [row["shape"].split()[-1] for row in result["rows"]] == ["choices"] * 3 + ["single"] * 3
    for row in result["rows"]:
        assert row["tokens_per_second"] > 0

    monkeypatch.setattr(likelihood, "_score", lambda model, pairs: [0.0] * len(pairs))
    with pytest.raises(RunError, match="eager differ from ours"):
        measure(bench_config(*LIKELIHOOD), [])


def test_without_transformers_ours_come_with_a_hint(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exported, "transformers_installed", lambda: False)
    for overrides in (GENERATION, LIKELIHOOD):
        result, _ = measure(bench_config(*overrides, "bench.rounds=1"), [])
        assert {row.get("peer") for row in result["rows"]} <= {"mohge", None}
        assert any("pip install 'mohge[transformers]'" in note for note in result["notes"])


def test_both_shapes_of_requests_have_as_many_pairs():
    config = bench_config(*LIKELIHOOD)
    several = likelihood._pairs(config, config.bench, 2)
    single = likelihood._pairs(config, config.bench, 1)
    assert len(several) == len(single) == 6
    assert [context for context, _ in several][::2] == [context for context, _ in several][1::2]
    assert all(20 <= len(context) <= 40 and 1 <= len(ending) <= 4 for context, ending in [*several, *single])
    assert torch.tensor([len(ending) for _, ending in several]).unique().numel() > 1
