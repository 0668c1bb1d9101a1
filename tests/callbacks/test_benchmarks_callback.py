"""A suite during training: when, what becomes of its scores, and that training does not notice."""

import dataclasses
import json
import logging

import pytest
import torch
from benchmarks_targets import SLEEP, train_on_ranks
from composing import composed
from fabricated_runs import train_config
from fake_training import FakeModule, FakeTrainer
from ranks_here import run_ranks
from tiny_runs import tiny_run, train_here, write_corpus

from callbacks.benchmarks import BenchmarksCallback, undisturbed
from mohge.apps.resume import continued_config
from mohge.config.load import as_dict, typed
from mohge.config.schema import TrainConfig
from mohge.errors import Interrupted, UserError
from mohge.training.checkpoint import VerifiedCheckpointIO
from mohge.training.checkpoint_names import checkpoint_name
from mohge.training.run import train
from mohge.training.run_folder import RunFolder

STEPS = ("trainer.max_steps=7", "trainer.val_every=3", "trainer.checkpoint_every=4")


def evaluating(evaluator, every=2, suite="made_up"):
    """Overrides that switch on an evaluator of benchmarks_targets."""
    return (
        "callbacks=default",
        *(f"callbacks.{name}=null" for name in ("routing", "throughput", "alarms", "progress", "plots")),
        f"callbacks.benchmarks.evaluator=benchmarks_targets.{evaluator}",
        f"callbacks.benchmarks.every={every}",
        f"callbacks.benchmarks.suite.name={suite}",
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return [*tiny_run(write_corpus(folder / "corpus"), folder / "cache"), *STEPS]


def without_scores(records):
    return [{k: v for k, v in record.items() if not k.startswith("eval/")} for record in records]


def scores(records):
    """Scores by step, of the steps that have some."""
    found = {record["step"]: {k: v for k, v in record.items() if k.startswith("eval/")} for record in records}
    return {step: values for step, values in found.items() if values}


def warnings(caplog):
    told = [each for each in caplog.records if each.name == "callbacks.benchmarks"]
    return [each.message for each in told if each.levelno == logging.WARNING]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_is_the_same_with_and_without(tiny, tmp_path, accumulate):
    """Losses, learning rates, norms and validations bit for bit, and what the generators draw afterwards."""
    more = f"trainer.accumulate={accumulate}"
    plain = train_here(tmp_path / "plain", *tiny, more)
    watched = train_here(tmp_path / "watched", *tiny, more, *evaluating("careless"))
    assert without_scores(watched) == plain
    assert list(scores(watched)) == [2, 4, 6, 7]
    states = [
        VerifiedCheckpointIO().load_checkpoint(tmp_path / name / "checkpoints" / checkpoint_name(7))
        for name in ("plain", "watched")
    ]
    drawn = [json.dumps(state["mohge"]["random_state"], default=torch.Tensor.tolist) for state in states]
    assert drawn[0] == drawn[1]


def test_scores_are_of_the_model_as_it_is(tiny, tmp_path):
    records = train_here(tmp_path, *tiny, *evaluating("careless", every=3))
    found = scores(records)
    assert list(found) == [3, 6, 7]
    assert all(values.keys() == {"eval/text/loss", "eval/text/acc"} for values in found.values())
    losses = [values["eval/text/loss"] for values in found.values()]
    assert losses == sorted(losses, reverse=True), "it learns"
    for step, values in found.items():
        path = tmp_path / "eval" / checkpoint_name(step) / "made_up-limit100" / "results.json"
        kept = json.loads(path.read_text())
        assert kept["tasks"]["text"]["metrics"]["loss"]["value"] == values["eval/text/loss"]
        assert kept["step"] == step


def test_a_continued_run_evaluates_where_it_would_have_without_a_stop(tiny, tmp_path):
    whole = train_here(tmp_path / "whole", *tiny, *evaluating("careless"))
    run = tmp_path / "stopped"
    config = typed(TrainConfig, composed(*tiny, *evaluating("careless"), f"paths.run_dir={run}"))
    shorter = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, max_steps=4))
    train(shorter, RunFolder(run), [])
    # As of a run that was killed in its sixth step.
    leftover = run / "eval" / checkpoint_name(6) / "made_up-limit100"
    leftover.mkdir(parents=True)
    calls = BenchmarksCallback._evaluate
    evaluated = []

    def watch(callback, trainer, module):
        evaluated.append(trainer.global_step)
        calls(callback, trainer, module)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BenchmarksCallback, "_evaluate", watch)
        train(dataclasses.replace(config, resume=str(run)), RunFolder(run), [])
    assert evaluated == [6, 7], "the fourth step was evaluated before it was saved"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert list(scores(records)) == list(scores(whole)) == [2, 4, 6, 7]


@pytest.mark.parametrize(
    ("every", "log_every", "val_every", "expected"),
    [
        (10, 10, 100, [10, 20, 30]),
        (8, 5, 12, [10, 20, 24]),  # records at 5, 10, 12, 15, 20, 24, 25, 30
        (7, 100, 10, [10, 20, 30]),  # 14 is told at 20, and 21 and 28 at 30
        (1, 10, 15, [10, 15, 20, 30]),
        (40, 1, 1, []),
    ],
)
def test_it_waits_for_a_step_that_is_recorded(every, log_every, val_every, expected):
    config = train_config(
        f"callbacks.benchmarks.every={every}",
        "callbacks.benchmarks.evaluator=benchmarks_targets.careless",
        f"trainer.log_every={log_every}",
        f"trainer.val_every={val_every}",
    )
    callback, trainer = BenchmarksCallback(config.callbacks.benchmarks, config), FakeTrainer()
    seen = []
    callback._evaluate = lambda trainer, module: seen.append(trainer.global_step)
    callback.on_train_start(trainer, FakeModule())
    for step in range(31):
        trainer.global_step = step
        callback.on_train_batch_start(trainer, FakeModule(), None, step)
    assert seen == expected


def test_a_failed_task_is_a_warning(tiny, tmp_path, caplog):
    caplog.set_level(logging.INFO, "callbacks")
    records = train_here(tmp_path, *tiny, *evaluating("careless", every=4, suite="half"))
    assert {k for values in scores(records).values() for k in values} == {"eval/text/loss", "eval/text/acc"}
    assert warnings(caplog) == [
        f"benchmark failing failed at step {step}: it has no items; the run goes on" for step in (4, 7)
    ]
    assert "benchmarks at step 4: text acc 0.500 (0 s)" in caplog.messages


def test_a_failed_suite_is_a_warning_and_training_goes_on_as_without(tiny, tmp_path, caplog):
    plain = train_here(tmp_path / "plain", *tiny)
    records = train_here(tmp_path / "watched", *tiny, *evaluating("broken", every=4))
    assert records == plain
    assert warnings(caplog) == [
        f"benchmarks failed at step {step}: the samples are gone; the run goes on" for step in (4, 7)
    ]


def test_a_run_that_is_told_to_leave_leaves(tiny, tmp_path):
    with pytest.raises(Interrupted):
        train_here(tmp_path, *tiny, *evaluating("broken", suite="interrupted"))


def test_it_is_off_unless_asked_for_and_then_refuses_a_wrong_evaluator():
    config = train_config("callbacks.benchmarks.evaluator=nowhere.evaluator")
    assert config.callbacks.benchmarks.every is None
    BenchmarksCallback(config.callbacks.benchmarks, config).on_train_end(FakeTrainer(), FakeModule())
    config = train_config("callbacks.benchmarks.evaluator=nowhere.evaluator", "callbacks.benchmarks.every=5")
    with pytest.raises(UserError, match=r"^callbacks\.benchmarks\.evaluator=nowhere\.evaluator cannot be"):
        BenchmarksCallback(config.callbacks.benchmarks, config)


@pytest.mark.parametrize("before", ["unknown", "off"])
def test_a_run_that_began_without_can_go_on_with_it(tmp_path, before):
    stored = as_dict(train_config(*(["callbacks=none"] if before == "off" else [])))
    if before == "unknown":
        del stored["callbacks"]["benchmarks"]
    RunFolder(tmp_path).write_config(stored)
    overrides = [f"resume={tmp_path}", "callbacks.benchmarks.every=5"]
    continued = continued_config(typed(TrainConfig, composed(*overrides)), overrides)
    assert continued.callbacks.benchmarks.every == 5
    assert continued.callbacks.benchmarks.suite.name == "training"
    assert (continued.callbacks.routing is None) == (before == "off")


def test_clocks_stand_still_meanwhile(tiny, tmp_path):
    more = ("callbacks.throughput={_target_:callbacks.ThroughputCallback}",)
    progress = ("callbacks.progress={_target_:callbacks.ProgressCallback}",)
    records = train_here(tmp_path, *tiny, *evaluating("slow", every=1), *more, *progress)
    assert len(scores(records)) == 7
    for record in records[1:]:
        assert record["speed/seconds_per_step"] < SLEEP
        # All but a few hundredths of a second would be theirs, if evaluations counted as one of them.
        assert record["time/logging_share"] + record["time/other_share"] < 0.9


LM_EVAL = (
    *("callbacks.benchmarks.every=3", "callbacks.benchmarks.suite.tasks=[numbers_local]"),
    "callbacks.benchmarks.find_tasks=benchmarks_targets.find_made_up_tasks",
    *(f"callbacks.{name}=null" for name in ("routing", "throughput", "alarms", "progress", "plots")),
)


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "ranks"), [("single", 1), ("fsdp", 2), ("ep", 2)])
def test_lm_eval_leaves_training_as_it_was(tiny, tmp_path, parallel, ranks):
    overrides = [*tiny, f"parallel={parallel}"]
    plain, *_ = run_ranks(train_on_ranks, ranks, tmp_path / "plain", overrides)
    more = [*overrides, "callbacks=default", *LM_EVAL]
    watched, *_ = run_ranks(train_on_ranks, ranks, tmp_path / "watched", more)
    assert without_scores(watched) == plain
    assert list(scores(watched)) == [3, 6, 7]
    for step, values in scores(watched).items():
        path = tmp_path / "watched" / "eval" / checkpoint_name(step) / "training-limit100" / "results.json"
        results = json.loads(path.read_text())
        task = results["tasks"]["numbers_local"]
        assert (task["status"], task["items"], task["chance"]) == ("done", 40, 0.5)
        assert values == {"eval/numbers_local/acc": task["metrics"]["acc"]["value"]}
        assert (results["step"], results["settings"]["ranks"]) == (step, ranks)


def test_modules_get_their_own_mode_back():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    model[1].eval()
    with undisturbed(model):
        assert not model[0].training
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [True, True, False]
    assert torch.is_grad_enabled()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "ranks"),
    [("ddp", 2), ("fsdp", 2), ("ep", 2), ("fsdp_ep", 4)],
)
def test_ranks_train_the_same_with_and_without(tiny, tmp_path, parallel, ranks):
    sizes = ["parallel.dp_shard=2", "parallel.expert_parallel=2"] if parallel == "fsdp_ep" else []
    overrides = [*tiny, f"parallel={parallel}", *sizes]
    plain, *_ = run_ranks(train_on_ranks, ranks, tmp_path / "plain", overrides)
    watched, *_ = run_ranks(
        train_on_ranks, ranks, tmp_path / "watched", [*overrides, *evaluating("careless")]
    )
    assert without_scores(watched) == plain
    assert list(scores(watched)) == [2, 4, 6, 7]


@pytest.mark.slow
def test_ranks_that_disagree_about_a_failure_end_the_run(tiny, tmp_path):
    overrides = [*tiny, "parallel=ddp", *evaluating("broken", suite="first")]
    with pytest.raises(AssertionError, match="failed on some ranks at step 2, and not on all"):
        run_ranks(train_on_ranks, 2, tmp_path, overrides)
