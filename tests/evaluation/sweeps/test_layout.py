"""The noise of a sweep and what it says of differences: by hand, against plain tests, and by simulation."""

from dataclasses import replace

import numpy as np
import pytest
from test_analysis import MOE, MOHGE, PLAIN, SIZES, arm, cell, study

from evaluation.sweeps.analysis import analyse
from evaluation.sweeps.cells import CurvePoint
from evaluation.sweeps.layout import noise_of
from evaluation.sweeps.sentences import power_sentence
from evaluation.sweeps.wording import SHOWN, verdict


def test_of_two_arms_it_is_the_paired_t_test():
    """Differences 0.01, 0.03 and 0.02 deviate by 0.01, each of two cells by 1/√2 of that."""
    found = analyse(study([*arm("moe", MOE), *arm("mohge", MOHGE)]))
    beside = found.arms["mohge"].beside_baseline
    assert (found.noise.deviation, found.noise.freedom) == (pytest.approx(0.01 / 2**0.5), 2)
    assert beside.pooled.error == pytest.approx(0.01 / 3**0.5)
    own = beside.quality
    ends = (beside.pooled.low, beside.pooled.high, beside.pooled.p)
    assert ends == pytest.approx((own.low, own.high, own.p))
    assert beside.p_pooled == beside.pooled.p


def test_of_a_complete_sweep_it_is_the_analysis_of_variance():
    """Residuals of arms and seeds, from which row and column means are taken: Σ r² / ((A-1)(S-1))."""
    values = [MOE, MOHGE, SIZES, PLAIN]
    bits_AS = np.array([list(one.values()) for one in values])
    left_AS = bits_AS - bits_AS.mean(0) - bits_AS.mean(1, keepdims=True) + bits_AS.mean()
    cells = [
        one for name, some in zip(("moe", "a", "b", "c"), values, strict=True) for one in arm(name, some)
    ]
    found = noise_of(study(cells))
    assert found.freedom == 6
    assert found.deviation == pytest.approx((np.square(left_AS).sum() / 6) ** 0.5)


def test_an_arm_with_fewer_seeds_adds_what_it_knows():
    cells = [*arm("moe", MOE), *arm("a", MOHGE), cell("b", 1, 2.5)]
    alone = noise_of(study(cells[:-1]))
    assert noise_of(study(cells)) == alone  # one cell of an arm tells nothing of noise
    assert noise_of(study([*cells, cell("b", 2, 2.6)])).freedom == 3


def test_seeds_of_other_data_are_other_blocks():
    cells = [*arm("moe", MOE), *arm("a", MOHGE, data="other")]
    assert noise_of(study(cells)) is None  # no block holds two arms


def test_arms_that_share_cells_count_once():
    twins = [cell(name, seed, bits, id=f"t-{seed}") for name in ("a", "b") for seed, bits in MOHGE.items()]
    assert noise_of(study([*arm("moe", MOE), *twins])) == noise_of(study([*arm("moe", MOE), *twins[:3]]))


def test_arms_that_are_one_training_at_first_count_once():
    """b begins as a, c by itself; what an untrained model does tells nothing."""
    cells = [*arm("moe", MOE), *arm("a", MOHGE), *arm("b", SIZES), *arm("c", PLAIN)]
    found = study(cells)
    begin = {"moe": 3.0, "a": 3.1, "b": 3.1, "c": 3.2}
    curves = [
        CurvePoint(one.arm, one.seed, tokens, bits, None)
        for one in cells
        for tokens, bits in ((0, 8.0), (500, begin[one.arm] + one.seed), (1000, one.figures["bits_per_byte"]))
    ]
    without_b = study([one for one in cells if one.arm != "b"])
    assert noise_of(replace(found, curves=curves)) == noise_of(without_b) != noise_of(found)
    untrained = [point for point in curves if not point.tokens]
    assert noise_of(replace(found, curves=untrained)) == noise_of(found)


def test_without_seeds_or_noise_there_is_none():
    assert noise_of(study([cell("moe", 1, 2.0), cell("a", 1, 2.1)])) is None
    flat = [cell(name, seed, 2.0 + 0.25 * seed) for name in ("moe", "a") for seed in (1, 2)]
    assert noise_of(study(flat)) is None


def test_a_mean_over_pairs_of_four_arms_has_half_the_variance_of_one():
    cells = [*arm("moe", MOE), *arm("a", MOHGE), *arm("b", SIZES), *arm("c", PLAIN)]
    contrasts = {"two": [["a", "moe"], ["b", "c"]], "chain": [["a", "moe"], ["b", "a"]], "one": [["b", "c"]]}
    found = analyse(study(cells, contrasts=contrasts))
    two, chain, one = (effect.pooled.error for effect in found.effects)
    assert two == pytest.approx(one / 2**0.5)
    assert chain == pytest.approx(one / 2)  # (b - moe) / 2: what a adds, it takes away
    assert one == pytest.approx(found.noise.deviation * (2 / 3) ** 0.5)


def test_what_one_difference_cannot_show_the_noise_of_all_arms_may():
    """Three seeds of eleven arms, of which the last is 0.024, 0.03 and 0.036 worse, ten times the noise."""
    rng = np.random.default_rng(2)
    seeds = {1: 2.0, 2: 2.1, 3: 2.2}
    cells = []
    for number in range(11):
        drawn = {seed: bits + rng.normal(0, 0.003) for seed, bits in seeds.items()}
        cells += arm("moe" if number == 0 else f"a{number}", drawn)
        if number == 0:
            last = {seed: bits + 0.018 + 0.006 * seed for seed, bits in drawn.items()}
    found = analyse(study([*cells[:-3], *arm("a10", last)]))
    last = found.arms["a10"].beside_baseline
    assert last.p_holm > 0.05 > last.p_pooled
    assert verdict(last) == "worse (pooled)"
    assert verdict(found.arms["a1"].beside_baseline) == "not shown"


@pytest.mark.parametrize(("baseline", "least", "most"), [(1, 0.04, 0.11), (2, 0.07, 0.17)])
def test_without_differences_few_sweeps_have_a_finding(baseline, least, most):
    """Six equal arms over three seeds: of 40,000 sweeps 7.7%; a baseline twice as noisy makes it 11.8%."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        cells = [
            cell(name, seed, 2 + 0.1 * seed + rng.normal(0, 0.01 * (baseline if name == "moe" else 1)))
            for name in ("moe", "a", "b", "c", "d", "e")
            for seed in (1, 2, 3)
        ]
        arms = analyse(study(cells)).arms.values()
        found += any(verdict(one.beside_baseline) in SHOWN for one in arms if one.beside_baseline)
    assert least < found / 400 < most


def test_a_cell_without_quality_is_none_of_the_layout():
    cells = [*arm("moe", MOE), *arm("a", MOHGE)]
    bare = cell("b", 1, 2.0)
    del bare.figures["bits_per_byte"]
    found = analyse(study([*cells, bare]))
    assert found.noise == noise_of(study(cells))
    assert found.arms["b"].beside_baseline.quality is None


def test_a_difference_of_zero_in_every_seed_is_no_test_of_either_kind():
    cells = [*arm("moe", MOE), *arm("a", MOHGE), *arm("b", SIZES), *arm("z", MOE)]
    found = analyse(study(cells)).arms
    assert [found[name].beside_baseline.tests for name in "abz"] == [2, 2, 2]
    assert (found["z"].beside_baseline.p_holm, found["z"].beside_baseline.p_pooled) == (None, None)
    first, second = sorted((found[name].beside_baseline for name in "ab"), key=lambda one: one.pooled.p)
    assert first.p_pooled == pytest.approx(2 * first.pooled.p)
    assert second.p_pooled >= first.p_pooled


def test_seeds_that_are_needed_agree_with_what_is_detectable():
    """Arms that read other data tell of noise too."""
    others = [one for name in "bcde" for one in arm(name, SIZES, data="other")]
    found = analyse(study([*arm("moe", MOE), *arm("a", MOHGE), *others, *arm("f", PLAIN, data="other")]))
    pooled = found.power.pooled
    for wanted, seeds in pooled.needed.items():
        assert (seeds <= found.power.seeds) == (pooled.detectable <= wanted)


def test_power_is_of_three_kinds_of_test():
    """With the noise 1: 3.26404 of √2 is what three seeds show of one difference, by a table of power."""
    cells = [*arm("moe", MOE), *arm("a", MOHGE), *arm("b", SIZES), *arm("c", PLAIN)]
    found = analyse(study(cells))
    power = found.power
    assert power.seeds == 3
    assert power.deviation == pytest.approx(2**0.5 * found.noise.deviation)
    assert power.alone.detectable == pytest.approx(3.26404 * power.deviation, rel=1e-4)
    assert [(one.tests, one.freedom) for one in (power.alone, power.corrected, power.pooled)] == [
        (1, 2),
        (3, 2),
        (3, 6),
    ]
    assert power.pooled.detectable < power.alone.detectable < power.corrected.detectable
    assert power.pooled.needed[0.02] < power.corrected.needed[0.02]
    assert found.arms["a"].beside_baseline.detectable == power.pooled.detectable
    said = power_sentence(found)
    assert "(6 degrees of freedom)" in said
    assert "after Holm's correction for 3 tests" in said
