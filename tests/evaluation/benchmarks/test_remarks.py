"""What a comparison cannot say is said."""

from invented import failed, right, said, task, two, write_evaluation

from evaluation.benchmarks.comparing import compare
from evaluation.benchmarks.sheets import sheets

ITEMS = 40


def test_a_task_that_an_evaluation_lacks_is_told_and_a_failed_one_not_twice(tmp_path):
    same = task(right(10, ITEMS), label="SIQA")
    moe = {
        "piqa": task(right(10, ITEMS), label="PIQA"),
        "siqa": same,
        "sciq": task(right(9, 9), label="SciQ"),
    }
    found = two(tmp_path, {"siqa": same, "sciq": failed("SciQ")}, moe)
    assert said(found, "Evaluated without PIQA, and so not compared there: mohge.")
    assert not said(found, "Evaluated without", "SciQ")
    seeds = [write_evaluation(tmp_path / "2", {"siqa": same}, arch="moe", seed=2), tmp_path / "moe"]
    assert said(compare(seeds), "Evaluated without PIQA, SciQ, and so not compared there: moe seed 2.")


def test_what_is_not_known_of_a_training_is_said_and_not_compared(tmp_path):
    tasks = {"piqa": task(right(10, ITEMS), label="PIQA")}
    unknown = {"seed": None, "corpus": None, "training_tokens": None}
    imported = write_evaluation(tmp_path / "a", tasks, name="imported", arch="dense", **unknown)
    moe = [write_evaluation(tmp_path / str(seed), tasks, arch="moe", seed=seed) for seed in (1, 2)]
    found = compare([imported, moe[0]])
    (name,) = (name for name in found["arms"] if name.startswith("dense"))
    assert found["arms"][name]["tasks"]["piqa"]["difference"]["basis"] == "items"
    assert said(found, f"Not known, and so not compared, of {name}: seed, corpus, training tokens.")
    assert not said(found, "differ in more than one way")
    assert not said(found, "different seeds")
    found = compare([imported, *moe])
    assert found["arms"][name]["tasks"]["piqa"]["difference"] is None
    assert said(found, "(seeds unknown)", "(seeds 1, 2)", "no seed in common")
    assert not any("None" in remark for remark in found["remarks"])
    assert not any("None" in cell for sheet in sheets(found) for row in sheet.rows for cell in row)


def test_two_texts_of_one_kind_are_two_corpora(tmp_path):
    tasks = {"piqa": task(right(10, ITEMS), label="PIQA")}
    mine = write_evaluation(tmp_path / "mine", tasks, arch="mohge", corpus_fingerprint="a" * 64)
    moe = [
        write_evaluation(tmp_path / text, tasks, arch="moe", name=text, corpus_fingerprint=text * 64)
        for text in "ba"
    ]
    assert said(
        compare([mine, moe[0]]), "more than one way: architecture", "corpus (letters aaaaaaaa and letters bb"
    )
    both = compare([mine, *moe])
    assert {arm["baseline"] for arm in both["arms"].values()} == {"moe text aaaaaaaa", None}
    assert not said(both, "differ in more than one way")


def test_settings_that_were_not_recorded_are_told_where_names_differ(tmp_path):
    tasks = {"piqa": task(right(10, ITEMS), label="PIQA")}
    folders = [
        write_evaluation(tmp_path / name, tasks, name=name, seed=seed, design=design)
        for name, seed, design in (("low", 1, None), ("high", 2, "f00"), ("high-seed3", 3, "f00"))
    ]
    assert said(compare(folders), "mohge: settings were not recorded", "(low, high)")
    assert not said(compare(folders[1:]), "settings were not recorded")


def test_numbers_of_arms_are_explained(tmp_path):
    tasks = {"piqa": task(right(10, ITEMS), label="PIQA")}
    folders = [
        write_evaluation(tmp_path / design, tasks, design=design, checkpoint=f"/{design}") for design in "ab"
    ]
    assert said(compare(folders), "Told apart by numbers", "nano-mohge (1) is /a; nano-mohge (2) is /b.")


def test_unlike_training_is_told(tmp_path):
    tasks = {"piqa": task(right(10, ITEMS), label="PIQA")}
    found = two(tmp_path, tasks, tasks, training_tokens=1000, settings={"limit": 40, "context": 512})
    assert said(found, "mohge and moe differ in more than one way", "training tokens (1000 and 5001216)")
    assert said(found, "Devices, batch sizes or ranks differ")
    assert said(found, "Not all items", "40, all")
    assert said(found, "Contexts differ (256, 512 tokens)")


def test_guessing_is_told(tmp_path):
    """Wilson's interval of 20 of 40 holds 0.5; that of 32 is above, of 8 below."""
    counts = {"piqa": 20, "sciq": 32, "copa": 8, "free": 0}
    tasks = {name: task(right(n, ITEMS), label=name.upper()) for name, n in counts.items()}
    tasks["free"]["chance"] = None
    found = compare([write_evaluation(tmp_path / "a", tasks)])
    of_tasks = found["checkpoints"][0]["tasks"]
    verdicts = ["not distinguishable from guessing", "above", "below", None]
    assert [of_tasks[name]["against_chance"] for name in counts] == verdicts
    above = [found["arms"]["mohge"]["tasks"][name]["above_chance"] for name in counts]
    assert above == [0, 1, 0, None]
    assert said(found, "Not distinguishable from guessing", "mohge on PIQA.")
    assert said(found, "Below guessing", "mohge on COPA.")
    assert said(found, "FREE: no item is right in mohge", "0 to 8.76%")
    assert found["baselines"] == ["mohge"]
