"""mohge-report as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from commands import run_forked
from fabricated_runs import write_run, write_tokens, write_whole_run
from refusals import assert_refused, assert_refused_at_once
from tiny_runs import tiny_run, write_corpus

from evaluation.report import who
from evaluation.run_data import read_run
from mohge.errors import RunError, UserError


@pytest.fixture
def folder(tmp_path):
    """A working folder with two runs of 50 steps."""
    for arch in ("mohge", "dense"):
        write_whole_run(tmp_path / "work" / "outputs" / arch, f"arch={arch}", steps=50)
    return tmp_path / "work"


@pytest.mark.slow
def test_it_writes_beside_the_runs_and_says_where(folder):
    finished = run_forked("mohge-report", ["runs=outputs"], folder)
    assert finished.status == 0, finished.stderr
    assert "Report of 2 runs" in finished.stdout
    assert (
        "Which group handles numbers? Width 48 computes the largest share of the rows of numbers"
        in finished.stdout
    )
    assert finished.stdout.splitlines()[-1] == "Report: outputs/report/report.html"
    assert sorted(path.name for path in (folder / "outputs/report").iterdir()) == [
        "charts",
        "report.html",
        "report.json",
    ]


@pytest.mark.slow
def test_json_is_one_object_and_nothing_else(folder):
    overrides = ["runs=[outputs/mohge,outputs/dense]", "output=there", "format=json", "ranks=4"]
    finished = run_forked("mohge-report", overrides, folder)
    assert finished.status == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result == json.loads((folder / "there/report.json").read_text())
    assert [run["name"] for run in result["runs"]] == ["mohge", "dense"]
    assert result["runs"][0]["rank_balance"]["ranks"] == 4


@pytest.mark.slow
def test_damaged_and_unfinished_runs_are_told_and_others_go_on(folder):
    outputs = folder / "outputs"
    (outputs / "dense/budget.json").unlink()
    (outputs / "mohge/status.json").write_text('{"state": "running"}')
    with (outputs / "mohge/metrics.jsonl").open("a") as file:
        file.write('{"step": 60, "tok')  # being written
    (outputs / "mohge/alarms.jsonl").write_text("[]\n")
    finished = run_forked("mohge-report", ["runs=outputs", "format=json"], folder)
    assert finished.status == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert [run["name"] for run in result["runs"]] == ["mohge"]
    assert result["runs"][0]["step"] == 50
    left_out, unfinished, alarms = result["remarks"]
    assert re.fullmatch(r"dense is left out: .*dense/budget\.json is missing: .*\.", left_out)
    assert unfinished == "mohge is running, not finished: what it has recorded is shown."
    assert re.fullmatch(r"mohge: .*alarms\.jsonl is damaged \(line 1 .*\): .*", alarms)
    page = (outputs / "report/report.html").read_text()
    assert unfinished in page


@pytest.mark.slow
def test_a_second_report_replaces_the_first(folder):
    assert run_forked("mohge-report", ["runs=outputs"], folder).status == 0
    charts = folder / "outputs/report/charts"
    assert (charts / "group_shares.png").exists()
    for path in (folder / "outputs/mohge").glob("*"):
        if path.name in ("routing_steps.jsonl", "routing.jsonl"):
            path.unlink()
    (folder / "outputs/mohge/status.json").write_text('{"state": "interrupted"}')
    assert run_forked("mohge-report", ["runs=outputs"], folder).status == 0
    assert not (charts / "group_shares.png").exists()
    assert not (charts / "expert_load.csv").exists()
    assert (charts / "loss_curves.png").exists()


MISTAKES = [
    ("", ["runs has no value: give one with runs=VALUE"]),
    ("runs=nowhere", ["runs=nowhere is no folder", "give the folder of a run"]),
    ("runs=empty", ["runs=empty holds no run"]),
    ("runs=[]", ["runs=[] names no folder"]),
    ("runs=[run,run2]", ["runs names 2 folders", "output=DIR"]),
    ("runs=run output=taken", ["taken exists and is not an empty folder", "output=DIR"]),
    ("runs=run", ["no run can be reported", "run/status.json is missing"]),
    ("runs=run arch=moe", ["arch=moe has no effect", "leave it out"]),
    ("runs=run tokens=-1", ["tokens=-1"]),
    ("runs=run ranks=0", ["ranks=0"]),
    ("run=run", ["unknown key run; did you mean runs?"]),
    ("runs=run format=xml", ["format='xml'", "'table' or 'json'"]),
]


@pytest.mark.parametrize(("overrides", "fragments"), MISTAKES, ids=[overrides for overrides, _ in MISTAKES])
def test_wrong_input_is_refused_before_anything_heavy(tmp_path, overrides, fragments):
    for name in ("run", "run2"):
        write_run(tmp_path / name, "arch=dense", steps=10)
        (tmp_path / name / "status.json").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine\n")
    imported = assert_refused_at_once("mohge-report", overrides.split(), tmp_path, fragments)
    assert "mohge.config.report_schema" in imported
    assert imported.isdisjoint({"altair", "vl_convert"})


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A run with a checkpoint that nobody analysed, and a list of the analyses that are asked for."""
    path = write_run(tmp_path / "run", "arch=mohge", steps=50)
    (path / "checkpoints/step_00000050").mkdir(parents=True)
    run = read_run("run", path)
    asked = []

    def analyse(checkpoint, tokens, output, **settings):
        asked.append((checkpoint.name, tokens, output))
        write_tokens(path, run.config, checkpoint.name)

    monkeypatch.setattr("evaluation.tokens.analyse", analyse)
    monkeypatch.setattr(
        "mohge.training.checkpoint_choice.choose_checkpoint",
        lambda named: Path(named) / "checkpoints/step_00000050",
    )
    return run, asked


def test_a_checkpoint_without_analysis_gets_one_once(saved, capsys):
    run, asked = saved
    for _ in range(2):
        analysis = who.analysis_of(run, 1000, "2 of 3")
        assert analysis.data["checkpoint"] == "step_00000050"
    assert asked == [("step_00000050", 1000, run.path / "tokens/step_00000050")]
    assert capsys.readouterr().err.startswith("run 2 of 3, run: looking where 1,000 tokens go")


def test_without_tokens_only_what_there_is_is_shown(saved):
    run, asked = saved
    assert who.analysis_of(run, 0, "1 of 1") is None
    write_tokens(run.path, run.config, "step_00000020")
    assert who.analysis_of(run, 0, "1 of 1").data["checkpoint"] == "step_00000020"
    assert asked == []


def test_an_analysis_that_fails_is_a_refusal_that_names_it(saved, monkeypatch):
    def fail(*given, **named):
        raise RunError("no memory")

    monkeypatch.setattr("evaluation.tokens.analyse", fail)
    with pytest.raises(UserError, match=r"step_00000050 cannot be analysed \(no memory\)"):
        who.analysis_of(saved[0], 1000, "1 of 1")


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ('{"format": "other"}', "has format other"),
        ('{"format": "mohge-tokens-1"}', "it has no widths"),
        ("{", "damaged"),
    ],
)
def test_an_analysis_of_another_kind_is_refused(saved, text, fragment):
    path = write_tokens(saved[0].path, saved[0].config, "step_00000050")
    path.write_text(text)
    with pytest.raises(UserError, match=fragment):
        who.analysis_of(saved[0], 0, "1 of 1")


@pytest.mark.slow
def test_a_trained_run_is_analysed_and_reported(tmp_path):
    work = tmp_path / "work"
    write_corpus(work / "corpus")
    overrides = [*tiny_run(Path("corpus"), Path("cache")), "trainer.max_steps=4", "callbacks=default"]
    trained = run_forked("mohge-train", [*overrides, "logger=none", "paths.run_dir=outputs/run"], work)
    assert trained.status == 0, trained.stderr
    finished = run_forked("mohge-report", ["runs=outputs", "tokens=500", "ranks=2", "format=json"], work)
    assert finished.status == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert result["remarks"] == []
    (run,) = result["runs"]
    assert run["tokens_analysis"].endswith("outputs/run/tokens/step_00000004")
    assert run["rank_balance"]["ranks"] == 2
    assert "charts/parts" in result["charts"]


def test_a_folder_with_another_report_json_is_left_alone(folder, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "report.json").write_text('{"charts": [1]}')
    arguments = [f"runs={folder / 'outputs'}", f"output={taken}", "tokens=0"]
    assert_refused(run_forked("mohge-report", arguments, folder), [str(taken)])
    assert (taken / "report.json").read_text() == '{"charts": [1]}'
    assert len(list(taken.iterdir())) == 1
