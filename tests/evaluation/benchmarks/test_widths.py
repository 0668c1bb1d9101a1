"""The sentence on mathematics and small talk, by hand."""

import pytest
from invented import right, task, write_evaluation

from evaluation.benchmarks.comparing import compare

EVEN, WIDER = [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.5, 0.5]  # mean widths 96 and 128


def answer(tmp_path, *suites, arch="mohge"):
    folders = []
    for seed, suite in enumerate(suites):
        tasks = {
            name: task(right(3, 10), label=name.upper(), shares=shares) for name, shares in suite.items()
        }
        folders.append(write_evaluation(tmp_path / f"{arch}{seed}", tasks, arch=arch, seed=seed))
    return compare(folders)["arms"][arch]["widths_used"]


def test_one_seed(tmp_path):
    found = answer(tmp_path, {"gsm8k": WIDER, "siqa": EVEN, "piqa": EVEN})
    assert (found["mathematics"], found["small_talk"]) == (128, 96)
    assert found["widest"] == {"task": "gsm8k", "mean_width": 128}
    assert found["sentence"] == (
        "Does mathematics use wider experts than small talk? In mohge yes: mean width 128.0 against 96.0 "
        "(GSM8K and SIQA, PIQA), from one seed, without an interval. In mohge GSM8K uses the widest "
        "experts, 128.0 on average, and SIQA the narrowest, 96.0; an even use of all groups would be 96.0."
    )


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (EVEN, "hardly any difference: mean width 96.0 against 96.0"),
        ([0.5, 0.5, 0, 0], "no, narrower ones: mean width 64.0"),
    ],
)
def test_alike_and_narrower(tmp_path, shares, said):
    assert said in answer(tmp_path, {"minerva_math": shares, "copa": EVEN})["sentence"]


def test_several_seeds_have_an_interval(tmp_path):
    """Differences 32 and 0: 16 ± 12.706·16."""
    found = answer(tmp_path, {"gsm8k": WIDER, "siqa": EVEN}, {"gsm8k": EVEN, "siqa": EVEN})
    assert found["over_seeds"]["low"] == pytest.approx(16 - 12.7062 * 16, abs=1e-2)
    assert "In mohge no difference is shown: mean width 112.0 against 96.0" in found["sentence"]
    assert "over 2 seeds" in found["sentence"]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (EVEN, "hardly any difference: mean width 96.0 against 96.0 (GSM8K and SIQA), the same in 3 seeds"),
        ([0.26, 0.24, 0.24, 0.26], "hardly any difference: mean width 96.0 against 96.0"),
        ([0.251, 0.25, 0.25, 0.249], "hardly any difference: mean width 95.9 against 96.0"),
        (WIDER, "yes: mean width 128.0 against 96.0"),
    ],
    ids=["equal", "equal but for rounding", "nearly", "wider"],
)
def test_seeds_that_agree_to_the_last_item(tmp_path, shares, said):
    assert said in answer(tmp_path, *[{"gsm8k": shares, "siqa": EVEN}] * 3)["sentence"]


def test_what_the_suite_lacks(tmp_path):
    found = answer(tmp_path, {"siqa": EVEN, "sciq": WIDER})
    assert found["mathematics"] is None
    assert found["sentence"].endswith("There is no task of mathematics to compare.")
    assert found["sentence"].startswith("In mohge SCIQ uses the widest experts")


@pytest.mark.parametrize(("arch", "shares"), [("moe", [1.0]), ("dense", []), ("mohge", [])])
def test_one_width_or_no_measurement_has_no_answer(tmp_path, arch, shares):
    assert answer(tmp_path, {"gsm8k": shares}, arch=arch) is None
