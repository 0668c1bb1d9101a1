"""Comparisons of invented evaluations, whose figures can be had by hand."""

import io
import json
import math

import pytest
from invented import failed, realistic, right, said, task, two, write_evaluation
from rich.console import Console

from evaluation.benchmarks.comparing import compare
from evaluation.benchmarks.terminal import render
from mohge.errors import UserError

ITEMS = 40


def test_one_task_by_hand(tmp_path):
    """Of 40 items mohge has the first 20 right, moe the second half of them: 10 differ."""
    found = two(
        tmp_path,
        {"piqa": task(right(20, ITEMS), label="PIQA")},
        {"piqa": task(right(10, ITEMS, first=10), label="PIQA")},
    )
    mohge, moe = found["arms"]["mohge"], found["arms"]["moe"]
    assert (mohge["baseline"], moe["baseline"], found["baselines"]) == ("moe", None, ["moe"])
    facts = mohge["tasks"]["piqa"]
    assert facts["score"] == 0.5
    assert facts["stderr"] == pytest.approx(math.sqrt(0.25 / 39))
    assert moe["tasks"]["piqa"]["stderr"] == pytest.approx(math.sqrt(0.1875 / 39))
    difference = facts["difference"]
    assert difference["difference"] == pytest.approx(0.25)
    assert difference["p"] == pytest.approx(2 / 2**10)
    assert difference["p_holm"] == difference["p"]
    assert difference["basis"] == "items"
    # The share of differing items is binomial: 0.25 ± 1.96·√(0.25·0.75/40).
    assert (difference["low"], difference["high"]) == pytest.approx((0.116, 0.384), abs=0.03)
    (one,) = difference["by_seed"]
    assert (one["test"], one["items"], one["differing"]) == ("exact McNemar", 40, 10)
    assert moe["tasks"]["piqa"]["difference"] is None
    assert found["answers"][0]["answer"].startswith("mohge against moe: better on PIQA (after Holm's")
    json.dumps(found, allow_nan=False)


def test_bits_per_byte_are_ratios_of_which_less_is_better(tmp_path):
    """8+6 bits on 2+4 bytes against 10+11: -7/6; both items differ, so p is 2/4."""
    mohge = {"text": task([[8.0, 2], [6, 4]], label="text", metric="bits_per_byte", chance=None)}
    moe = {"text": task([[10.0, 2], [11, 4]], label="text", metric="bits_per_byte", chance=None)}
    found = two(tmp_path, mohge, moe)
    facts = found["arms"]["mohge"]["tasks"]["text"]
    assert facts["score"] == pytest.approx(14 / 6)
    assert facts["difference"]["difference"] == pytest.approx(-7 / 6)
    assert facts["difference"]["p"] == 0.5
    assert facts["difference"]["by_seed"][0]["test"] == "exact permutation"
    assert found["macro_tasks"] == []
    assert found["tasks"]["text"]["in_percent"] is False


def test_items_are_paired_by_name_and_hash_not_by_place(tmp_path):
    answers = right(20, ITEMS)
    found = two(tmp_path, {"piqa": task(answers, label="PIQA")}, {"piqa": task(answers, label="PIQA")})
    path = tmp_path / "moe" / "samples" / "piqa.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    again = compare([tmp_path / "mohge", tmp_path / "moe"])
    assert again["arms"] == found["arms"]
    assert again["arms"]["mohge"]["tasks"]["piqa"]["difference"]["by_seed"][0]["differing"] == 0


def test_holm_is_over_the_tasks_and_leaves_out_other_metrics(tmp_path):
    """p of 10, 7 and 1 differing items on one side: 2/1024, 2/128, 1; times 3, 2, 1."""
    sizes = {"piqa": 10, "siqa": 7, "sciq": 1}
    others = {"acc_norm": right(5, ITEMS)}
    found = two(
        tmp_path,
        {name: task(right(n, ITEMS), label=name, others=others) for name, n in sizes.items()},
        {name: task(right(0, ITEMS), label=name, others={"acc_norm": right(0, ITEMS)}) for name in sizes},
    )
    tasks = found["arms"]["mohge"]["tasks"]
    assert [tasks[name]["difference"]["p_holm"] for name in sizes] == pytest.approx([6 / 1024, 4 / 128, 1])
    beside = tasks["piqa"]["other_metrics"]["acc_norm"]["difference"]
    assert beside["p"] == pytest.approx(2 / 32)
    assert "p_holm" not in beside
    assert "over 3 tests, the primary metrics of piqa, siqa, sciq" in found["families"][0]


def test_a_macro_average_by_hand(tmp_path):
    """Scores 0.5 and 0.2 with errors e and f: 0.35 ± √(e²+f²)/2; against 0.25 and 0.2."""
    text = task([[8.0, 2], [6, 4]], label="text", metric="bits_per_byte", chance=None)
    found = two(
        tmp_path,
        {
            "piqa": task(right(20, ITEMS), label="PIQA"),
            "siqa": task(right(4, 20), label="SIQA"),
            "text": text,
        },
        {
            "piqa": task(right(10, ITEMS), label="PIQA"),
            "siqa": task(right(4, 20), label="SIQA"),
            "text": text,
        },
    )
    assert found["macro_tasks"] == ["piqa", "siqa"]
    macro = found["arms"]["mohge"]["macro"]
    assert macro["score"] == pytest.approx(0.35)
    assert macro["stderr"] == pytest.approx(math.sqrt(0.25 / 39 + 0.16 / 19) / 2)
    assert macro["difference"]["difference"] == pytest.approx(0.125)
    assert macro["difference"]["p"] == pytest.approx(2 / 2**10)
    assert macro["difference"]["low"] > 0
    assert said(found, "Not in the macro average", "text")


def test_seeds_are_paired_and_make_a_t_interval(tmp_path):
    """Differences 0.1, 0.2 and 0.3 in seeds 1 to 3: mean 0.2, deviation 0.1, ± 4.303·0.1/√3."""
    folders = []
    for seed, (mohge, moe) in {1: (20, 16), 2: (22, 14), 3: (24, 12)}.items():
        for arch, count in (("mohge", mohge), ("moe", moe)):
            tasks = {"piqa": task(right(count, ITEMS), label="PIQA")}
            folders.append(write_evaluation(tmp_path / f"{arch}{seed}", tasks, arch=arch, seed=seed))
    alone = {"piqa": task(right(0, ITEMS), label="PIQA")}
    folders.append(write_evaluation(tmp_path / "moe9", alone, arch="moe", seed=9))
    found = compare(folders)
    facts = found["arms"]["mohge"]["tasks"]["piqa"]
    assert facts["by_seed"] == pytest.approx([0.5, 0.55, 0.6])
    assert facts["over_seeds"]["deviation"] == pytest.approx(0.05)
    assert facts["stderr"] is None
    difference = facts["difference"]
    reach = 4.302653 * 0.1 / math.sqrt(3)
    assert (difference["low"], difference["high"]) == pytest.approx((0.2 - reach, 0.2 + reach))
    assert difference["p"] == pytest.approx(0.0742, abs=1e-4)  # t of 2√3 with two degrees of freedom
    assert difference["basis"] == "seeds"
    assert [one["seed"] for one in difference["by_seed"]] == [1, 2, 3]
    assert difference["by_seed"][0]["p"] == pytest.approx(2 / 2**4)
    assert said(found, "Without a partner", "moe seed 9")
    assert "from 3 seeds" in found["answers"][0]["answer"]


def test_seeds_with_one_difference_have_no_interval_and_none_at_all_a_p_of_1(tmp_path):
    """In three seeds PIQA is 0.2 apart, SIQA not at all, SciQ 0.1, 0.2 and 0.3, with p 0.0742 by hand."""
    folders = []
    for seed in (1, 2, 3):
        for arch, counts in (("mohge", (20 + seed, 10, 16 + 4 * seed)), ("moe", (12 + seed, 10, 16))):
            tasks = {
                name: task(right(n, ITEMS), label=name)
                for name, n in zip(("piqa", "siqa", "sciq"), counts, strict=True)
            }
            folders.append(write_evaluation(tmp_path / f"{arch}{seed}", tasks, arch=arch, seed=seed))
    found = compare(folders)
    tasks = {name: facts["difference"] for name, facts in found["arms"]["mohge"]["tasks"].items()}
    assert [(tasks[name]["p"], tasks[name]["p_holm"]) for name in ("piqa", "siqa")] == [(None, None), (1, 1)]
    assert tasks["sciq"]["p_holm"] == pytest.approx(2 * 0.0742, abs=2e-4)  # of two tests
    assert said(found, "mohge less moe on piqa: the same in all seeds, to the last item: no t interval")
    answer = found["answers"][0]["answer"]
    assert "no difference shown on 2 of 3 tasks; not tested on piqa" in answer


def test_one_seed_says_so_and_two_say_how_little_it_is(tmp_path):
    found = two(tmp_path / "one", *({"piqa": task(right(n, ITEMS), label="PIQA")} for n in (20, 16)))
    assert said(found, "mohge is compared in one training", "no interval over seeds")
    assert found["arms"]["mohge"]["tasks"]["piqa"]["over_seeds"] is None
    folders = realistic(tmp_path / "two", archs=("moe", "mohge"), seeds=(1, 2))
    assert said(compare(folders), "share two seeds only")


def test_arms_without_a_common_seed(tmp_path):
    tasks = {"piqa": task(right(20, ITEMS), label="PIQA")}
    one = write_evaluation(tmp_path / "a", tasks, arch="mohge", seed=1)
    other = write_evaluation(tmp_path / "b", tasks, arch="moe", seed=2)
    found = compare([one, other])
    assert found["arms"]["mohge"]["tasks"]["piqa"]["difference"] is not None
    assert said(found, "different seeds (1 and 2)")
    found = compare([one, other, write_evaluation(tmp_path / "c", tasks, arch="moe", seed=3)])
    assert found["arms"]["mohge"]["tasks"]["piqa"]["difference"] is None
    assert said(found, "no seed in common")


def test_items_of_one_text_are_taken_together(tmp_path):
    """Ten texts of four equal pieces say as much as ten items."""
    texts = [[2.0 + 0.1 * (n % 3), 1.0] for n in range(10)]
    better = [[bits - 0.05 * (n % 2), size] for n, (bits, size) in enumerate(texts)]
    clusters, found = {"clusters": [n // 4 for n in range(40)]}, []
    for times, facts in ((1, {}), (4, clusters)):
        mine, theirs = (
            {
                "text": task(
                    [item for item in some for _ in range(times)], label="T", metric="bits_per_byte", **facts
                )
            }
            for some in (better, texts)
        )
        difference = two(tmp_path / str(times), mine, theirs)["arms"]["mohge"]["tasks"]["text"]["difference"]
        found.append([difference[key] for key in ("difference", "low", "high", "p")])
    assert found[1] == pytest.approx(found[0])


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"fewshot": 5}, "different few-shot examples (5 and 0)"),
        ({"version": 2.0}, "different versions of the task (2.0 and 1.0)"),
        ({"clusters": [0] * 20 + [1] * 20}, "do not tell alike which items are of one text"),
        ({}, "answered different items (20 and 40)"),
    ],
)
def test_what_is_not_the_same_task_is_not_compared(tmp_path, facts, why):
    items = ITEMS if facts else 20
    same = task(right(10, ITEMS), label="SIQA")
    found = two(
        tmp_path,
        {"piqa": task(right(10, items), label="PIQA", **facts), "siqa": same},
        {"piqa": task(right(10, ITEMS), label="PIQA"), "siqa": same},
    )
    tasks = found["arms"]["mohge"]["tasks"]
    assert tasks["piqa"]["difference"] is None
    assert tasks["piqa"]["score"] is not None
    assert tasks["siqa"]["difference"] is not None
    assert said(found, "Not compared: PIQA, as nano-mohge-seed1 and nano-moe-seed1", why)


def test_a_failed_task_is_told_and_the_others_are_compared(tmp_path):
    same = task(right(10, ITEMS), label="SIQA")
    found = two(
        tmp_path,
        {"piqa": failed("PIQA", "no memory"), "siqa": same, "sciq": same},
        {"piqa": task(right(10, ITEMS), label="PIQA"), "siqa": same, "sciq": same},
    )
    assert found["arms"]["mohge"]["tasks"]["piqa"]["score"] is None
    assert found["arms"]["moe"]["tasks"]["piqa"]["score"] == 0.25
    assert found["macro_tasks"] == ["siqa", "sciq"]
    assert said(found, "PIQA failed for nano-mohge-seed1: no memory.")
    assert "not tested on PIQA" in found["answers"][0]["answer"]


def test_numbers_that_json_lacks_are_left_out_of_lists_too(tmp_path):
    inside = {"part": {"metrics": {"acc": [0.5, math.nan]}}}
    tasks = {"piqa": task(right(10, ITEMS), label="PIQA", subtasks=inside)}
    found = compare([write_evaluation(tmp_path / "a", tasks)])
    assert found["checkpoints"][0]["tasks"]["piqa"]["subtasks"]["part"]["metrics"]["acc"] == [0.5, None]
    json.dumps(found, allow_nan=False)


def test_metrics_without_items_have_a_difference_and_no_test(tmp_path):
    folders = []
    for arch, value in (("mohge", 20.0), ("moe", 25.0)):
        tasks = {"lambada": task(right(10, ITEMS), label="LAMBADA", chance=None)}
        folder = write_evaluation(tmp_path / arch, tasks, arch=arch)
        results = json.loads((folder / "results.json").read_text())
        metric = {"value": value, "stderr": 1.5, "aggregation": "other", "higher_is_better": False}
        results["tasks"]["lambada"]["metrics"]["perplexity"] = metric
        (folder / "results.json").write_text(json.dumps(results))
        folders.append(folder)
    facts = compare(folders)["arms"]["mohge"]["tasks"]["lambada"]["other_metrics"]["perplexity"]
    assert (facts["score"], facts["stderr"]) == (20.0, 1.5)
    assert facts["difference"]["difference"] == -5
    assert facts["difference"]["p"] is None
    assert facts["difference"]["basis"] is None


def test_cost_is_that_of_the_tokens(tmp_path):
    tasks = {"piqa": task(right(10, ITEMS), label="PIQA"), "siqa": task(right(10, ITEMS), label="SIQA")}
    folder = write_evaluation(tmp_path / "a", tasks)
    results = json.loads((folder / "results.json").read_text())
    results["tasks"]["siqa"]["cost"] |= {"tokens": 3000, "active_parameters": 1000.0, "seconds": 6.0}
    results["tasks"]["piqa"]["cost"] |= {"active_parameters": 2000.0}
    results["tasks"]["piqa"]["cost"]["cut_contexts"] = 7
    (folder / "results.json").write_text(json.dumps(results))
    found = compare([folder])
    assert said(found, "cut on the left", ": PIQA (7) requests.")
    cost = found["arms"]["mohge"]["cost"]
    assert cost["active_parameters"]["measured"] == (2000 + 3 * 1000) / 4
    assert cost["seconds"] == 8
    assert cost["tasks"]["piqa"]["seconds_per_item"] == 2 / ITEMS
    # 0.2·48 + 0.3·80 + 0.3·112 + 0.2·144
    assert cost["tasks"]["piqa"]["mean_width"] == pytest.approx(96)


def test_nothing_to_compare_is_told():
    with pytest.raises(UserError, match="there is no evaluation to compare"):
        compare([])


def test_evaluations_of_which_all_tasks_failed_are_shown_as_such(tmp_path):
    found = two(tmp_path, {"piqa": failed("PIQA")}, {"piqa": failed("PIQA")})
    assert found["tasks"] == {}
    assert said(found, "piqa failed for nano-mohge-seed1: the model ran out of memory.")
    assert found["answers"][0]["answer"] == "mohge against moe: no task was finished."
    Console(file=io.StringIO()).print(render(found))
