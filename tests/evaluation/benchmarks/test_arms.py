"""Which evaluations are one arm, how arms are named, and which is the baseline."""

import pytest
from invented import right, task, write_evaluation

from evaluation.benchmarks.arms import arms_of, baselines_of
from evaluation.benchmarks.reading import read_evaluation
from mohge.errors import UserError


def made(tmp_path, *facts):
    tasks = {"piqa": task(right(2, 4), label="PIQA")}
    folders = [write_evaluation(tmp_path / str(n), tasks, **one) for n, one in enumerate(facts)]
    return [read_evaluation(folder) for folder in folders]


def test_seeds_make_one_arm(tmp_path):
    arms = arms_of(made(tmp_path, {"seed": 3}, {"arch": "moe"}, {"seed": 1}, {"seed": 2}))
    assert [(arm.name, arm.seeds) for arm in arms] == [("mohge", [1, 2, 3]), ("moe", [1])]


@pytest.mark.parametrize(
    ("facts", "names"),
    [
        ([{}, {"arch": "moe"}], ["mohge", "moe"]),
        (
            [{"model": "nano"}, {"model": "tiny", "name": "b"}, {"arch": "moe"}],
            ["mohge nano", "mohge tiny", "moe nano"],
        ),
        ([{}, {"training_tokens": 10_000_000, "name": "b"}], ["5.001M tokens", "10.00M tokens"]),
        ([{}, {"corpus": "letters2", "name": "b"}], ["letters", "letters2"]),
        ([{}, {"widths": [64, 128], "name": "b"}], ["widths 48-80-112-144", "widths 64-128"]),
        (
            [{"name": "nano-mohge-seed1"}, {"name": "nano-mohge-seed1 loss.group_weight=0"}],
            ["nano-mohge", "nano-mohge loss.group_weight=0"],
        ),
    ],
    ids=["arch", "size", "tokens", "corpus", "widths", "settings in the name"],
)
def test_an_arm_is_named_by_what_tells_it_apart(tmp_path, facts, names):
    assert [arm.name for arm in arms_of(made(tmp_path, *facts))] == names


def test_names_that_users_gave_do_not_part_seeds(tmp_path):
    arms = arms_of(made(tmp_path, {"seed": 1, "name": "first"}, {"seed": 2, "name": "second"}))
    assert [arm.seeds for arm in arms] == [[1, 2]]


def test_two_evaluations_of_one_checkpoint_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"0 and .*1 are evaluations of one checkpoint"):
        arms_of(made(tmp_path, {}, {}))


def test_evaluations_that_nothing_tells_apart_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"are of one design \(mohge\) and seed 1"):
        arms_of(made(tmp_path, {}, {"checkpoint": "/elsewhere"}))


def test_moe_is_the_baseline_and_else_the_first(tmp_path):
    arms = arms_of(made(tmp_path, {}, {"arch": "dense"}, {"arch": "moe"}))
    assert baselines_of(arms, None) == {"mohge": "moe", "dense": "moe", "moe": None}
    assert baselines_of(arms[:2], None) == {"mohge": None, "dense": "mohge"}


@pytest.mark.parametrize(
    "asked",
    ["dense", "nano-dense-seed1", "/runs/nano-dense-seed1", "/runs/nano-dense-seed1/../nano-dense-seed1"],
)
def test_a_baseline_is_named_by_architecture_run_or_path(tmp_path, asked):
    arms = arms_of(made(tmp_path, {}, {"arch": "dense"}, {"arch": "moe"}))
    assert baselines_of(arms, asked) == {"mohge": "dense", "dense": None, "moe": "dense"}
    assert baselines_of(arms, str(tmp_path / "1"))["moe"] == "dense"


def test_an_unknown_baseline_is_refused(tmp_path):
    arms = arms_of(made(tmp_path, {}, {"arch": "moe"}))
    with pytest.raises(
        UserError, match="baseline=hmoe is not among the evaluations: choose one of mohge, moe"
    ):
        baselines_of(arms, "hmoe")


def test_each_size_has_its_own_baseline(tmp_path):
    sizes = [
        {"arch": arch, "model": model, "name": f"{model}-{arch}"}
        for model in ("nano", "tiny")
        for arch in ("moe", "mohge")
    ]
    arms = arms_of(made(tmp_path, *sizes))
    assert baselines_of(arms, None) == {
        "moe nano": None,
        "mohge nano": "moe nano",
        "moe tiny": None,
        "mohge tiny": "moe tiny",
    }
