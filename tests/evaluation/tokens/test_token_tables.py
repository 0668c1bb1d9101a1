"""Tables of a made-up routing, against figures worked out by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from decided import FREQUENCY_V, decided

from evaluation.tokens.analysis import log_frequency
from evaluation.tokens.experts import FEWEST_ROWS, experts_table
from evaluation.tokens.findings import findings
from evaluation.tokens.intervals import Bootstrap
from evaluation.tokens.record import Pairs
from evaluation.tokens.tables import difficulty_table, domains_table, parts_table
from evaluation.tokens.texts import excerpts


def exactly(value: float) -> dict[str, Any]:
    """A mean that is the same in every sequence, and so in every resample."""
    return {key: pytest.approx(value) for key in ("mean", "low", "high")}


@pytest.fixture(scope="module")
def difficulty() -> list[dict[str, Any]]:
    record = decided()
    return difficulty_table(record, FREQUENCY_V[record.tokens_P], Bootstrap(record.domain_N, 0, 100))


def test_difficulty_of_each_layer(difficulty):
    first, second, _ = difficulty
    narrow, wide = first["groups"]
    assert narrow == {
        **{"group": 0, "width": 10, "rows": 30, "share": 0.75},
        **{"frequency": exactly(5), "loss": exactly(1)},
    }
    assert wide == {
        **{"group": 1, "width": 30, "rows": 10, "share": 0.25},
        **{"frequency": exactly(3), "loss": exactly(4)},
    }
    assert [group["rows"] for group in second["groups"]] == [10, 30]
    assert [entry["layer"] for entry in difficulty] == [0, 1, None]


def test_correlations_are_1_where_rare_and_hard_go_wide_and_minus_1_where_they_go_narrow(difficulty):
    for name in ("rarity_correlation", "loss_correlation"):
        for layer, rho in ((0, 1), (1, -1)):
            assert difficulty[layer][name] == {key: pytest.approx(rho) for key in ("rho", "low", "high")}
        assert difficulty[-1][name] is None, "each token's mean width over layers is 20"


def test_over_all_layers_each_row_counts_once(difficulty):
    narrow, wide = difficulty[-1]["groups"]
    # Narrow: 30 common rows of layer 0, 10 rare ones of layer 1; wide: 10 rare, 30 common.
    assert (narrow["rows"], wide["rows"]) == (40, 40)
    assert narrow["frequency"] == wide["frequency"] == exactly((30 * 5 + 10 * 3) / 40)
    assert narrow["loss"] == wide["loss"] == exactly((30 * 1 + 10 * 4) / 40)


def test_domains_and_parts():
    record = decided()
    record.loss_P[20:] += 2  # the second half is another domain
    bootstrap = Bootstrap(record.domain_N, 0, 100)
    first, second = domains_table(record, bootstrap)
    assert (first["domain"], first["tokens"], first["shares"]) == ("first", 20, [0.5, 0.5])
    assert first["loss"] == {"mean": pytest.approx(7 / 4), "low": None, "high": None}, "five sequences"
    assert second["loss"]["mean"] == pytest.approx(7 / 4 + 2)

    part_P = np.where(record.tokens_P == 1, 0, 3)
    number, punctuation = parts_table(record, part_P, FREQUENCY_V[record.tokens_P], bootstrap)
    assert (number["part"], number["tokens"], punctuation["part"]) == ("number", 10, "punctuation")
    assert number["shares"] == [0.5, 0.5]
    assert (number["frequency"], number["mean_width"]) == (exactly(3), exactly(20))
    assert number["loss"]["mean"] == pytest.approx(5)


def test_a_group_that_nothing_goes_to_has_no_mean():
    record = decided()
    record.groups_PLG[:] = [1, 0]
    table = difficulty_table(record, FREQUENCY_V[record.tokens_P], Bootstrap(record.domain_N, 0, 100))
    assert table[0]["groups"][1]["rows"] == 0
    assert table[0]["groups"][1]["loss"] == {"mean": None, "low": None, "high": None}
    assert table[0]["rarity_correlation"] is None


def test_experts_have_loads_and_typical_tokens():
    table = experts_table(decided(), [" the", "zygote"])
    first = [(entry["expert"], entry["width"], entry["rows"], entry["load"]) for entry in table[:4]]
    assert first == [(0, 10, 20, 2.0), (1, 10, 10, 1.0), (2, 30, 10, 1.0), (3, 30, 0, 0.0)]
    # All of expert 2's rows are of a token that is a quarter of the text.
    assert table[2]["typical"] == [{"token": "zygote", "rows": 10, "lift": pytest.approx(4)}]
    assert table[0]["typical"] == [{"token": " the", "rows": 20, "lift": pytest.approx(4 / 3)}]
    assert table[3]["typical"] == []
    assert [entry["layer"] for entry in table] == [0] * 4 + [1] * 4


def test_a_token_of_few_rows_is_not_typical():
    pairs = Pairs(np.array([0, 0]), np.array([0, 1]), np.array([40, FEWEST_ROWS - 1]))
    record = dataclasses.replace(decided(), pairs=(pairs,))
    assert [found["token"] for found in experts_table(record, ["a", "b"])[0]["typical"]] == ["a"]


def test_frequency_is_log10_per_million_and_the_unseen_are_rarer_than_the_seen():
    frequency_V = log_frequency(np.array([900, 99, 1, 0]), 5)
    np.testing.assert_allclose(frequency_V[:3], np.log10([900_000, 99_000, 1000]))
    np.testing.assert_allclose(frequency_V[3:], np.log10(500))


def test_excerpts_are_the_beginning_of_each_domain_or_the_whole_text():
    record = decided()
    part_P = np.zeros(40, int)
    first, second = excerpts(record, part_P, ["a", "b"], whole=False)
    assert (first["source"], second["source"]) == ("first", "second")
    assert len(first["tokens"]) == 4, "one sequence"
    assert first["tokens"][3] == {"text": "b", "part": "number", "widths": [30.0, 10.0], "loss": 4.0}
    assert len(excerpts(record, part_P, ["a", "b"], whole=True)[0]["tokens"]) == 20


@pytest.mark.parametrize(
    ("correlation", "sentence"),
    [
        ((0.12, 0.1, 0.14), "Rarer tokens go to wider groups: rho = 0.12 (95% 0.10 to 0.14)."),
        ((-0.1, -0.2, -0.05), "Rarer tokens go to narrower groups: rho = -0.10 (95% -0.20 to -0.05)."),
        (
            (0.01, -0.01, 0.03),
            "Rarer tokens go to wider and narrower groups alike, no clear direction: "
            "rho = 0.01 (95% -0.01 to 0.03).",
        ),
        (None, "Rarer tokens: no answer, as the text is too short or too uniform for an interval."),
    ],
)
def test_findings_state_the_interval(correlation, sentence):
    found = dict(zip(("rho", "low", "high"), correlation, strict=True)) if correlation else None
    overall = {"rarity_correlation": found, "loss_correlation": None}
    overall["groups"] = [{"width": 10, "share": 0.6}, {"width": 30, "share": 0.4}]
    numbers = {"part": "number", "shares": [0.9, 0.1]}
    result = {"difficulty": [overall], "parts": [numbers], "widths": [10, 30], "level": 0.95}
    rarer, harder, where = findings(result)
    assert rarer == sentence
    assert harder.startswith("Harder tokens: no answer")
    assert where == "Rows of numbers (and of all tokens): 90% in width 10 (60%), 10% in width 30 (40%)."
    assert "all experts have one width" in findings({**result, "widths": [10, 10], "parts": []})[0]
