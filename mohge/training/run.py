"""One training run, from configuration to finished folder."""

from __future__ import annotations

import contextlib
import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mohge.budget import budget
from mohge.config.checks import remarks
from mohge.config.load import as_dict
from mohge.config.schema import TrainConfig
from mohge.config.targets import build
from mohge.errors import Interrupted, UserError, first_line
from mohge.moe.native import why_not
from mohge.parallel.mesh import build_mesh
from mohge.parallel.ranks import ALONE, Rank
from mohge.parallel.sizes import mesh_sizes
from mohge.parallel.strategy import MeshStrategy, RankEnvironment
from mohge.parallel.world import barrier, first, local_first, wait_at_most
from mohge.training.allocator import keep_freed_memory
from mohge.training.bookkeeping import Checkpoints, RecordWriter
from mohge.training.checkpoint import VerifiedCheckpointIO, discard_after, newest_intact
from mohge.training.checkpoint_names import step_of
from mohge.training.device import device_of
from mohge.training.environment import describe_environment
from mohge.training.module import LanguageModule
from mohge.training.run_folder import RunFolder

log = logging.getLogger(__name__)

_WATCHING = ("routing", "throughput", "alarms", "progress", "plots")
_ON_EVERY_RANK = (
    "benchmarks",  # it calls the model, of which each rank may have a part
    "early_stopping",  # all end after the same step
)
_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


def train(
    config: TrainConfig,
    run: RunFolder,
    overrides: list[str],
    rank: Rank = ALONE,
    *,
    callbacks: list[Callback] | None = None,
) -> dict[str, Any]:
    """Trains one model, from the start or from the newest intact checkpoint of the run's folder.

    Args:
        config: what to train; `resume` is set when `run` is to be continued.
        run: its folder.
        overrides: the command line's, kept in the folder.
        rank: this process among those that train together and have met; rank 0 writes for all.
        callbacks: to watch rank 0 instead of all that the configuration names.

    Returns:
        The final status.json.

    Raises:
        UserError: wrong data, checkpoint or disk.
        RunError: a non-finite loss.
        Interrupted: a signal; the state is saved.
    """
    device = device_of(config.trainer, rank.local_world)
    _check_native(config, device)
    _quiet_libraries()
    keep_freed_memory()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    # All that input can make fail comes before the first write into the folder.
    checkpoint = first(lambda: _find_checkpoint(config, run)) if config.resume else None
    named = _WATCHING + _ON_EVERY_RANK if rank.is_first else _ON_EVERY_RANK
    watching = _callbacks(config, named) if callbacks is None else callbacks if rank.is_first else []
    data = build("data", config.data.target, config.data, config.seed)
    data.val_sequences = config.trainer.val_sequences
    data.read_part(rank.index, rank.world)
    local_first(rank, lambda: data.prepare(progress=rank.is_first))
    if checkpoint is not None:  # Lightning does it again, too late for data that are to be refused
        saved = VerifiedCheckpointIO().load_checkpoint(checkpoint)
        if (state := saved.get(type(data).__qualname__)) is not None:
            data.load_state_dict(state)
    loggers = _loggers(config, run.read_status().get("mlflow_run_id")) if rank.is_first else []
    note = run.update_status if rank.is_first else _nothing
    try:
        if rank.is_first:
            for remark in remarks(config):
                log.warning("%s", remark)
            _begin(config, run, overrides, checkpoint, data.summary())
            for logger in loggers:
                if (run_id := getattr(logger, "run_id", None)) is not None:  # another logger leaves it be
                    run.update_status(mlflow_run_id=run_id)
                logger.log_hyperparams(as_dict(config))
        mesh = build_mesh(mesh_sizes(config), device.type) if rank.world > 1 else None
        barrier()
        wait_at_most(config.parallel.timeout)
        max_steps = config.steps
        module = LanguageModule(config, run, max_steps, mesh, checkpoint)
        # Told in any case: in the shell of a SLURM job Lightning would take one process for one of several.
        plugins: list[Any] = [VerifiedCheckpointIO(), RankEnvironment(rank)]
        trainer = pl.Trainer(
            accelerator=device.type,  # Lightning's own `auto` would take Apple's, which has no float64
            strategy="auto" if mesh is None else MeshStrategy(mesh),
            devices=rank.local_world,
            num_nodes=rank.nodes,
            precision=_PRECISION[config.trainer.precision],  # type: ignore[arg-type]
            max_steps=max_steps,
            accumulate_grad_batches=config.trainer.accumulate,
            gradient_clip_val=config.trainer.clip,
            val_check_interval=config.trainer.val_every * config.trainer.accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=loggers,
            callbacks=[*watching, *([RecordWriter()] if rank.is_first else []), Checkpoints()],
            plugins=plugins,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=run.path,
        )
        with _interrupted_by_ctrl_c():
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        barrier()  # a rank that hangs at the end is missed by the others
        _drain(loggers)  # after it: nobody waits for this rank any more
    except (Interrupted, KeyboardInterrupt):
        note(state="interrupted")
        for logger in loggers:
            logger.finalize("KILLED")  # Lightning has called it failed
        _drain(loggers)
        raise
    except SIGTERMException as error:
        note(state="interrupted")
        for logger in loggers:
            logger.finalize("KILLED")
        raise Interrupted("SIGTERM received before training began", signal.SIGTERM) from error
    except BaseException as error:
        # A full disk refuses these too: the first failure is the news.
        with contextlib.suppress(UserError):
            if run.exists:
                note(state="failed", error=first_line(error))
        with contextlib.suppress(UserError, OSError):
            for logger in loggers:  # Lightning does it only for what fails in its own hands
                logger.finalize("failed")
            _drain(loggers)
        raise
    note(state="finished")
    return run.read_status()


@contextlib.contextmanager
def _interrupted_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C before and after the steps, in which the state is saved, ends the run as interrupted.

    Of a KeyboardInterrupt Lightning would make exit status 1, and be deaf to the next one.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else a rank's, which does so
    if ours:
        signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    raise Interrupted("interrupted outside of training steps: what was saved stays", number)


@runtime_checkable
class _Draining(Protocol):
    """A logger that writes in the background."""

    def drain(self) -> None:
        """Wait until all is written."""


def _drain(loggers: list[Logger]) -> None:
    for logger in loggers:
        if isinstance(logger, _Draining):
            logger.drain()


def _nothing(**fields: Any) -> None:
    """What ranks but the first note in status.json."""


def _begin(
    config: TrainConfig, run: RunFolder, overrides: list[str], checkpoint: Path | None, data: dict[str, Any]
) -> None:
    """Makes the folder what it is at the checkpoint, or at the start, and writes what is known before."""
    run.remove_leftovers()
    run.forget_after(step_of(checkpoint) if checkpoint else 0)
    run.renew_status()
    discard_after(run.checkpoints_dir, checkpoint)
    _write_facts(config, run, overrides, data)


def _check_native(config: TrainConfig, device: torch.device) -> None:
    """Refuse experts.kernel=native where it cannot be had: what other checks know without torch."""
    if config.experts.kernel == "native" and config.experts.widths:
        sizes = (config.model.d_model, *config.experts.widths)
        reason = why_not(device.type, torch.float32, sizes)
        if reason:
            raise UserError(f"experts.kernel=native: {reason}; use experts.kernel=auto")


def _callbacks(config: TrainConfig, names: Sequence[str]) -> list[Callback]:
    settings = config.callbacks
    return [
        build(f"callbacks.{name}", item.target, item, config)
        for name in names
        if (item := getattr(settings, name)) is not None
    ]


def _loggers(config: TrainConfig, run_id: str | None) -> list[Logger]:
    settings = config.logger
    return [] if settings.target is None else [build("logger", settings.target, settings, config, run_id)]


def _write_facts(config: TrainConfig, run: RunFolder, overrides: list[str], data: dict[str, Any]) -> None:
    """What is known of a run before it has begun; what a continued one began with stays."""
    environment = describe_environment()
    continued = run.exists
    run.write_config(as_dict(config))  # first, since the largest: a full disk refuses it, or none
    if continued:
        run.add_resume({"overrides": overrides, "environment": environment})
    else:
        run.write_json("overrides.json", overrides)
        run.write_json("environment.json", environment)
    run.write_json("budget.json", budget(config).as_dict())
    run.write_json("data.json", data)
    mesh = asdict(mesh_sizes(config))
    facts = {"seed": config.seed, "arch": config.arch_name, "model": config.model.name, "mesh": mesh}
    run.update_status(state="running", error=None, stopped_early=None, **facts)


def _find_checkpoint(config: TrainConfig, run: RunFolder) -> Path | None:
    """The newest intact checkpoint; None when there is none yet.

    Raises:
        UserError: all are damaged, or the run is past its new end.
    """
    path, damaged = newest_intact(run.checkpoints_dir)
    for sentence in damaged:
        log.warning("%s; using %s", sentence, path)
    step = step_of(path) if path else 0
    if step > config.steps:
        raise UserError(
            f"trainer.max_steps={config.steps} is before step {step}, where {run.path} is: give at least that"
        )
    log.info("continuing %s from step %d", run.path, step)
    return path


def _quiet_libraries() -> None:
    """Keeps hints that do not apply here out of the user's terminal."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        "The '.*_dataloader' does not have many workers",  # windows of a memory map need none
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own call
    ):
        warnings.filterwarnings("ignore", message)
