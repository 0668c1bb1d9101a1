"""mohge-train: train one run, or the runs of a comparison, or continue either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from rich.console import Console

from mohge.apps.arms import train_arms
from mohge.apps.folders import shared_folder
from mohge.apps.resume import continued_config, in_folder
from mohge.apps.runner import run_app
from mohge.config.paths import absolute_paths
from mohge.config.run_names import as_job
from mohge.config.schema import TrainConfig
from mohge.config.targets import check_data, check_router
from mohge.errors import Interrupted, LostRankError, RunError, UserError, first_line
from mohge.parallel.launch import launch
from mohge.parallel.ranks import found_rank, this_rank
from mohge.parallel.sizes import mesh_sizes
from mohge.sweep.cells import check_cell
from mohge.training.run_folder import RunFolder


def run(config: TrainConfig, overrides: list[str]) -> float | None:
    """Trains what the configuration asks for, and prints where it is and what to type next.

    Returns:
        Bits per byte of the last validation; None of a comparison, or where there was no such validation.
    """
    if config.resume is not None:
        config = continued_config(config, overrides)
    check_data(config.data)
    check_router(config.router)
    _check_placement(config)
    _check_nodes(config)
    _check_sweeper(config)
    with shared_folder(config) as folder:
        config = in_folder(absolute_paths(config), folder)  # late: messages so far show paths as typed
        check_cell(config)
        if config.comparison is not None:
            train_arms(config, overrides, folder, train_one)
            return None
        hydra = HydraConfig.get()
        if hydra.mode == RunMode.MULTIRUN and config.resume is None:
            config = as_job(config, overrides, Path(hydra.sweep.dir))
        status = train_one(config, overrides)
        if this_rank().is_first:
            _print_summary(status, folder)
        return status.get("last", {}).get("val/bits_per_byte")


def main() -> None:
    """Console entry point."""
    run_app("train", TrainConfig, run)


def train_one(config: TrainConfig, overrides: list[str]) -> dict[str, Any]:
    """Trains the run of `config.paths.run_dir`, and returns its final status.

    On several ranks, this process is one of those that torchrun or SLURM has started, or else starts them
    and waits for them.
    """
    assert config.paths.run_dir is not None
    run, ranks = RunFolder(config.paths.run_dir), mesh_sizes(config).world
    if ranks > 1 and found_rank() is None:
        before = run.read_status() if run.exists else None
        try:
            launch("mohge.training.launched:train_rank", (config, overrides), ranks)
        except BaseException as error:
            # The rank that writes may have been the one that died, or was killed before it could. A run that
            # it has not begun to continue stays as it was.
            if run.exists and run.read_status() != before:
                if isinstance(error, Interrupted):
                    run.update_status(state="interrupted")
                else:
                    run.update_status(state="failed", error=first_line(error))
            if isinstance(error, LostRankError):
                raise RunError(f"{error}; continue with mohge-train resume={run.path}") from error
            raise
        return run.read_status()
    # Late, since Lightning takes seconds to import: a wrong configuration has been refused by now.
    from mohge.training.launched import prepare_rank
    from mohge.training.run import train

    if ranks > 1:
        prepare_rank(config, this_rank())
    return train(config, run, overrides, this_rank())


def _check_placement(config: TrainConfig) -> None:
    placement = config.parallel.placement
    if placement != "all_size":
        raise UserError(
            f"parallel.placement={placement} can be planned and replayed, not trained, as ranks would hold "
            "unequal shares: use parallel.placement=all_size"
        )


def _check_nodes(config: TrainConfig) -> None:
    if config.trainer.nodes > 1 and found_rank() is None:
        raise UserError(
            f"trainer.nodes={config.trainer.nodes} can be planned, not trained, without a launcher, since "
            "mohge-train itself starts ranks on one machine: start it by torchrun or srun, or use "
            "trainer.nodes=1"
        )


def _check_sweeper(config: TrainConfig) -> None:
    hydra = HydraConfig.get()
    sweeper = hydra.runtime.choices["hydra/sweeper"]
    if config.comparison is not None and hydra.mode == RunMode.MULTIRUN and sweeper != "basic":
        raise UserError(
            f"hydra/sweeper={sweeper} searches by the result of one run, and "
            f"experiment={hydra.runtime.choices['experiment']} trains several: leave one of them out"
        )


def _print_summary(status: dict[str, Any], folder: Path) -> None:
    last = status.get("last", {})
    facts = [f"step {status.get('step')}", f"{status.get('tokens', 0):,} tokens"]
    if "val/bits_per_byte" in last:
        facts.append(f"validation {last['val/bits_per_byte']:.4f} bits per byte")
        facts.append(f"perplexity {last['val/perplexity']:.1f}")
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"\nDone: {', '.join(facts)}\nRun folder: {folder}")
    more = f"trainer.max_tokens={2 * max(status.get('tokens', 0), 1)}"
    if stopped := status.get("stopped_early"):
        console.print(f"Stopped early: {stopped['reason']}")
        more = "callbacks.early_stopping.patience=null"
    console.print(f"Train longer: mohge-train resume={folder} {more}")


if __name__ == "__main__":  # torchrun -m mohge.apps.train
    main()
