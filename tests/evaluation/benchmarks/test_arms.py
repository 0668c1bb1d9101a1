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
            [
                {"parameters": {"total": 3e6, "active": 1e6}, "name": "a"},
                {"parameters": {"total": 3e6, "active": 2e6}, "name": "b"},
            ],
            ["1.000M active parameters", "2.000M active parameters"],
        ),
        (
            [
                {"training_tokens": 1_000_001_536, "name": "a"},
                {"training_tokens": 1_000_411_136, "name": "b"},
            ],
            ["1,000,001,536 tokens", "1,000,411,136 tokens"],
        ),
        (
            [{"design": "a", "name": "lr1"}, {"design": "b", "name": "lr2"}],
            ["lr1", "lr2"],
        ),
        (
            [{"design": "a"}, {"design": "b", "checkpoint": "/b"}, {"design": "c", "name": "nano-mohge (1)"}],
            ["nano-mohge (2)", "nano-mohge (3)", "nano-mohge (1)"],
        ),
        (
            [{"corpus_fingerprint": "a" * 64}, {"corpus_fingerprint": "b" * 64, "seed": 2}],
            ["text aaaaaaaa", "text bbbbbbbb"],
        ),
        ([{"corpus_fingerprint": "a" * 64}, {"seed": 2}], ["mohge"]),
        (
            [{"corpus": None}, {"corpus": "unknown corpus", "checkpoint": "/b"}],
            ["unknown corpus (1)", "unknown corpus (2)"],
        ),
        (
            [{"name": "nano-mohge-seed1"}, {"name": "nano-mohge-seed1 loss.group_weight=0"}],
            ["nano-mohge", "nano-mohge loss.group_weight=0"],
        ),
    ],
    ids=[
        *("arch", "size", "tokens", "corpus", "widths", "active", "rounding"),
        *(
            "settings",
            "settings alone",
            "text",
            "text of one alone",
            "a corpus of that name",
            "settings in the name",
        ),
    ],
)
def test_an_arm_is_named_by_what_tells_it_apart(tmp_path, facts, names):
    assert [arm.name for arm in arms_of(made(tmp_path, *facts))] == names


def test_names_that_users_gave_do_not_part_seeds(tmp_path):
    arms = arms_of(made(tmp_path, {"seed": 1, "name": "first"}, {"seed": 2, "name": "second"}))
    assert [arm.seeds for arm in arms] == [[1, 2]]


@pytest.mark.parametrize(
    ("designs", "seeds"),
    [
        (["a", "a", "a"], [[1, 2, 3]]),
        (["a", "b", "a"], [[1, 3], [2]]),
        ([None, "a", "a"], [[1, 2, 3]]),
        (["a", None, "b"], [[1], [2], [3]]),
    ],
    ids=["one", "two", "one and old files", "two and an old file"],
)
def test_other_settings_are_another_arm(tmp_path, designs, seeds):
    facts = [{"seed": n, "name": f"run{n}", "design": design} for n, design in enumerate(designs, start=1)]
    assert [arm.seeds for arm in arms_of(made(tmp_path, *facts))] == seeds


def test_unknown_seeds_are_not_one_seed_nor_seeds_of_one_design(tmp_path):
    facts = {"name": "imported", "seed": None}
    arms = arms_of(made(tmp_path, {**facts, "checkpoint": "/a"}, {**facts, "checkpoint": "/b"}, {"seed": 1}))
    assert [(arm.name, arm.seeds, arm.is_numbered) for arm in arms] == [
        ("nano-mohge", [1], False),
        ("imported (1)", [None], True),
        ("imported (2)", [None], True),
    ]


def test_what_is_not_known_makes_no_baseline_alike(tmp_path):
    unknown = {"corpus": None, "training_tokens": None}
    facts = [
        {"arch": "moe", "model": "tiny", "name": "a", **unknown},
        {"arch": "moe", "model": "nano", "name": "b"},
        {"arch": "dense", "model": "nano", "name": "c", **unknown},
    ]
    arms = arms_of(made(tmp_path, *facts))
    assert baselines_of(arms, None)[arms[2].name] == arms[1].name


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


def test_a_word_for_several_configurations_is_refused(tmp_path):
    """The standard MoE, the same shrunk to MoHGE's total, and MoHGE: the order must not decide."""
    moe = {"arch": "moe", "run": "/runs/moe"}
    shrunk = {"arch": "moe", "run": "/runs/shrunk", "parameters": {"total": 3.2e6, "active": 1.3e6}}
    arms = arms_of(made(tmp_path, moe, {**shrunk, "checkpoint": "/c"}, {"run": "/runs/mohge"}))
    for word in ("moe", "nano-moe-seed1"):
        with pytest.raises(
            UserError,
            match=f"baseline={word} means /runs/moe as well as /runs/shrunk, .*: give the folder of one run",
        ):
            baselines_of(arms, word)
    first, second, mohge = (arm.name for arm in arms)
    assert baselines_of(arms, "/runs/moe") == {first: None, second: first, mohge: first}
    assert baselines_of(arms, second) == {first: second, second: None, mohge: second}


def test_a_word_for_several_seeds_is_one_baseline(tmp_path):
    arms = arms_of(made(tmp_path, {"arch": "moe", "seed": 1}, {"arch": "moe", "seed": 2}, {}))
    assert baselines_of(arms, "moe") == {"moe": None, "mohge": "moe"}


def test_each_size_has_its_own_baseline(tmp_path):
    sizes = [
        {"arch": arch, "model": model, "name": f"{model}-{arch}"}
        for model in ("nano", "tiny")
        for arch in ("moe", "mohge")
    ]
    arms = arms_of(made(tmp_path, *sizes))
    assert baselines_of(arms, None) == baselines_of(arms, "moe")
    assert baselines_of(arms, "moe") == {
        "moe nano": None,
        "mohge nano": "moe nano",
        "moe tiny": None,
        "mohge tiny": "moe tiny",
    }
