"""Whole suites of invented tasks on a tiny model."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from invented_tasks import BROKEN, CHOICE, GROUP, TEXT, WORD, WRITE, write_tasks
from rank_evaluation_targets import (
    evaluate_together,
    evaluate_with_a_failure,
    load_fails_together,
    refused_together,
)
from ranks_here import run_ranks
from tiny_language_model import tiny_language_model

from evaluation.benchmarks.reading import read_evaluation
from evaluation.harness import bridge
from evaluation.harness.suite import run_suite
from mohge.config.schema import SuiteConfig
from mohge.errors import Interrupted, RunError, UserError

MODEL = tiny_language_model()
ALL = (CHOICE, WORD, TEXT, WRITE, GROUP)


def suite(*tasks: str, **settings) -> SuiteConfig:
    return SuiteConfig(name="invented", tasks=tasks, **settings)


def run(folder, tasks, *names, batch_size=7, **settings):
    return run_suite(
        MODEL,
        suite(*names),
        folder / "eval" / "invented",
        batch_size=batch_size,
        benchmarks=tasks,
        **settings,
    )


def samples(folder, name):
    path = folder / "eval" / "invented" / "samples" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def evaluated(tasks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, run(folder, tasks, *ALL)


def test_scores_are_those_of_the_items(evaluated):
    folder, results = evaluated
    assert json.loads((folder / "eval" / "invented" / "results.json").read_text()) == results
    for name, metric in (
        (CHOICE, "acc"),
        (CHOICE, "acc_norm"),
        (WORD, "acc"),
        (GROUP, "acc"),
        (WRITE, "exact_match"),
    ):
        values = [item["metrics"][metric] for item in samples(folder, name)]
        found = results["tasks"][name]["metrics"][metric]
        assert len(values) == results["tasks"][name]["items"] == 12
        assert found["value"] == pytest.approx(np.mean(values))
        assert found["stderr"] == pytest.approx(np.std(values, ddof=1) / math.sqrt(12))
        assert found["aggregation"] == "mean"
    assert results["tasks"][CHOICE]["label"] == "Invented choices"
    assert results["tasks"][CHOICE]["chance"] == 0.25
    assert results["tasks"][WORD]["chance"] is None
    assert results["tasks"][CHOICE]["primary"] == "acc"


def test_bits_per_byte_are_those_of_the_windows(evaluated, tasks):
    folder, results = evaluated
    texts = [json.loads(line)["text"] for line in (tasks.parent / "items" / f"{TEXT}.jsonl").open()]
    bits = 0.0
    for text in texts:
        ids = MODEL.encode([text])[0]
        for start in range(0, len(ids), 32):  # the windows of lm-eval: each after the one before it
            window = ids[start : start + 32]
            before = [0] if start == 0 else [ids[start - 1]]
            with torch.no_grad():
                logits_SV = MODEL.model(torch.tensor([before + window[:-1]])).logits_BSV[0]
            if start and len(window) < 32:
                # lm-eval's last window reaches back, so that its tokens see as much as they can.
                reach = ids[len(ids) - 33 : -1]
                with torch.no_grad():
                    logits_SV = MODEL.model(torch.tensor([reach])).logits_BSV[0][-len(window) :]
            bits -= float(logits_SV.log_softmax(-1)[range(len(window)), window].sum()) / math.log(2)
    found = results["tasks"][TEXT]["metrics"]["bits_per_byte"]
    assert found["value"] == pytest.approx(bits / sum(len(text.encode()) for text in texts), rel=1e-5)
    assert found["aggregation"] == "ratio"
    assert not found["higher_is_better"]
    pairs = np.array([item["metrics"]["bits_per_byte"] for item in samples(folder, TEXT)])
    assert found["value"] == pytest.approx(pairs[:, 0].sum() / pairs[:, 1].sum())
    rng = np.random.default_rng(0)
    drawn = pairs[rng.integers(len(pairs), size=(4000, len(pairs)))].sum(axis=1)
    assert found["stderr"] == pytest.approx((drawn[:, 0] / drawn[:, 1]).std(), rel=0.25)


def test_a_group_is_one_task_with_the_items_of_all(evaluated):
    folder, results = evaluated
    entry = results["tasks"][GROUP]
    assert {name: part["items"] for name, part in entry["subtasks"].items()} == {
        f"{GROUP}_a": 4,
        f"{GROUP}_b": 8,
    }
    assert samples(folder, GROUP)[0]["item"] == f"{GROUP}_a/0"
    alone = {item["hash"]: item["metrics"]["acc"] for item in samples(folder, CHOICE)}
    assert all(item["metrics"]["acc"] == alone[item["hash"]] for item in samples(folder, GROUP))


def test_what_it_cost_is_told(evaluated):
    _, results = evaluated
    for name in ALL:
        cost = results["tasks"][name]["cost"]
        assert cost["tokens"] > 0
        assert cost["seconds"] > 0
        assert sum(cost["group_shares"]) == pytest.approx(1)
        widths, shares = np.array(results["widths"]), np.array(cost["group_shares"])
        routed = MODEL.config.router.expert_top_k * 3 * 32 * float(shares @ widths)
        everything = sum(p.numel() for p in MODEL.model.parameters())
        experts = 2 * 3 * 32 * int(widths.sum())
        assert cost["active_parameters"] == pytest.approx(everything - experts + routed)
        spared = results["parameters"]["active"] - cost["active_parameters"]
        assert results["flops_per_token"] - cost["flops_per_token"] == pytest.approx(2 * spared)
    assert results["tasks"][CHOICE]["cost"]["cut_contexts"] > 0  # some are longer than 32 tokens
    assert results["tasks"][CHOICE]["cost"]["requests"] == 48


@pytest.mark.parametrize("batch_size", [1, 64])
def test_scores_do_not_depend_on_the_batch_size(evaluated, tasks, tmp_path, batch_size):
    folder, results = evaluated
    again = run(tmp_path, tasks, *ALL, batch_size=batch_size)
    assert_same(results, folder, again, tmp_path)


@pytest.mark.parametrize("expert_parallel", [1, 2])
def test_two_ranks_find_what_one_finds(evaluated, tasks, tmp_path, expert_parallel):
    folder, results = evaluated
    together = run_ranks(evaluate_together, 2, tmp_path, tasks, ALL, expert_parallel)
    assert {**together[0], "created": None} == {**together[1], "created": None}  # all ranks know all
    assert together[0]["settings"]["ranks"] == 2
    assert_same(results, folder, together[0], tmp_path)
    for name in ALL:  # each batch was computed by one of them
        tokens = [found["tasks"][name]["cost"]["tokens"] for found in (results, together[0])]
        assert tokens[1] <= 1.5 * tokens[0]


def assert_same(results, folder, others, other_folder):
    for name in ALL:
        for metric, found in results["tasks"][name]["metrics"].items():
            assert others["tasks"][name]["metrics"][metric]["value"] == pytest.approx(
                found["value"], abs=1e-5, rel=1e-6
            )
        for one, other in zip(samples(folder, name), samples(other_folder, name), strict=True):
            assert (one["item"], one["hash"]) == (other["item"], other["hash"])
            for metric, value in one["metrics"].items():
                assert other["metrics"][metric] == pytest.approx(value, abs=1e-4, rel=1e-6)


def test_an_evaluation_that_was_stopped_asks_only_what_is_missing(evaluated, tasks, tmp_path, monkeypatch):
    folder, results = evaluated
    calls, limit = [], math.inf
    real = bridge.score_batch

    def counted(model, pairs, **settings):
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(len(pairs))
        return real(model, pairs, **settings)

    monkeypatch.setattr(bridge, "score_batch", counted)
    run(tmp_path / "unbroken", tasks, *ALL)
    unbroken = sum(calls)
    calls.clear()
    limit = 4
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tasks, *ALL)
    assert not (tmp_path / "eval" / "invented" / "results.json").exists()
    assert 0 < sum(calls) < unbroken
    limit = math.inf
    again = run(tmp_path, tasks, *ALL)
    assert sum(calls) == unbroken
    assert_same(results, folder, again, tmp_path)
    limit = len(calls)
    monkeypatch.setattr(bridge, "generate", counted)
    third = run(tmp_path, tasks, *ALL)
    assert third["tasks"] == again["tasks"]  # what it took too: seconds are those of the first time


def test_an_evaluation_that_is_stopped_leaves_older_results_as_they_were(tasks, tmp_path, monkeypatch):
    before = run(tmp_path, tasks, CHOICE, WORD)
    real = bridge.score_batch

    def stopped(model, pairs, **settings):
        raise KeyboardInterrupt

    (tmp_path / "eval" / "answers.sqlite").unlink()
    monkeypatch.setattr(bridge, "score_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tasks, CHOICE, WORD)
    assert json.loads((tmp_path / "eval" / "invented" / "results.json").read_text()) == before
    assert len(samples(tmp_path, CHOICE)) == 12
    monkeypatch.setattr(bridge, "score_batch", real)


@pytest.mark.parametrize(
    "error", [Interrupted("told to leave", 15), RunError("ranks are lost"), UserError("full")]
)
def test_what_concerns_the_whole_evaluation_is_not_a_task_that_failed(tasks, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(bridge, "score_batch", fail)
    with pytest.raises(type(error), match=str(error)):
        run(tmp_path, tasks, CHOICE)


def test_results_of_another_suite_are_not_replaced(tasks, tmp_path):
    run(tmp_path, tasks, CHOICE, WORD)
    with pytest.raises(UserError, match=r"holds results of another eval.tasks .*give this suite a name"):
        run(tmp_path, tasks, CHOICE)
    few = SuiteConfig(name="invented", tasks=(CHOICE, WORD), fewshot={WORD: 1})
    with pytest.raises(UserError, match=r"another eval\.fewshot"):
        run_suite(MODEL, few, tmp_path / "eval" / "invented", batch_size=4, benchmarks=tasks)


def test_equal_requests_are_computed_and_counted_once():
    lm = bridge.MohgeLM(language_model=MODEL, batch_size=2)
    pair = bridge.Pair((5, 6, 7), (8, 9))
    assert len({score.log_likelihood for score in lm.score([pair] * 5)}) == 1
    assert lm.take_usage()[0].tokens == 4


def test_a_group_without_a_score_is_its_tasks(tasks, tmp_path):
    group = yaml.safe_load((tasks / "_group.yaml").read_text(encoding="utf-8"))
    (tasks / "_bare.yaml").write_text(
        yaml.safe_dump({"group": "invented_bare_local", "task": group["task"]}), encoding="utf-8"
    )
    results = run(tmp_path, tasks, "invented_bare_local", keep_answers=False)
    assert set(results["tasks"]) == {f"{GROUP}_a", f"{GROUP}_b"}
    costs = [entry["cost"] for entry in results["tasks"].values()]
    assert [cost["requests"] for cost in costs] == [16, 32]
    assert all(cost["seconds"] > 0 and cost["tokens"] > 0 for cost in costs)
    assert sum(cost["cut_contexts"] for cost in costs) > 0


def test_a_group_whose_tasks_count_alike_is_no_mean_of_items(tasks, tmp_path):
    group = yaml.safe_load((tasks / "_group.yaml").read_text(encoding="utf-8"))
    group["group"] = "invented_alike_local"
    group["aggregate_metric_list"] = [{"metric": "acc", "weight_by_size": False}]
    (tasks / "_alike.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    entry = run(tmp_path, tasks, "invented_alike_local")["tasks"]["invented_alike_local"]
    parts = [part["metrics"]["acc"] for part in entry["subtasks"].values()]
    found = entry["metrics"]["acc"]
    assert found["value"] == pytest.approx((parts[0]["value"] + parts[1]["value"]) / 2)
    assert found["stderr"] == pytest.approx(math.hypot(parts[0]["stderr"], parts[1]["stderr"]) / 2)
    assert found["aggregation"] == "other"


def test_a_mean_of_ratios_is_no_ratio_of_sums(tasks, tmp_path):
    """lm-eval weighs the scores of a group's tasks by their items, also where these are ratios."""
    text, word = (yaml.safe_load((tasks / f"{one}.yaml").read_text(encoding="utf-8")) for one in (TEXT, WORD))
    other = {"dataset_kwargs": word["dataset_kwargs"], "doc_to_target": "{{passage}}"}
    for part, change in (("a", {}), ("b", other)):
        one = {**text, "task": f"invented_{part}_text_local", **change}
        (tasks / f"_text_{part}.yaml").write_text(yaml.safe_dump(one), encoding="utf-8")
    group = {
        "group": "invented_texts_local",
        "task": [f"invented_{part}_text_local" for part in "ab"],
        "aggregate_metric_list": [{"metric": "bits_per_byte", "weight_by_size": True}],
    }
    (tasks / "_texts.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")
    entry = run(tmp_path, tasks, "invented_texts_local")["tasks"]["invented_texts_local"]
    found, parts = entry["metrics"]["bits_per_byte"], list(entry["subtasks"].values())
    assert found["aggregation"] == "other"
    assert parts[0]["metrics"] != parts[1]["metrics"]
    errors = [part["metrics"]["bits_per_byte"]["stderr"] * part["items"] for part in parts]
    assert found["stderr"] == pytest.approx(math.hypot(*errors) / sum(part["items"] for part in parts))
    assert read_evaluation(tmp_path / "eval/invented").done("invented_texts_local") is not None


def test_examples_for_a_task_that_is_not_asked_are_refused(tasks, tmp_path):
    for key in (CHOICE, f"{GROUP}_a"):
        with pytest.raises(UserError, match=rf"eval.fewshot: {key} is none of eval.tasks, nor a task of"):
            run_suite(MODEL, suite(WORD, fewshot={key: 2}), tmp_path / "some", batch_size=4, benchmarks=tasks)
    settings = suite(GROUP, fewshot={f"{GROUP}_a": 1})
    found = run_suite(MODEL, settings, tmp_path / "group", batch_size=4, benchmarks=tasks)
    assert found["tasks"][GROUP]["fewshot"] == 1


def test_a_misspelt_task_of_examples_is_refused(tasks, tmp_path):
    settings = suite(WORD, fewshot={"invented_wrod_local": 2})
    with pytest.raises(UserError, match=rf"eval.fewshot: .* did you mean {WORD}"):
        run_suite(MODEL, settings, tmp_path / "some", batch_size=4, benchmarks=tasks)


def test_a_rank_that_fails_makes_a_failed_task_of_all_and_the_next_goes_on(tasks, tmp_path):
    together = run_ranks(evaluate_with_a_failure, 2, tmp_path, tasks, (CHOICE, WORD))
    for found in together:
        assert found["tasks"][CHOICE]["status"] == "failed"
        assert "out of memory" in found["tasks"][CHOICE]["error"]
        assert found["tasks"][WORD]["status"] == "done"


def test_a_rank_that_cannot_load_a_task_ends_all_and_hangs_none(tasks, tmp_path):
    said = run_ranks(load_fails_together, 2, tmp_path, tasks, (CHOICE, WORD))
    assert all("ranks have lost each other" in sentence for sentence in said), said


def test_a_disk_that_refuses_the_first_rank_stops_all(tasks, tmp_path):
    (tmp_path / "eval").write_text("no folder")
    said = run_ranks(refused_together, 2, tmp_path, tasks, (CHOICE,))
    assert said == ["UserError", "UserError"]


def test_a_task_that_fails_is_reported_and_the_others_finish(tasks, tmp_path):
    results = run(tmp_path, tasks, BROKEN, CHOICE)
    broken = results["tasks"][BROKEN]
    assert broken["status"] == "failed"
    assert "undefined" in broken["error"]
    assert results["tasks"][CHOICE]["status"] == "done"
    assert "Traceback" in (tmp_path / "eval" / "invented" / "errors" / f"{BROKEN}.txt").read_text()
    results = json.loads((tmp_path / "eval" / "invented" / "results.json").read_text())
    assert results["tasks"][BROKEN]["label"] == "invented_broken"


def test_a_misspelt_task_is_refused_with_the_nearest_name(tasks, tmp_path):
    with pytest.raises(UserError, match=f"did you mean {CHOICE}"):
        run(tmp_path, tasks, "invented_chioce_local")
    assert not (tmp_path / "eval").exists()


def test_limit_and_examples_are_those_of_the_suite(tasks, tmp_path):
    settings = suite(WORD, limit=5, fewshot={WORD: 2})
    results = run_suite(
        MODEL, settings, tmp_path / "some", batch_size=4, benchmarks=tasks, keep_answers=False
    )
    assert results["tasks"][WORD]["items"] == 5
    assert results["tasks"][WORD]["fewshot"] == 2
    assert results["settings"]["limit"] == 5
    assert not list(tmp_path.glob("*.sqlite"))


def test_a_model_without_a_run_has_no_held_out_text(tasks, tmp_path):
    with pytest.raises(UserError, match="no held-out text"):
        run_suite(MODEL, suite(held_out=64), tmp_path / "some", batch_size=4, benchmarks=None)
