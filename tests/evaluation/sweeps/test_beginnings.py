"""Arms that are one training at first have noise in common, and what is said of them knows it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_analysis import MOE, MOHGE, PLAIN, SIZES, arm, study

from evaluation.sweeps.analysis import analyse
from evaluation.sweeps.beginnings import begun_as, parted, share_noise
from evaluation.sweeps.cells import CurvePoint
from evaluation.sweeps.sentences import quality_sentence, remarks
from evaluation.sweeps.study import Study

NEAR = {seed: bits + shift for (seed, bits), shift in zip(MOHGE.items(), (0, 1e-4, -1e-4), strict=True)}


def of(**begin: float) -> Study:
    """A sweep whose arms have these bits per byte, and their seed more, at the first validation."""
    values = {"moe": MOE, "a": MOHGE, "b": NEAR, "c": SIZES, "d": PLAIN}
    cells = [one for name in begin for one in arm(name, values[name])]
    curves = [
        CurvePoint(one.arm, one.seed, tokens, bits, None)
        for one in cells
        for tokens, bits in ((0, 8.0), (500, begin[one.arm] + one.seed), (1000, one.figures["bits_per_byte"]))
    ]
    return replace(study(cells), curves=curves)


ALIKE = {"moe": 3.0, "a": 3.1, "b": 3.1, "c": 3.2}


def test_the_first_validation_tells_and_the_untrained_model_does_not():
    found = of(**ALIKE)
    assert begun_as(found) == {"moe": "moe", "a": "a", "b": "a", "c": "c"}
    untrained = replace(found, curves=[point for point in found.curves if not point.tokens])
    assert begun_as(untrained) == {name: name for name in ALIKE}


def test_pairs_of_which_one_begins_alike_share_noise():
    begun = begun_as(of(**ALIKE))
    assert share_noise(begun, [("c", "moe"), ("b", "a")])
    assert not share_noise(begun, [("a", "moe"), ("b", "moe")])


def test_a_seed_in_which_they_part_is_told():
    found = of(**ALIKE, d=3.1)
    assert not parted(found)
    curves = [
        replace(point, bits_per_byte=point.bits_per_byte + 1e-9)
        if (point.seed, point.tokens) == (2, 500) and point.arm in "bd"
        else point
        for point in found.curves
    ]
    split = replace(found, curves=curves)
    assert parted(split) == {("a", "2"): ["b", "d"]}
    (said,) = [remark for remark in remarks(split, analyse(split)) if "at first" in remark]
    assert said.startswith("a, b and d are one training at first with some seeds, and not at seed 2, as on")


@pytest.mark.parametrize(("pair", "told"), [(("b", "a"), False), (("c", "a"), True)])
def test_no_power_is_told_of_a_test_that_is_stronger_than_it_knows(pair, told):
    (found,) = analyse(of(**ALIKE), {"asked": [pair]}).asked
    assert found.pooled is not None
    assert (found.detectable is not None) == told
    assert ("with 80% power" in quality_sentence(found, "it")) == told
