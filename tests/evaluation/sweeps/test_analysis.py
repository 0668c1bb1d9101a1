"""Means, paired differences, effects, levels and costs of invented cells, by hand."""

import pytest
from scipy import stats

from evaluation.benchmarks.figures import NONE
from evaluation.sweeps.analysis import analyse
from evaluation.sweeps.blocks import pairs_named, sentence, table
from evaluation.sweeps.cells import Cell
from evaluation.sweeps.charts import charts
from evaluation.sweeps.families import Family
from evaluation.sweeps.pairing import difference
from evaluation.sweeps.plan import parse_plan
from evaluation.sweeps.sentences import answers, family_sentence, power_sentence, remarks
from evaluation.sweeps.study import Study, Unfinished
from evaluation.sweeps.wording import short, verdict
from mohge.errors import UserError

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
        "cells": [
            {"id": getattr(one, "id", f"{one.arm}-{one.seed}"), "arm": one.arm, "seed": one.seed}
            for one in [*cells, *unfinished]
        ],
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
    assert said.startswith("mohge and moe are not paired at seeds 1 and 3: they read other data")


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


def test_a_family_is_against_its_smallest_level():
    levels = [(0.0, "none"), (0.1, "some"), (1.0, "much")]
    cells = [*arm("moe", MOE), *arm("none", MOE), *arm("some", MOHGE), *arm("much", SIZES)]
    (found,) = analyse(
        study(cells, families=[Family("loss.group_weight", "loss.group_weight", levels)])
    ).families
    assert [one.pairs for one in found.comparisons] == [[("some", "none")], [("much", "none")]]
    assert found.comparisons[0].quality.mean == pytest.approx(0.02)


def test_what_is_not_finished_is_said_and_the_rest_goes_on():
    unfinished = [
        Unfinished("mohge", 3, "failed", "non-finite loss"),
        Unfinished("late", 1, "not finished", ""),
    ]
    found = study([*arm("moe", MOE), *arm("mohge", {1: 2.0, 2: 2.1})], unfinished=unfinished)
    said = remarks(found, analyse(found))
    assert "mohge: seed 3 has failed: non-finite loss." in said
    assert "late is left out: no cell of it is finished." in said


def test_without_the_baseline_there_are_means_and_a_remark():
    found = study(arm("mohge", MOHGE), unfinished=[Unfinished("moe", 1, "not finished", "")])
    analysis = analyse(found)
    assert analysis.arms["mohge"].beside_baseline.quality is None
    assert any("The baseline moe has no finished cell" in remark for remark in remarks(found, analysis))


def sentence_of(found, given, name="finding"):
    return sentence(found, analyse(found, pairs_named(found, given)), name, given)


def test_a_pair_has_one_p_and_one_verdict_wherever_it_is_shown():
    """Two arms beside the baseline, three contrasts, two pairs and two levels are four tests in all."""
    cells = [*arm("moe", MOE), *arm("a", {1: 2.010, 2: 2.111, 3: 2.212}), *arm("b", SIZES)]
    contrasts = {"a": [["b", "a"]], "all": [["a", "moe"]], "two": [["a", "moe"], ["b", "a"]]}
    levels = [(0.0, "a"), (1.0, "b"), (2.0, "moe")]
    found = study(cells, contrasts=contrasts, families=[Family("lr", "lr", levels)])
    analysis = analyse(found, {"x": [("a", "moe")], "y": [("b", "a")]})
    beside = analysis.arms["a"].beside_baseline
    assert beside.tests == 4  # a less moe, b less moe, b less a, and the mean of two of them
    assert beside.p_holm == pytest.approx(4 * beside.quality.p)
    asked = {one.name: one for one in analysis.asked}
    by_effect = {one.name: one for one in analysis.effects}
    assert asked["x"].p_holm == by_effect["all"].p_holm == beside.p_holm
    assert asked["x"].p_pooled == by_effect["all"].p_pooled == beside.p_pooled
    assert asked["y"].p_pooled == by_effect["a"].p_pooled
    assert verdict(asked["x"]) == verdict(beside)
    assert asked["y"].p_holm == by_effect["a"].p_holm
    against_a = {one.pairs[0]: one.p_holm for one in analysis.families[0].comparisons}
    assert against_a == {("b", "a"): by_effect["a"].p_holm, ("moe", "a"): beside.p_holm}


def test_pairs_that_are_asked_for_are_tests_of_the_same_family():
    cells = [*arm("moe", MOE), *arm("a", {1: 2.010, 2: 2.111, 3: 2.212}), *arm("b", SIZES), *arm("c", PLAIN)]
    found = study(cells)
    plain, more = (analyse(found, {str(p): [p] for p in pairs}) for pairs in ([], [("b", "a"), ("c", "a")]))
    assert [one.arms["a"].beside_baseline.tests for one in (plain, more)] == [3, 5]
    assert more.arms["a"].beside_baseline.p_holm == pytest.approx(
        5 * more.arms["a"].beside_baseline.quality.p
    )
    text = sentence_of(found, ["b less a", "c less a"])
    assert text.count("after Holm's correction for 5 tests") == 2


def test_nothing_is_judged_before_all_planned_seeds_are_there():
    """Two seeds of three: the difference is shown, without p or verdict, and counts as a test to come."""
    waiting = [Unfinished("a", 3, "not finished", "")]
    cells = [*arm("moe", MOE), *arm("a", {1: 2.010, 2: 2.1101}), *arm("b", SIZES)]
    found = study(cells, unfinished=waiting)
    analysis = analyse(found)
    a, b = (analysis.arms[name].beside_baseline for name in "ab")
    assert a.quality.p < 0.05 / 2
    assert (a.p_holm, a.p_pooled, a.detectable, verdict(a)) == (None, None, None, "not all seeds yet")
    assert b.tests == 2
    assert b.p_holm == pytest.approx(2 * b.quality.p)
    text = sentence_of(found, ["a less moe"])
    assert "p =" not in text
    assert text.endswith(": not all seeds yet.")
    (last,) = [one["answer"] for one in answers(found, analysis) if "differ from" in one["question"]]
    assert last.endswith("; not all seeds yet: a.")


@pytest.mark.parametrize("diverged", [True, False])
def test_an_arm_that_lost_a_seed_is_not_judged(diverged):
    """The two that are left flatter it: a training that failed was not its best."""
    cells = [*arm("moe", MOE), *arm("a", {1: 1.91, 2: 2.011}), *arm("b", SIZES)]
    lost = [] if diverged else [Unfinished("a", 3, "failed", "loss became nan")]
    if diverged:
        cells.append(cell("a", 3, 2.1))
        del cells[-1].figures["bits_per_byte"]
    found = study(cells, unfinished=lost)
    analysis = analyse(found)
    beside = analysis.arms["a"].beside_baseline
    assert beside.quality.p < 0.05
    assert (beside.p_holm, verdict(beside)) == (None, "a seed has failed")
    said = "has ended without finite bits per byte" if diverged else "has failed: loss became nan"
    assert f"a: seed 3 {said}." in remarks(found, analysis)


def test_arms_that_share_their_cells_are_one_test():
    twins = [cell(name, seed, bits, id=f"t-{seed}") for name in ("a", "b") for seed, bits in MOHGE.items()]
    analysis = analyse(study([*arm("moe", MOE), *arm("sizes", SIZES), *twins]))
    mohge = analysis.arms["a"].beside_baseline
    assert mohge.p_holm == analysis.arms["b"].beside_baseline.p_holm
    assert mohge.p_holm == pytest.approx(2 * mohge.quality.p)  # of two tests, not three
    assert mohge.tests == 2


def test_sentences_of_size_agree_with_themselves():
    sizes = {"total_parameters": 3190500.0, "active_measured": 44.0}
    other = cell("mohge", 1, 2.1, total_parameters=3191600.0)
    text = sentence_of(study([cell("moe", 1, 2.0, **sizes), other]), ["mohge less moe"])
    assert text.startswith("mohge has as many parameters as moe (3.192M against 3.191M) and uses 13.6% more")
    assert "13.6% more parameters per token (measured)." in text
    fewer = cell("mohge", 1, 2.1, total_parameters=1.4190e6)
    text = sentence_of(study([cell("moe", 1, 2.0, total_parameters=1.4204e6), fewer]), ["mohge less moe"])
    assert text.startswith(
        "mohge has 0.1% fewer parameters than moe (1.419M against 1.420M) and uses as many"
    )
    waiting = study(arm("moe", MOE), unfinished=[Unfinished("mohge", 1, "not finished", "")])
    assert sentence_of(waiting, ["mohge less moe"]) == "mohge and moe have no finished seed in common yet."


def test_verdicts_say_why_there_is_no_test():
    same = [cell("same", seed, bits, id=f"moe-{seed}") for seed, bits in MOE.items()]
    equal = {seed: bits + 0.5 for seed, bits in {1: 2.0, 2: 2.5, 3: 2.25}.items()}
    flat = study([*arm("moe", {1: 2.0, 2: 2.5, 3: 2.25}), *arm("mohge", equal)])
    analysis = analyse(flat)
    assert verdict(analysis.arms["mohge"].beside_baseline) == "equal in all seeds, no test"
    assert "are the same in all of them" in power_sentence(analysis)
    cells = [*arm("moe", MOE), *arm("mohge", MOHGE), *same, *arm("one", {1: 2.0}), *arm("late", {4: 2.0})]
    found = study(cells)
    told = {a.name: verdict(a.beside_baseline) for a in analyse(found).arms.values() if a.beside_baseline}
    assert told == {
        "mohge": "not shown",
        "same": "the same training",
        "one": "one seed tells nothing",
        "late": "not paired",
    }
    last = answers(found, analyse(found))[-1]["answer"]
    assert last.endswith(
        "of 1 others these seeds do not tell; the same training: same; one seed tells nothing: one; not "
        "paired: late."
    )


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (arm("mohge", MOHGE), "moe has no finished cell"),
        ([*arm("moe", {1: 2.0}), *arm("mohge", {2: 2.0})], "no other arm has a finished seed of moe"),
        ([*arm("moe", MOE), *arm("mohge", {2: 2.0})], "no arm has two seeds in common with moe"),
    ],
)
def test_why_power_is_not_known_is_said(cells, why):
    waiting = [Unfinished(name, 9, "not finished", "") for name in ("moe", "mohge")]
    assert power_sentence(analyse(study(cells, unfinished=waiting))).endswith(f"known yet: {why}.")


def test_a_family_is_judged_by_the_p_of_its_table():
    levels = [(0.0, "none"), (0.1, "plain"), (1.0, "much")]
    cells = [*arm("moe", {4: 2.0}), *arm("none", MOE), *arm("plain", PLAIN)]
    cells += arm("much", {1: 2.015, 2: 2.13, 3: 2.2225})
    (found,) = analyse(study(cells, families=[Family("lr", "lr", levels)])).families
    top = found.comparisons[-1]
    assert top.quality.p < 0.05 < top.p_holm == pytest.approx(2 * top.quality.p)
    assert "after Holm's correction for 2 tests" in family_sentence(found)
    assert top.p_pooled < 0.05  # the noise of all arms is less than that of this difference
    assert family_sentence(found).endswith("higher, so worse, if all arms are equally noisy.")
    one = study(
        [*arm("none", MOE), *arm("much", {1: 2.01}), *arm("moe", MOE)],
        families=[Family("lr", "lr", levels[::2])],
    )
    assert "(one seed tells nothing)" in family_sentence(analyse(one).families[0])
    assert NONE not in family_sentence(analyse(one).families[0])


def test_two_families_of_one_key_have_two_names():
    cells = [*arm("moe", MOE)]
    for place, name in enumerate("abcdef"):
        cells += arm(name, {seed: bits + 0.1 * place for seed, bits in MOE.items()})
    families = [Family(f"lr of {some[0]}", "lr", list(enumerate(some))) for some in ("abc", "def")]
    found = study(cells, families=families)
    analysis = analyse(found)
    assert {one["question"] for one in answers(found, analysis)} >= {
        "lr of a: what does it do?",
        "lr of d: what does it do?",
    }
    names = [chart.name for chart in charts(found, analysis)]
    assert {"family_lr_of_a", "family_lr_of_d"} <= set(names)
    assert [row[1] for row in table(found, analysis, "family", ["lr of a"]).rows] == ["a", "b", "c"]
    with pytest.raises(UserError, match="family of lr is one of several: choose one of lr of a, lr of d"):
        table(found, analysis, "family", ["lr"])


def test_domains_have_their_difference_to_the_baseline():
    cells = [
        cell(name, seed, 2.0, **{"bits_per_byte/code": bits})
        for name, values in (("moe", MOE), ("mohge", MOHGE))
        for seed, bits in values.items()
    ]
    found = study(cells)
    rows = table(found, analyse(found), "domains", []).rows
    assert rows == [["moe", "2.100"], ["mohge", "2.120 (+0.020)"]]


def test_groups_of_one_width_are_told_apart_and_of_one_group_nothing_is_chosen():
    shares = {"share/0": 0.25, "share/1": 0.75, "group_entropy": 0.9, "expert_entropy": 0.8}
    cells = [cell("moe", 1, 2.0, **{"share/0": 1.0}, group_entropy=1.0, expert_entropy=0.7)]
    for name, widths in (("equal", "96 96"), ("mohge", "48 144")):
        cells.append(cell(name, 1, 2.0, **shares))
        cells[-1].texts["widths"] = widths
    found = study(cells)
    rows = {row[0]: (row[1], *row[-2:]) for row in table(found, analyse(found), "experts", []).rows}
    assert rows == {
        "moe": ("8: 100.0%", NONE, "0.7"),
        "equal": ("96: 25.0%, 75.0%", "0.9", "0.8"),
        "mohge": ("48: 25.0%, 144: 75.0%", "0.9", "0.8"),
    }


def test_differences_are_in_the_order_of_the_plan_until_all_are_judged():
    cells = [*arm("moe", MOE), *arm("b", SIZES), *arm("a", MOHGE)]

    def order(found):
        (drawn,) = [one for one in charts(found, analyse(found)) if one.name == "differences"]
        return [row[0] for row in drawn.table.rows if row[1] == "mean"]

    assert order(study(cells)) == ["a", "b"]
    assert order(study(cells[:-1], unfinished=[Unfinished("a", 3, "not finished", "")])) == ["b", "a"]


def test_tables_and_charts_tell_which_seeds_they_are_of():
    """moe and mohge have three seeds, late has the third alone, which is the worst for all."""
    found = study([*arm("moe", MOE), *arm("mohge", MOHGE), cell("late", 3, 2.19)])
    analysis = analyse(found)
    sheet = table(found, analysis, "arms", [])
    assert [row[:2] for row in sheet.rows] == [
        ["moe (baseline)", "1 to 3"],
        ["mohge", "1 to 3"],
        ["late", "3"],
    ]
    drawn = {chart.name: chart for chart in charts(found, analysis)}
    pareto = drawn["pareto_total"].table
    parts = {row[0]: row[1:3] for row in pareto.rows if row[2] in ("mean", "mean of few")}
    assert parts["late"] == ("not ranked", "mean of few")
    assert parts["mohge"][1] == "mean"
    assert {row[0] for row in pareto.rows if row[2] == "front"} == {"moe"}
    forest = {row[0]: row[2] for row in drawn["differences"].table.rows if row[1] == "mean"}
    assert forest == {"mohge": "not shown", "late": "no test"}
    assert {row[0] for row in drawn["differences"].table.rows if row[1] == "band"} == {"mohge"}


def test_wide_intervals_do_not_flatten_a_chart():
    """Two seeds that are 0.035 apart, beside what seeds do to both arms, have an interval of 0.45.

    The axis spans less than twice the points.
    """
    found = study([*arm("moe", {1: 2.0, 2: 2.1}), *arm("mohge", {1: 2.05, 2: 2.1})])
    (chart,) = [one for one in charts(found, analyse(found)) if one.name == "pareto_total"]
    low, high = chart.picture["layer"][0]["encoding"]["y"]["scale"]["domain"]
    assert 0.06 < high - low < 0.12


@pytest.mark.parametrize(
    ("value", "text"), [(999.0, "999"), (999_960.0, "1.000M"), (3190272.0, "3.190M"), (999.96, "1.000k")]
)
def test_short_figures_have_the_unit_they_round_to(value, text):
    assert short(value) == text


def test_remarks_are_one_for_an_arm():
    late = [Unfinished("mohge", seed, "not finished", "") for seed in (2, 3)]
    gone = [Unfinished(name, 1, "not finished", "") for name in ("x", "y")]
    found = study([*arm("moe", {1: 2.0, 2: 2.1}), cell("mohge", 1, 2.0)], unfinished=[*late, *gone])
    assert remarks(found, analyse(found))[:3] == [
        "No cell of seed 3 is finished.",
        "x and y are left out: no cell of them is finished.",
        "mohge: seed 2 is not finished.",
    ]
