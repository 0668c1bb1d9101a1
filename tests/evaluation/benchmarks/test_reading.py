"""Evaluations are read whole, and what is wrong with one is told in a sentence."""

import json

import numpy as np
import pytest
from invented import failed, right, task, write_evaluation

from evaluation.benchmarks.reading import read_evaluation
from mohge.errors import UserError

BITS = [[8.0, 2], [6, 6], [10, 4]]


@pytest.fixture
def folder(tmp_path):
    tasks = {
        "piqa": task(right(2, 4), label="PIQA", others={"acc_norm": right(3, 4)}),
        "text": task(BITS, label="text", metric="bits_per_byte", chance=None),
        "broken": failed("broken"),
    }
    return write_evaluation(tmp_path / "found", tasks)


def change(folder, path, value):
    results = json.loads((folder / "results.json").read_text())
    *parts, last = path.split(".")
    place = results
    for part in parts:
        place = place[part]
    place[last] = value
    (folder / "results.json").write_text(json.dumps(results))


def test_means_and_ratios_of_items(folder):
    found = read_evaluation(folder)
    assert found.items.keys() == {"piqa", "text"}
    assert found.items["piqa"].keys[:2] == (("0", "piqa-0"), ("1", "piqa-1"))
    assert found.parts("piqa", "acc").tolist() == [[1, 1], [1, 1], [0, 1], [0, 1]]
    assert found.parts("text", "bits_per_byte").tolist() == BITS
    assert found.parts("broken", "acc") is None
    assert found.done("broken") is None


def test_the_order_of_items_does_not_matter(folder):
    before = read_evaluation(folder)
    path = folder / "samples" / "piqa.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    after = read_evaluation(folder)
    assert after.items["piqa"].keys == before.items["piqa"].keys
    assert np.array_equal(after.parts("piqa", "acc"), before.parts("piqa", "acc"))


def test_a_line_separator_within_a_text_ends_no_line(folder):
    path = folder / "samples" / "piqa.jsonl"
    path.write_text(path.read_text().replace('"ignored"', '"one\u2028two\u0085three"', 1), encoding="utf-8")
    assert len(read_evaluation(folder).items["piqa"].keys) == 4


def test_metrics_without_figures_of_items(folder):
    metrics = {"acc": {"value": 0.5, "aggregation": "mean", "higher_is_better": True, "stderr": None}}
    other = {"value": 12.5, "aggregation": "other", "higher_is_better": False, "stderr": 0.5}
    lost = {"value": 0.5, "aggregation": "mean", "higher_is_better": True}
    change(folder, "tasks.piqa.metrics", metrics | {"perplexity": other, "f1": lost})
    found = read_evaluation(folder)
    assert found.parts("piqa", "perplexity") is None
    assert found.parts("piqa", "f1") is None
    assert found.parts("piqa", "acc") is not None


def test_a_score_that_is_no_number_has_no_items(folder):
    change(folder, "tasks.piqa.metrics.acc.value", float("nan"))
    assert read_evaluation(folder).parts("piqa", "acc") is None


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", "other", "has format other, not mohge-eval-1"),
        ("arch", 3, "arch: input should be a valid string"),
        ("tasks.piqa.status", "open", "tasks.piqa.status: input should be 'done' or 'failed'"),
        ("tasks.piqa.primary", "f1", "task piqa lacks its primary metric f1"),
        ("tasks.piqa.items", 5, "it has 4 items, and results.json says 5"),
        ("tasks.piqa.metrics.acc.value", 0.7, "its acc is 0.5, not the 0.7 told"),
        ("tasks.piqa.samples", "samples/none.jsonl", "none.jsonl is missing"),
        (
            "tasks.text.metrics.bits_per_byte.aggregation",
            "mean",
            "bits_per_byte of an item does not fit a mean",
        ),
    ],
)
def test_wrong_results_are_told(folder, path, value, said):
    change(folder, path, value)
    with pytest.raises(UserError, match=said.replace("(", r"\(")) as raised:
        read_evaluation(folder)
    assert "mohge-eval" in str(raised.value) or "evaluate the checkpoint again" in str(raised.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 5 is no item"),
        ('{"item": "9", "metrics": {"acc": 1}}', "line 5 is no item"),
        ('{"item": "0", "hash": "piqa-0", "metrics": {"acc": 1}}', "line 5 repeats item 0"),
    ],
)
def test_wrong_items_are_told(folder, line, said):
    with (folder / "samples" / "piqa.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=said):
        read_evaluation(folder)


def test_an_item_without_a_metric_that_others_have_is_told(folder):
    path = folder / "samples" / "piqa.jsonl"
    path.write_text(path.read_text().replace('"acc_norm": 1.0', '"other": 1.0', 1))
    with pytest.raises(UserError, match="an item has no acc_norm"):
        read_evaluation(folder)


def test_a_folder_without_an_evaluation_is_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no evaluation \(results.json is missing\)"):
        read_evaluation(tmp_path)
    (tmp_path / "results.json").write_text("[1")
    with pytest.raises(UserError, match="it is not JSON"):
        read_evaluation(tmp_path)
