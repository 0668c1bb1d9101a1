"""Every command that a document shows is executed, shortened; those that need more are composed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from composing import composed
from hydra.core.global_hydra import GlobalHydra

from mohge.apps import bench, plan, prepare, train
from mohge.apps.report import long_names
from mohge.bench.checks import check_bench
from mohge.config.bench_schema import BenchConfig
from mohge.config.eval_schema import EvalConfig
from mohge.config.export_schema import ExportConfig
from mohge.config.generate_schema import GenerateConfig
from mohge.config.load import typed
from mohge.config.report_schema import ReportConfig
from mohge.config.schema import TrainConfig
from mohge.config.sweep_schema import SweepConfig
from mohge.config.tokens_schema import TokensConfig
from mohge.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
MAINS = {
    "mohge-train": train.main,
    "mohge-plan": plan.main,
    "mohge-prepare": prepare.main,
    "mohge-bench": bench.main,
}
OF_RUNS = {
    "mohge-eval": EvalConfig,
    "mohge-export": ExportConfig,
    "mohge-generate": GenerateConfig,
    "mohge-report": ReportConfig,
    "mohge-sweep": SweepConfig,
    "mohge-tokens": TokensConfig,
}
"""Commands that need a run or make many, which the tests of each have: here they are composed."""
SHORT = [
    "trainer.max_steps=2",
    "trainer.val_sequences=1",
    "data.batch_sequences=1",
    "data.context=64",
    "callbacks=none",
    "logger=none",
]
DOWNLOADS = ("data=debian_docs", "data=hf", "data=benchmarks", "experiment=paper")


LAUNCHES = r"torchrun .*-m mohge\.apps\.train|sbatch .*conf/slurm/train\.sbatch"
"""What starts the ranks of a run, before the overrides of the run."""
LAUNCHED = {"--nproc-per-node": "trainer.devices", "--nodes": "trainer.nodes"}
"""What a plan is told in place of the options of those."""
OF_THE_SCRIPT = ["trainer.devices=8", "parallel=fsdp_ep", "trainer.precision=bf16", "data.batch_sequences=64"]
"""What train.sbatch adds."""


def shown_lines(pattern: str) -> list[str]:
    """Lines of code in documents that begin like this, each once and without its comment."""
    lines = (line for path in DOCUMENTS for line in path.read_text(encoding="utf-8").splitlines())
    shown = (re.fullmatch(rf"    +((?:{pattern}).*)", line) for line in lines)
    return sorted({found.group(1).partition(" # ")[0].strip() for found in shown if found})


def documented_commands() -> list[str]:
    return shown_lines(r"mohge-[\w-]+")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the documents assume: your own texts."""
    folder = tmp_path_factory.mktemp("workplace")
    texts = folder / "my_texts"
    for domain in ("letters", "notes"):
        (texts / domain).mkdir(parents=True)
        for number in range(40):
            text = " ".join(f"{domain} {number} line {line} of a short text." for line in range(60))
            (texts / domain / f"{number}.md").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def _in_workplace(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("MOHGE_CACHE", str(workplace / "cache"))


def call(command: str, *more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [program, *arguments, *more])
    GlobalHydra.instance().clear()
    MAINS[program]()


def test_documents_show_the_promised_commands():
    commands = documented_commands()
    assert len([c for c in commands if c.startswith("mohge-")]) >= 16
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    twelve = shown.partition("## Twelve things to try")[2].partition("`mohge-train --help`")[0]
    assert len(re.findall(r"^    mohge-", twelve, flags=re.MULTILINE)) == 12


@pytest.mark.slow
@pytest.mark.usefixtures("_in_workplace")
@pytest.mark.parametrize("command", documented_commands())
def test_command_works(command: str, monkeypatch: pytest.MonkeyPatch):
    program, *arguments = shlex.split(command)
    if "--config-dir" in arguments:
        pytest.skip("needs a file of its document: tested in test_recipe_runs")
    if program in OF_RUNS:
        name = program.removeprefix("mohge-")
        arguments = long_names(arguments) if name == "report" else arguments
        typed(OF_RUNS[program], composed(*(a for a in arguments if a != "-m"), config_name=name))
        return
    if program == "mohge-lm-eval" or any(a.startswith(("resume=", "replay=")) for a in arguments):
        pytest.skip("needs a run: tested in test_resume, test_replay and test_eval")
    arguments = [a if not a.startswith("data.path=") else "data.path=my_texts" for a in arguments]
    if program == "mohge-plan":
        call(command, monkeypatch=monkeypatch)
        return
    if any(argument.startswith(DOWNLOADS) for argument in arguments):
        arguments = [argument for argument in arguments if not argument.startswith("data.tokenizer=")]
        typed(TrainConfig, composed(*(a for a in arguments if a != "-m")))
        return
    if program == "mohge-bench":  # takes minutes
        check_bench(typed(BenchConfig, composed(*arguments, config_name="bench")).bench)
        return
    text_only = ["model.vocab_size=400"] if "data=text_files" in arguments else []
    several = ["data.batch_sequences=4"] if any(a.startswith("parallel=") for a in arguments) else []
    if program == "mohge-prepare":
        call(shlex.join([program, *arguments]), *text_only, monkeypatch=monkeypatch)
        return
    multirun = "-m" in arguments
    folder = [] if multirun else [f"paths.run_dir=run{abs(hash(command))}"]
    more = [*SHORT, *text_only, *several, *folder]
    call(shlex.join([program, *arguments]), *more, monkeypatch=monkeypatch)
    runs = (
        sorted(Path("outputs/multirun").glob("*/[0-9]")) if multirun else [Path(folder[0].partition("=")[2])]
    )
    assert len(runs) == (6 if multirun else 1)
    for run in runs:
        assert RunFolder(run).read_status()["state"] == "finished"


def test_launches_are_found():
    assert len(shown_lines(LAUNCHES)) >= 4


@pytest.mark.slow
@pytest.mark.usefixtures("_in_workplace")
@pytest.mark.parametrize("command", shown_lines(LAUNCHES))
def test_a_run_that_is_launched_can_be_planned(command: str, monkeypatch: pytest.MonkeyPatch):
    begin = re.match(LAUNCHES, command)
    assert begin is not None
    options = re.findall(r"(--[\w-]+)[ =](\S+)", begin.group())
    ranks = [f"{LAUNCHED[option]}={value}" for option, value in options if option in LAUNCHED]
    script = OF_THE_SCRIPT if command.startswith("sbatch") else []
    arguments = [item for item in shlex.split(command[begin.end() :]) if "$" not in item]
    call(shlex.join(["mohge-plan", *script, *ranks, *arguments]), monkeypatch=monkeypatch)


def documented_errors() -> list[tuple[str, str]]:
    """Commands that are shown with a prompt, and the sentence shown below each."""
    shown = re.compile(r"^    \$ (mohge-.+)\n    (error: .+)$", flags=re.MULTILINE)
    return [pair for document in DOCUMENTS for pair in shown.findall(document.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("command", "sentence"), documented_errors())
def test_errors_are_shown_as_the_commands_print_them(command: str, sentence: str, tmp_path: Path):
    program, *arguments = shlex.split(command)
    script = Path(sys.executable).with_name(program)
    done = subprocess.run([script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip() == sentence
