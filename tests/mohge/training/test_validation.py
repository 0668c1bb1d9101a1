"""Validation figures against sums done by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mohge.training.random_state import get_random_state, set_random_state
from mohge.training.validation import ValidationSums

TOKEN_BYTES_V = torch.tensor([0, 1, 2, 5])  # token 0 is special: it stands for no text


def test_bits_per_byte_by_hand():
    sums = ValidationSums(("code", "prose"), TOKEN_BYTES_V, torch.device("cpu"))
    # Two sequences of code, one of prose whose last target is absent.
    targets_BS = torch.tensor([[1, 2, 3], [0, 1, 1], [3, 3, -100]])
    loss_BS = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.5, 1.0], [4.0, 2.0, 0.0]])
    sums.add(loss_BS[:2], targets_BS[:2], torch.tensor([0, 0]))
    sums.add(loss_BS[2:], targets_BS[2:], torch.tensor([1]))
    metrics = sums.metrics()
    # code: 8 nats, 6 tokens, 1+2+5 + 0+1+1 = 10 bytes; prose: 6 nats, 2 tokens, 10 bytes
    assert metrics["val/loss/code"] == pytest.approx(8 / 6)
    assert metrics["val/bits_per_byte/code"] == pytest.approx(8 / math.log(2) / 10)
    assert metrics["val/loss/prose"] == pytest.approx(3)
    assert metrics["val/bits_per_byte/prose"] == pytest.approx(6 / math.log(2) / 10)
    assert metrics["val/loss"] == pytest.approx(14 / 8)
    assert metrics["val/perplexity"] == pytest.approx(math.exp(14 / 8))
    assert metrics["val/bits_per_byte"] == pytest.approx(14 / math.log(2) / 20)


def test_a_uniform_guess_over_bytes_costs_eight_bits():
    sums = ValidationSums(("all",), torch.ones(256, dtype=torch.int64), torch.device("cpu"))
    targets_BS = torch.arange(256).view(8, 32)
    loss_BS = torch.full((8, 32), math.log(256))
    sums.add(loss_BS, targets_BS, torch.zeros(8, dtype=torch.int64))
    assert sums.metrics()["val/bits_per_byte"] == pytest.approx(8)


def test_a_domain_that_was_not_seen_has_no_figures():
    sums = ValidationSums(("seen", "unseen"), TOKEN_BYTES_V, torch.device("cpu"))
    sums.add(torch.ones(1, 2), torch.tensor([[1, 2]]), torch.tensor([0]))
    assert not [name for name in sums.metrics() if name.endswith("unseen")]


def test_random_generators_continue_where_they_were():
    import random

    import numpy as np

    def draw() -> tuple[object, ...]:
        return (
            random.random(),
            random.gauss(0, 1),
            np.random.standard_normal(3).tolist(),
            torch.rand(3).tolist(),
        )

    draw()
    random.gauss(0, 1)  # leaves a second number cached
    state = get_random_state()
    expected = [draw() for _ in range(3)]
    draw()
    set_random_state(state)
    assert [draw() for _ in range(3)] == expected


def test_the_random_state_is_plain_data(tmp_path):
    torch.save(get_random_state(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    expected = torch.rand(5)
    set_random_state(state)
    assert torch.equal(torch.rand(5), expected)
