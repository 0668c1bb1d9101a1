"""--help says what a command does, what can be chosen, how to call it and where results go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import run_command
from composing import composed

from mohge.apps.report import long_names
from mohge.config.bench_schema import BenchConfig
from mohge.config.eval_schema import EvalConfig
from mohge.config.export_schema import ExportConfig
from mohge.config.generate_schema import GenerateConfig
from mohge.config.load import group_choices, typed
from mohge.config.plan_schema import PlanConfig
from mohge.config.report_schema import ReportConfig
from mohge.config.schema import ResultConfig, TrainConfig
from mohge.config.sweep_schema import SweepConfig
from mohge.config.tokens_schema import TokensConfig

SCHEMAS = {
    "mohge-train": TrainConfig,
    "mohge-plan": PlanConfig,
    "mohge-prepare": ResultConfig,
    "mohge-bench": BenchConfig,
    "mohge-export": ExportConfig,
    "mohge-eval": EvalConfig,
    "mohge-generate": GenerateConfig,
    "mohge-tokens": TokensConfig,
    "mohge-report": ReportConfig,
    "mohge-sweep": SweepConfig,
}


@pytest.mark.parametrize("command", SCHEMAS)
def test_help_answers_a_newcomers_questions(tmp_path: Path, command: str) -> None:
    finished = run_command(command, ["--help"], tmp_path)
    assert finished.status == 0
    assert finished.stderr == ""
    assert finished.cpu_seconds < 3
    headings = ("Usage", "Groups and their choices", "Examples", "Results", "Exit status: 0 done")
    places = [finished.stdout.index(heading) for heading in headings]
    assert places == sorted(places)
    for group in ("arch", "data", "experiment", "model"):
        assert f"\n{group}: {', '.join(group_choices(group))}\n" in finished.stdout.replace("\n    ", " ")
    assert "of experts/nano write experts=nano/moe" in finished.stdout
    assert max(map(len, finished.stdout.splitlines())) <= 110
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", SCHEMAS)
def test_its_examples_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    stdout = run_command(command, ["--help"], tmp_path).stdout
    examples = re.findall(rf"^  {command}(.*)$", stdout.partition("Examples")[2], flags=re.MULTILINE)
    assert len(examples) == 5
    for example in examples:
        overrides = re.findall(r"[\w.]+=\S+", example.partition("    ")[0])
        single = [re.sub(r"=([^\[,]+),.*", r"=\1", item) for item in overrides]  # of a sweep, the first
        name = command.removeprefix("mohge-")
        single = long_names(single) if name == "report" else single
        typed(SCHEMAS[command], composed(*single, config_name=name))
