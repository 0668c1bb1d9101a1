"""The folder of a run: which one it is, made before the run begins, gone again if nothing came of it."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.files import still_named
from mohge.parallel.ranks import this_rank
from mohge.training.run_folder import RunFolder


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Holds a run's folder for this process.

    Raises:
        UserError: another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / ".lock"
    while True:
        with open(lock, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                raise UserError(
                    f"{folder} is in use by process {file.read().strip() or 'unknown'}: wait until it ends, "
                    "or stop it"
                ) from error
            if not still_named(lock, file):
                continue
            try:
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


@contextlib.contextmanager
def claimed_folder(config: TrainConfig) -> Iterator[Path]:
    """The folder of this run: the one given, the one continued, or a new one.

    It is made at once, so that runs started together do not share it. If it is still empty at the end,
    since the data or the tracking store was refused, it and the parents made for it are taken away.

    Raises:
        UserError: the folder given holds a run already, or it cannot be made.
    """
    if config.resume is not None:
        folder = Path(config.resume)
        with sole_user(folder):
            yield folder
        return
    folder, shared = _name(config)
    made: list[Path] = []
    for attempt in itertools.count(1):
        candidate = folder if attempt == 1 else folder.with_name(f"{folder.name}-{attempt}")
        missing = list(itertools.takewhile(lambda path: not path.exists(), (candidate, *candidate.parents)))
        try:
            candidate.mkdir(parents=True, exist_ok=not shared)
        except OSError as error:
            if shared and candidate.is_dir():
                continue  # of a run that began in the same second
            raise UserError(
                f"cannot make the run's folder {candidate}: {error.strerror}; give another with "
                "paths.run_dir=DIR"
            ) from error
        folder, made = candidate, missing
        break
    try:
        with sole_user(folder):
            yield folder
    finally:
        with contextlib.suppress(OSError):  # not empty: a run was begun
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def shared_folder(config: TrainConfig) -> Iterator[Path]:
    """`claimed_folder` by rank 0 for all ranks that torchrun or SLURM has started, which meet here.

    Raises:
        UserError: as `claimed_folder`; or there are several runs, for which ranks cannot meet again.
    """
    rank = this_rank()
    if rank.world == 1:
        with claimed_folder(config) as folder:
            yield folder
        return
    for several, remedy in (
        (HydraConfig.get().mode == RunMode.MULTIRUN, "without -m"),
        (config.comparison is not None, "one arm at a time, by its overrides"),
    ):
        if several:
            raise UserError(
                f"ranks of another launcher train one run: start them {remedy}, or let mohge-train start its "
                "ranks itself by trainer.devices=N"
            )
    from mohge.parallel.world import connect, disconnect, first  # late: torch takes seconds to import
    from mohge.training.device import device_of

    connect(rank, device_of(config.trainer, rank.local_world).type)
    with contextlib.ExitStack() as stack:
        yield first(lambda: stack.enter_context(claimed_folder(config)))
    disconnect()  # not after a failure: it could wait for others


def _name(config: TrainConfig) -> tuple[Path, bool]:
    """Name of the folder, and whether another run may come by the same name."""
    hydra = HydraConfig.get()
    if config.paths.run_dir is not None:
        folder = Path(config.paths.run_dir).expanduser()
        if RunFolder(folder).exists:
            raise UserError(
                f"paths.run_dir={folder} holds a run already: continue it with resume={folder}, or give "
                "another"
            )
        return folder, False
    if hydra.mode == RunMode.MULTIRUN:
        return Path(hydra.sweep.dir) / str(hydra.sweep.subdir), False
    name = hydra.runtime.choices.get("experiment") or f"{config.model.name}-{config.arch_name}"
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path(config.paths.output_dir).expanduser() / str(name) / stamp, True
