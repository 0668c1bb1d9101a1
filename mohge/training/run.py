"""One training run, from configuration to finished folder."""

from __future__ import annotations

import logging
import math
import signal
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mohge.budget import budget
from mohge.config.load import as_dict
from mohge.config.schema import TrainConfig
from mohge.config.targets import locate
from mohge.errors import Interrupted, UserError
from mohge.training.allocator import keep_freed_memory
from mohge.training.bookkeeping import Checkpoints, RecordWriter
from mohge.training.checkpoint import VerifiedCheckpointIO, newest_intact
from mohge.training.environment import describe_environment
from mohge.training.module import LanguageModule
from mohge.training.run_folder import RunFolder

log = logging.getLogger(__name__)

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


def train(config: TrainConfig, run: RunFolder, overrides: list[str]) -> dict[str, Any]:
    """Trains one model, from the start or from the newest intact checkpoint of the run's folder.

    Args:
        config: what to train; `resume` is set when `run` is to be continued.
        run: its folder.
        overrides: the command line's, kept in the folder.

    Returns:
        The final status.json.

    Raises:
        UserError: wrong data, checkpoint or disk.
        RunError: a non-finite loss.
        Interrupted: a signal; the state is saved.
    """
    if config.trainer.accelerator == "cuda" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=cuda, and this machine has no usable GPU: use cpu or auto")
    _quiet_libraries()
    keep_freed_memory()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    checkpoint = _find_checkpoint(run) if config.resume else None
    max_steps = steps_of(config)

    data = locate("data", config.data.target)(config.data, seed=config.seed)
    data.val_sequences = config.trainer.val_sequences
    data.prepare(progress=True)

    run.write_config(as_dict(config))
    run.write_json("overrides.json", overrides)
    run.write_json("environment.json", describe_environment())
    run.write_json("budget.json", budget(config).as_dict())
    run.write_json("data.json", data.summary())
    run_id = run.read_status().get("mlflow_run_id")
    run.update_status(state="running", seed=config.seed, arch=config.arch_name, model=config.model.name)

    loggers = []
    if config.logger.target is not None:
        loggers.append(locate("logger", config.logger.target)(config.logger, config, run_id))
        run.update_status(mlflow_run_id=getattr(loggers[0], "run_id", None))

    module = LanguageModule(config, run, max_steps)
    trainer = pl.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        precision=_PRECISION[config.trainer.precision],  # type: ignore[arg-type]
        max_steps=max_steps,
        accumulate_grad_batches=config.trainer.accumulate,
        gradient_clip_val=config.trainer.clip,
        val_check_interval=config.trainer.val_every * config.trainer.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=loggers,
        callbacks=[*_callbacks(config), RecordWriter(), Checkpoints()],
        plugins=[VerifiedCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run.path,
    )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except Interrupted:
        run.update_status(state="interrupted")
        raise
    except SIGTERMException as error:
        run.update_status(state="interrupted")
        raise Interrupted("SIGTERM received before training began", signal.SIGTERM) from error
    except BaseException as error:
        run.update_status(state="failed", error=str(error).splitlines()[0] if str(error) else repr(error))
        raise
    run.update_status(state="finished")
    return run.read_status()


def steps_of(config: TrainConfig) -> int:
    """Optimizer steps of a run: `trainer.max_steps`, or else `trainer.max_tokens` in whole steps."""
    trainer, data = config.trainer, config.data
    if trainer.max_steps is not None:
        return trainer.max_steps
    assert trainer.max_tokens is not None, "one is given: checked with the configuration"
    return math.ceil(trainer.max_tokens / (data.batch_sequences * data.context * trainer.accumulate))


def _callbacks(config: TrainConfig) -> list[Callback]:
    settings = config.callbacks
    return [
        locate(f"callbacks.{name}", item.target)(item, config)
        for name in ("routing", "throughput", "progress", "plots")
        if (item := getattr(settings, name)) is not None
    ]


def _find_checkpoint(run: RunFolder) -> Path | None:
    """The newest intact checkpoint, with the records after it dropped; None when there is none yet."""
    path, damaged = newest_intact(run.checkpoints_dir)
    for sentence in damaged:
        log.warning("%s; using %s", sentence, path)
    step = int(path.name.removeprefix("step_")) if path else 0
    run.forget_after(step)
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
