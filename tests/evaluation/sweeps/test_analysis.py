"""Means, paired differences, effects, levels and costs of invented cells, by hand."""

import pytest
from scipy import stats

from evaluation.sweeps.analysis import analyse
from evaluation.sweeps.cells import Cell
from evaluation.sweeps.families import Family
from evaluation.sweeps.pairing import difference
from evaluation.sweeps.plan import parse_plan
from evaluation.sweeps.sentences import remarks
from evaluation.sweeps.study import Study, Unfinished

MOE = {1: 2.00, 2: 2.10, 3: 2.20}
MOHGE = {1: 2.01, 2: 2.13, 3: 2.22}
SIZES = {1: 2.04, 2: 2.12, 3: 2.29}
PLAIN = {1: 2.01, 2: 2.12, 3: 2.23}


def cell(arm, seed, bits, *, data="same", id=None, **figures):
    known = {"bits_per_byte": bits, "tokens": 1000.0, "total_parameters": 100.0, "active_measured": 50.0}
    texts = {"arch": arm, "model": "nano", "widths": "8", "match": "", "revision": "abc", "data": data}
    return Cell(arm, seed, id or f"{arm}-{seed}", texts, known | figures)


def study(cells, *, contrasts=None, factors=None, of=None, families=(), unfinished=()):
    arms = dict.fromkeys(one.arm for one in [*cells, *unfinished])
    plan = {
        "format": "mohge-sweep-1",
        "name": "invented",
        "baseline": "moe",
        "seeds": [1, 2, 3],
        "overrides": [],
        "arms": {
            arm: {"overrides": [], "factors": (factors or {}).get(arm, {}), "of": (of or {}).get(arm)}
            for arm in arms
        },
        "contrasts": contrasts or {},
        "cells": [{"id": "x", "arm": one.arm, "seed": one.seed} for one in [*cells, *unfinished]],
    }
    return Study(parse_plan(plan, "sweep.json"), list(cells), list(unfinished), list(families), [])


def arm(name, values, **more):
    return [cell(name, seed, bits, **more) for seed, bits in values.items()]


def test_a_difference_is_paired_by_seed_whatever_the_order_of_cells():
    """+0.01, +0.03, +0.02: mean 0.02, deviation 0.01, error 0.01/√3, and t of two degrees 4.302653."""
    found = analyse(study([*arm("mohge", MOHGE), *reversed(arm("moe", MOE))])).arms["mohge"].beside_baseline
    assert found.quality.by_seed == pytest.approx({1: 0.01, 2: 0.03, 3: 0.02})
    assert found.quality.mean == pytest.approx(0.02)
    reach = 4.302653 * 0.01 / 3**0.5
    assert (found.quality.low, found.quality.high) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-7)
    theirs = stats.ttest_rel(list(MOHGE.values()), list(MOE.values()))
    assert found.quality.p == pytest.approx(theirs.pvalue)
    assert found.p_holm == pytest.approx(theirs.pvalue)  # the only arm


def test_means_have_t_intervals_over_seeds():
    found = analyse(study(arm("moe", MOE))).arms["moe"].figures["bits_per_byte"]
    theirs = stats.ttest_1samp(list(MOE.values()), 0).confidence_interval(0.95)
    assert (found.mean, found.deviation) == pytest.approx((2.1, 0.1))
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_holm_is_over_all_arms_but_the_baseline():
    cells = [*arm("moe", MOE), *arm("mohge", MOHGE), *arm("sizes", SIZES), *arm("plain", PLAIN)]
    found = {name: one.beside_baseline for name, one in analyse(study(cells)).arms.items() if name != "moe"}
    p = {name: one.quality.p for name, one in found.items()}
    first, second, third = sorted(p, key=p.get)
    assert found[first].p_holm == pytest.approx(3 * p[first])
    assert found[second].p_holm == pytest.approx(max(2 * p[second], 3 * p[first]))
    assert found[third].p_holm >= found[second].p_holm


def test_an_effect_is_the_mean_over_its_pairs_within_each_seed():
    """With less without: seed 1 (0.04+0.00)/2, seed 2 (0.02+0.01)/2, seed 3 (0.09-0.01)/2."""
    cells = [*arm("moe", MOE), *arm("mohge", MOHGE), *arm("sizes", SIZES), *arm("plain", PLAIN)]
    contrasts = {"sizes": [["sizes", "moe"], ["mohge", "plain"]]}
    (found,) = analyse(study(cells, contrasts=contrasts)).effects
    assert found.quality.by_seed == pytest.approx({1: 0.02, 2: 0.015, 3: 0.04})
    assert found.quality.mean == pytest.approx(0.025)


def test_a_seed_without_all_pairs_does_not_count():
    cells = [*arm("moe", MOE), *arm("mohge", MOHGE), *arm("sizes", SIZES), *arm("plain", {1: 2.0, 2: 2.1})]
    found = difference(study(cells), [("sizes", "moe"), ("mohge", "plain")], "bits_per_byte")
    assert list(found.by_seed) == [1, 2]


def test_levels_of_a_grid_are_against_the_first_over_the_other_factors():
    """lr=2 less lr=1, over two batches: seed 1 (0.1 + 0.3) / 2."""
    values = {"a": ("1", "x", 2.0), "b": ("2", "x", 2.1), "c": ("1", "y", 2.0), "d": ("2", "y", 2.3)}
    cells = [*arm("moe", MOE), *(cell(name, 1, bits) for name, (_, _, bits) in values.items())]
    factors = {name: {"lr": lr, "batch": batch} for name, (lr, batch, _) in values.items()}
    found = analyse(study(cells, factors=factors, of=dict.fromkeys(values, "mohge"))).levels
    assert [one.name for one in found] == ["lr=2", "batch=y"]
    assert sorted(found[0].pairs) == [("b", "a"), ("d", "c")]
    assert found[0].quality.by_seed == pytest.approx({1: 0.2})
    assert found[1].quality.by_seed == pytest.approx({1: 0.1})


def test_cost_is_relative_and_paired():
    """Active 45 and 46 of 50: -10% and -8%; total 80 of 100 in each seed, which has no interval."""
    mine = [cell("mohge", 1, 2.0, active_measured=45.0, total_parameters=80.0)]
    mine += [cell("mohge", 2, 2.1, active_measured=46.0, total_parameters=80.0)]
    found = analyse(study([*arm("moe", MOE), *mine])).arms["mohge"].beside_baseline.costs
    assert found["active_measured"].mean == pytest.approx(-0.09)
    assert found["active_measured"].low == pytest.approx(-0.09 - 12.7062 * 0.01, abs=1e-4)
    assert (found["total_parameters"].mean, found["total_parameters"].low) == (pytest.approx(-0.2), None)


def test_cells_that_read_other_data_are_not_paired_and_it_is_said():
    cells = [*arm("moe", MOE), *arm("mohge", {1: 2.0, 2: 2.1}), cell("mohge", 3, 1.0, data="other")]
    cells[3:4] = [cell("mohge", 1, 2.0, tokens=999.0)]
    found = study(cells)
    analysis = analyse(found)
    assert list(analysis.arms["mohge"].beside_baseline.quality.by_seed) == [2]
    (said,) = [remark for remark in remarks(found, analysis) if "not paired" in remark]
    assert said.startswith("mohge and moe are not paired at seeds 1, 3: they read other data")


def test_arms_of_one_training_are_no_test():
    cells = [
        cell(name, seed, bits, id=f"shared-{seed}") for name in ("moe", "same") for seed, bits in MOE.items()
    ]
    found = study([*cells, *arm("mohge", MOHGE)])
    analysis = analyse(found)
    assert analysis.arms["same"].beside_baseline.p_holm is None
    mohge = analysis.arms["mohge"].beside_baseline
    assert mohge.p_holm == mohge.quality.p
    assert any("moe and same are the same training" in remark for remark in remarks(found, analysis))


def test_power_is_of_the_pooled_deviation():
    """Deviations 0.01 of mohge and √0.0013 of sizes: their mean variance is 0.0007."""
    cells = [*arm("moe", MOE), *arm("mohge", MOHGE), *arm("sizes", SIZES)]
    found = analyse(study(cells)).power
    assert found.seeds == 3
    assert found.deviation == pytest.approx(0.0007**0.5)
    assert found.detectable == pytest.approx(3.26404 * 0.0007**0.5, rel=1e-4)
    assert analyse(study([cell("moe", 1, 2.0), cell("mohge", 1, 2.1)])).power is None


def test_a_family_is_against_its_smallest_level():
    levels = [(0.0, "none"), (0.1, "some"), (1.0, "much")]
    cells = [*arm("moe", MOE), *arm("none", MOE), *arm("some", MOHGE), *arm("much", SIZES)]
    (found,) = analyse(study(cells, families=[Family("loss.group_weight", levels)])).families
    assert [one.pairs for one in found.comparisons] == [[("some", "none")], [("much", "none")]]
    assert found.comparisons[0].quality.mean == pytest.approx(0.02)


def test_what_is_not_finished_is_said_and_the_rest_goes_on():
    unfinished = [Unfinished("mohge", 3, "failed", "non-finite loss"), Unfinished("late", 1, "not begun", "")]
    found = study([*arm("moe", MOE), *arm("mohge", {1: 2.0, 2: 2.1})], unfinished=unfinished)
    said = remarks(found, analyse(found))
    assert "mohge seed 3 is failed: non-finite loss." in said
    assert "late seed 1 is not begun." in said
    assert "mohge: figures are of 2 of 3 seeds." in said
    assert "late is left out: none of its cells is finished." in said


def test_without_the_baseline_there_are_means_and_a_remark():
    found = study(arm("mohge", MOHGE), unfinished=[Unfinished("moe", 1, "running", "")])
    analysis = analyse(found)
    assert analysis.arms["mohge"].beside_baseline.quality is None
    assert any("The baseline moe has no finished cell" in remark for remark in remarks(found, analysis))
