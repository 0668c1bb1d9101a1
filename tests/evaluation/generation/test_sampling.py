"""Which token comes next."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from evaluation.generation.sampling import Draws, Sampling, next_tokens
from mohge.errors import RunError

# Probabilities 0.5, 0.3, 0.15, 0.05 of tokens 2, 0, 3, 1.
LOGITS = torch.tensor([0.3, 0.05, 0.5, 0.15]).log()
MANY = 4000


def shares(**settings: Any) -> list[float]:
    """Of the four tokens, in many draws."""
    sampling = Sampling(**{"max_new_tokens": 1, "temperature": 1.0} | settings)
    drawn = next_tokens(LOGITS.expand(MANY, -1), sampling, [Draws(0, row) for row in range(MANY)])
    return [drawn.count(token) / MANY for token in range(4)]


def test_shares_are_the_probabilities():
    assert shares() == pytest.approx([0.3, 0.05, 0.5, 0.15], abs=0.025)


def test_temperature_sharpens():
    """Squares of the probabilities, which sum to 0.365."""
    expected = [0.09 / 0.365, 0.0025 / 0.365, 0.25 / 0.365, 0.0225 / 0.365]
    assert shares(temperature=0.5) == pytest.approx(expected, abs=0.025)
    assert shares(temperature=1e-6) == [0, 0, 1, 0]
    assert shares(temperature=0.0) == [0, 0, 1, 0]


def test_top_k_and_top_p_leave_the_most_probable():
    assert shares(top_k=2) == pytest.approx([0.3 / 0.8, 0, 0.5 / 0.8, 0], abs=0.025)
    assert shares(top_k=1) == [0, 0, 1, 0]
    assert shares(top_k=9) == shares()
    assert shares(top_p=0.7) == shares(top_k=2)  # one token has 0.5, two have 0.8
    assert shares(top_p=0.3) == [0, 0, 1, 0]
    assert shares(top_p=1.0) == shares()
    assert shares(top_k=3, top_p=0.9) == shares(top_k=3)  # of the three, two have 0.84
    assert shares(top_k=3, top_p=0.84) == shares(top_k=2)


def test_a_row_draws_the_same_in_any_batch():
    logits = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    sampling = Sampling(max_new_tokens=1, temperature=1.0, seed=3)
    together = next_tokens(logits, sampling, [Draws(3, row) for row in range(6)])
    assert together == [next_tokens(logits[row : row + 1], sampling, [Draws(3, row)])[0] for row in range(6)]
    assert together != next_tokens(logits, sampling, [Draws(4, row) for row in range(6)])


def test_the_end_of_the_interval_is_a_token_that_may_be_drawn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Draws, "next", lambda _: 1.0)
    sampling = Sampling(max_new_tokens=1, temperature=1.0, top_p=0.7)
    assert next_tokens(LOGITS[None], sampling, [Draws(0, 0)]) == [0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": 1e-50},
        {"temperature": float("nan")},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"stop": ("",)},
    ],
    ids=str,
)
def test_nonsense_is_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=r"stop string|=.*: give"):
        Sampling(**{"max_new_tokens": 1} | wrong)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_has_diverged_is_told(temperature: float) -> None:
    sampling = Sampling(max_new_tokens=1, temperature=temperature)
    logits_BV = torch.tensor([[0.0, float("nan"), 1.0]])
    with pytest.raises(RunError, match="diverged"):
        next_tokens(logits_BV, sampling, [Draws(0, 0)])
