"""mohge-train: train one run, or the runs of a comparison, or continue either."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from rich.console import Console

from mohge.apps.arms import train_arms
from mohge.apps.resume import continued_config, in_folder
from mohge.apps.runner import run_app
from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.training.run_folder import RunFolder


def run(config: TrainConfig, overrides: list[str]) -> None:
    """Trains what the configuration asks for, and prints where it is and what to type next."""
    if config.resume is not None:
        config = continued_config(config, overrides)
    folder = _claim_folder(config)
    config = in_folder(config, folder)
    if config.comparison is None:
        _print_summary(train_one(config, overrides), folder)
    else:
        train_arms(config, overrides, folder, train_one)


def main() -> None:
    """Console entry point."""
    run_app("train", TrainConfig, run)


def train_one(config: TrainConfig, overrides: list[str]) -> dict[str, Any]:
    """Trains the run of `config.paths.run_dir`, and returns its final status."""
    assert config.paths.run_dir is not None
    # Late, since Lightning takes seconds to import: a wrong configuration has been refused by now.
    from mohge.training.run import train

    return train(config, RunFolder(config.paths.run_dir), overrides)


def _claim_folder(config: TrainConfig) -> Path:
    """The folder of this run: the one given, the one continued, or a new one.

    Raises:
        UserError: the folder given holds a run already.
    """
    if config.resume is not None:
        return Path(config.resume)
    if config.paths.run_dir is not None:
        folder = Path(config.paths.run_dir).expanduser()
        if RunFolder(folder).exists:
            raise UserError(
                f"paths.run_dir={folder} holds a run already: continue it with resume={folder}, or give "
                "another"
            )
        return folder
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        return Path(hydra.sweep.dir) / str(hydra.sweep.subdir)
    name = hydra.runtime.choices.get("experiment") or f"{config.model.name}-{config.arch_name}"
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return _unused(Path(config.paths.output_dir) / str(name) / stamp)


def _unused(path: Path) -> Path:
    """`path`, or `path-2`, `path-3`, … ; the folder is made, so that runs started at once do not share it."""
    for attempt in range(1, 1000):
        candidate = path if attempt == 1 else path.with_name(f"{path.name}-{attempt}")
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            continue
        return candidate
    raise UserError(f"{path} and a thousand like it exist: give paths.run_dir")


def _print_summary(status: dict[str, Any], folder: Path) -> None:
    last = status.get("last", {})
    facts = [f"step {status.get('step')}", f"{status.get('tokens', 0):,} tokens"]
    if "val/bits_per_byte" in last:
        facts.append(f"validation {last['val/bits_per_byte']:.4f} bits per byte")
        facts.append(f"perplexity {last['val/perplexity']:.1f}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"\nDone: {', '.join(facts)}\nRun folder: {folder}")
    console.print(
        f"Train longer: mohge-train resume={folder} trainer.max_tokens={2 * max(status.get('tokens', 0), 1)}"
    )
