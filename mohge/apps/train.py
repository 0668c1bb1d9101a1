"""mohge-train: train one run, or the runs of a comparison, or continue either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from mohge.apps.arms import train_arms
from mohge.apps.folders import claimed_folder
from mohge.apps.resume import continued_config, in_folder
from mohge.apps.runner import run_app
from mohge.config.paths import absolute_paths
from mohge.config.schema import TrainConfig
from mohge.config.targets import check_data
from mohge.training.run_folder import RunFolder


def run(config: TrainConfig, overrides: list[str]) -> None:
    """Trains what the configuration asks for, and prints where it is and what to type next."""
    if config.resume is not None:
        config = continued_config(config, overrides)
    check_data(config.data)
    with claimed_folder(config) as folder:
        config = in_folder(absolute_paths(config), folder)  # late: messages so far show paths as typed
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
