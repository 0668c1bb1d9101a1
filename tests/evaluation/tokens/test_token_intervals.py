"""Intervals: against other programs' figures, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from evaluation.tokens.intervals import FEWEST, Bootstrap

SEQUENCES, LENGTH = 60, 20
SEQUENCE_P = np.repeat(np.arange(SEQUENCES), LENGTH)


def clustered(rng: np.random.Generator, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Two normal variables of correlation rho, a third of whose variance is that of their sequence."""
    factor = np.linalg.cholesky([[1, rho], [rho, 1]]).T
    of_sequence = rng.normal(size=(SEQUENCES, 1, 2)) * np.sqrt(1 / 3)
    values = (of_sequence + rng.normal(size=(SEQUENCES, LENGTH, 2)) * np.sqrt(2 / 3)) @ factor
    return values[..., 0].ravel(), values[..., 1].ravel()


@pytest.mark.parametrize("decimals", [0, 3], ids=["many ties", "hardly any"])
def test_rho_is_scipys(decimals):
    x_P, y_P = (np.round(values, decimals) for values in clustered(np.random.default_rng(0), 0.5))
    found = Bootstrap(np.zeros(SEQUENCES, int), 0, 10).rank_correlation(x_P, y_P, SEQUENCE_P)
    assert found is not None
    assert found["rho"] == pytest.approx(spearmanr(x_P, y_P).statistic, abs=1e-12)


@pytest.mark.parametrize("decimals", [0, 3], ids=["many ties", "hardly any"])
def test_the_interval_is_that_of_ranking_every_resample_anew(decimals):
    rng = np.random.default_rng(1)
    x_P, y_P = (np.round(values, decimals) for values in clustered(rng, 0.6))
    x_NS, y_NS = x_P.reshape(SEQUENCES, LENGTH), y_P.reshape(SEQUENCES, LENGTH)
    drawn = [rng.integers(0, SEQUENCES, SEQUENCES) for _ in range(600)]
    low, high = np.quantile([spearmanr(x_NS[d].ravel(), y_NS[d].ravel())[0] for d in drawn], [0.025, 0.975])
    found = Bootstrap(np.zeros(SEQUENCES, int), 0, 2000).rank_correlation(x_P, y_P, SEQUENCE_P)
    assert found is not None
    assert found["low"] == pytest.approx(low, abs=0.12 * (high - low))
    assert found["high"] == pytest.approx(high, abs=0.12 * (high - low))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """In 200 texts whose tokens depend on each other within a sequence."""
    rng, truth = np.random.default_rng(2), 6 / np.pi * np.arcsin(0.4 / 2)
    held_rho = held_mean = 0
    for text in range(200):
        x_P, y_P = clustered(rng, 0.4)
        bootstrap = Bootstrap(np.zeros(SEQUENCES, int), text, 300)
        rho = bootstrap.rank_correlation(x_P, y_P, SEQUENCE_P)
        assert rho is not None
        held_rho += rho["low"] <= truth <= rho["high"]
        sums_N1 = x_P.reshape(SEQUENCES, LENGTH).sum(1, keepdims=True)
        (mean,) = bootstrap.means(sums_N1, np.full((SEQUENCES, 1), LENGTH))
        held_mean += mean["low"] <= 0 <= mean["high"]
    assert 0.89 <= held_rho / 200 <= 0.99
    assert 0.89 <= held_mean / 200 <= 0.99


def test_means_are_ratios_of_sums_and_domains_are_not_drawn():
    domain_N = np.repeat([0, 1], 10)
    sums_NM = np.stack([np.repeat([10.0, 30.0], 10), np.zeros(20), np.arange(20.0)], axis=1)
    counts_NM = np.stack([np.repeat([10, 10], 10), np.zeros(20), np.ones(20)], axis=1)
    between, absent, within = Bootstrap(domain_N, 0, 500).means(sums_NM, counts_NM)
    assert between == {"mean": 2.0, "low": 2.0, "high": 2.0}, "sequences differ by their domain alone"
    assert absent == {"mean": None, "low": None, "high": None}
    assert within["mean"] == 9.5
    assert within["low"] < 9.5 < within["high"]


def test_too_few_sequences_have_no_interval():
    few, rng = FEWEST - 1, np.random.default_rng(3)
    bootstrap = Bootstrap(np.zeros(few, int), 0, 50)
    (mean,) = bootstrap.means(np.arange(few)[:, None], np.ones((few, 1)))
    assert mean == {"mean": 3.0, "low": None, "high": None}
    assert (
        bootstrap.rank_correlation(rng.random(few * 5), rng.random(few * 5), np.arange(few * 5) % few) is None
    )


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    x_P, y_P = clustered(np.random.default_rng(4), 0.3)
    first, again, other = (
        Bootstrap(np.zeros(SEQUENCES, int), seed, 100).rank_correlation(x_P, y_P, SEQUENCE_P)
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_domains_of_few_sequences_are_drawn_as_one():
    """Of one sequence each, resamples within domains would all be the same."""
    sums_NM = np.arange(16.0)[:, None]
    (found,) = Bootstrap(np.arange(16), 0, 500).means(sums_NM, np.ones((16, 1)))
    (together,) = Bootstrap(np.zeros(16, int), 0, 500).means(sums_NM, np.ones((16, 1)))
    assert found == together
    assert found["high"] - found["low"] > 3
