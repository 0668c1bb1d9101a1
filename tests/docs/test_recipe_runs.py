"""The runs and sweeps of docs/RECIPES.md, with the plan that it shows: hyperparameters, and how many runs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from composing import composed
from guide_files import write_guide
from hydra.core.global_hydra import GlobalHydra
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mohge.apps import sweep
from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.sweep import planning

RECIPES = Path(__file__).parents[2] / "docs" / "RECIPES.md"
TEXT = RECIPES.read_text(encoding="utf-8")
SWEEPS = re.findall(r"^    (mohge-sweep .*)$", TEXT, flags=re.MULTILINE)
LAUNCHES = re.findall(r"^ +(?:torchrun|sbatch) .*(?:apps\.train|\.sbatch) (.*)$", TEXT, flags=re.MULTILINE)
ARMS = re.findall(r'"(arch=[^"]*)"', TEXT)
BATCH = 512 * 4096  # tokens of a step, as released


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page assumes: its own plan, and a tokenizer."""
    assert write_guide(tmp_path, RECIPES) == ["plans/sweep/paper.yaml"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_as_released(config: TrainConfig) -> None:
    assert (config.optim.lr, config.trainer.precision) == (3e-4, "bf16")
    assert config.data.batch_sequences * config.data.context * config.trainer.accumulate == BATCH
    assert config.trainer.max_tokens == 20e9
    # 0.1 is for short runs; arms without the loss have it switched off.
    assert config.loss.intra_weight in (0, 5e-3)
    assert (config.loss.intra_weight > 0) != (config.loss.balance_weight + config.loss.penalty_weight > 0)


@pytest.mark.usefixtures("place")
def test_runs_are_trained_as_released() -> None:
    """The three arms that settle the claim differ in nothing else."""
    assert len(LAUNCHES) == 2
    assert len(ARMS) == 3
    configs = []
    for arguments in map(shlex.split, LAUNCHES):
        # Meshes are planned in test_documentation.
        fixed = [item for item in arguments if "$" not in item and not item.startswith("parallel")]
        for arm in ARMS if "$arm" in arguments else [""]:
            configs.append(typed(TrainConfig, composed(*arm.split(), *fixed)))
    assert [config.arch_name for config in configs] == ["mohge", "moe", "moe", "mohge"]
    for config in configs:
        check_as_released(config)


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("command", SWEEPS)
def test_sweeps_have_the_arms_and_the_runs_that_are_said(command: str, capsys, monkeypatch) -> None:
    runs: list[TrainConfig] = []
    monkeypatch.setattr(planning, "cell_id", lambda run: runs.append(run) or f"{len(runs):016x}")
    program, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [program, *arguments, "show=true"])
    GlobalHydra.instance().clear()
    sweep.main()
    arms, count = map(int, re.findall(r"What remains are (\d+) arms, (\d+) runs", TEXT)[0])
    assert (arms, count) == (len(runs) / 3, len(runs))
    assert f"{count} waiting" in capsys.readouterr().out
    for run in runs:
        if run.arch_name not in ("loss_free", "mohge_no_intra_loss"):  # balanced otherwise, or not at all
            check_as_released(run)
    assert {run.optim.lr for run in runs} == {3e-4}
    assert {run.trainer.keep_checkpoints for run in runs} == {1}


def test_there_are_sweeps() -> None:
    assert len(SWEEPS) == 2
