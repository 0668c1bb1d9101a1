"""mohge-sweep: the runs of an ablation, each trained once, by one or several workers, in many sittings."""

from __future__ import annotations

import shlex
import time
import uuid
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from rich.console import Console

from mohge.apps.output import FILE_WIDTH
from mohge.apps.resume import in_folder, override_key
from mohge.apps.runner import run_app
from mohge.config.paths import absolute_paths
from mohge.config.sweep_schema import SweepConfig
from mohge.config.targets import build
from mohge.errors import Interrupted, RunError, UserError
from mohge.files import write_json_atomically
from mohge.sweep.cells import Plan, beside_the_plan, read_plan, write_plan
from mohge.sweep.launchers import launched
from mohge.sweep.planning import folder_of, planned
from mohge.sweep.progress import Progress, look
from mohge.sweep.results import side_by_side
from mohge.sweep.same_data import different_data
from mohge.sweep.stopping import Signals, lifeline
from mohge.sweep.table import Display, summary, table
from mohge.sweep.worker import Job

_LOOK_EVERY = 1.0  # seconds


def run(config: SweepConfig, overrides: list[str]) -> None:
    """Runs the cells of the plan that are not done, shows how far they are, and lists those that failed."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UserError(
            "mohge-sweep -m is a sweep of sweeps: name arms, grid and seeds in sweep=, without -m"
        )
    if config.resume is not None:
        raise UserError(f"resume={config.resume}: a sweep continues when the same command is given again")
    plan, folder = planned(config, overrides), folder_of(config)
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = FILE_WIDTH
    if config.show:
        progress = look(folder, plan)
        console.print(table(plan, progress), summary(progress), sep="\n")
        if remark := different_data(folder, plan):
            console.print(remark, markup=False)
        _list_failed(progress, console)
        return
    write_plan(folder, plan)
    if others := beside_the_plan(folder, plan):
        console.print(others, markup=False)
    failed = _work(config, plan, folder, console)
    progress = look(folder, plan)
    _give_results(config, folder)
    console.print(f"Sweep folder: {folder}")
    _list_failed(progress, console)
    for sentence in failed:
        console.print(sentence, markup=False)
    left = len(progress.cells) - len(progress.of("finished"))
    if left:
        again = [item for item in overrides if override_key(item) not in ("retry", "show")]
        more = ["retry=true"] if progress.of("failed") else []
        presets = _own_presets()
        flags = ["--config-dir", presets] if presets is not None else []
        raise RunError(
            f"{progress.counts()} of {len(progress.cells)} cells; continue with "
            f"mohge-sweep {shlex.join([*flags, *again, *more])}"
        )


def main() -> None:
    """Console entry point."""
    run_app("sweep", SweepConfig, run)


def _work(config: SweepConfig, plan: Plan, folder: Path, console: Console) -> list[str]:
    """Starts workers, and looks on until they end; returns which of them failed.

    Raises:
        Interrupted: by a signal; the cells have saved their states.
    """
    invocation = uuid.uuid4().hex[:12]
    line = folder / f".{invocation}.lifeline"
    outlives = config.launcher == "slurm"
    job = Job(
        folder=str(folder),
        cells=plan.runs,
        invocation=invocation,
        retry=config.retry,
        presets=_own_presets(),
        lifeline=None if outlives else str(line),
    )
    with Signals() as signals, Display(folder, plan, console) as display:
        with lifeline(line):
            workers = launched(config, job)
            while workers.alive and not signals.received:
                display.update()
                time.sleep(_LOOK_EVERY)
        # The lifeline is cut now: workers that are still there let their cells save, and leave.
        while workers.alive and len(signals.received) == 1 and not outlives:
            time.sleep(_LOOK_EVERY)
        display.update()
    if not signals.received:
        return workers.failed()
    number = signals.received[0]
    if outlives:
        raise Interrupted(f"{workers.place()} go on; show=true looks at them, scancel ends them", number)
    saved = "its cells save their states" if workers.alive else "its cells have saved their states"
    raise Interrupted(f"the sweep was interrupted: {saved}; the same command continues it", number)


def _own_presets() -> str | None:
    """The folder that --config-dir names: each run is a command of its own, and has to find them too."""
    sources = HydraConfig.get().runtime.config_sources
    return next((str(source.path) for source in sources if source.provider == "command-line"), None)


def _give_results(config: SweepConfig, folder: Path) -> None:
    """Writes comparison.json, and gives it to the tracked run of the sweep.

    It is of the plan that the folder has now: another command may have begun later than this one.
    """
    plan = read_plan(folder)
    result = side_by_side(folder, plan, look(folder, plan))
    write_json_atomically(folder / "comparison.json", result)
    if result["runs"] and (group_results := config.logger.group_results) is not None:
        tracked = in_folder(absolute_paths(config), folder)
        build("logger", group_results, tracked.logger, tracked, field="group_results")


def _list_failed(progress: Progress, console: Console) -> None:
    for cell in progress.of("failed"):
        console.print(f"{cell.cell.arm} seed {cell.cell.seed} failed: {cell.reason}", markup=False)
        console.print(f"  log: cells/{cell.cell.id}.log", markup=False)


if __name__ == "__main__":
    main()
