"""bench=callbacks: what it costs to watch a training run.

One real training changes, every `trainer.log_every` steps and so once per record, the way in which it is
watched: not at all, with its routing counted, with `callbacks` in the brief tier, and in the detailed one.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import statistics
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint

from mohge.bench.progress import say
from mohge.bench.rows import Measured, Row
from mohge.bench.sizes import shape_name
from mohge.bench.timing import Timing
from mohge.config.bench_schema import CallbacksBenchConfig
from mohge.config.schema import TrainConfig
from mohge.config.targets import build
from mohge.errors import UserError
from mohge.metrics import RoutingCounts
from mohge.parallel.sizes import mesh_sizes
from mohge.training.run import train
from mohge.training.run_folder import RunFolder

UNWATCHED, COUNTED, BRIEF, DETAILED, PICTURES = "nothing", "counts", "brief", "detailed", "pictures"
_NAMES = (UNWATCHED, COUNTED, BRIEF, DETAILED)
NOTES = (
    "nothing: no callbacks, and routing is not counted; counts: no callbacks; brief, detailed: all callbacks "
    "of the configuration that speak at each record, in that tier, with the figures that they log",
    "times are of a step, mean over those of one record; a ratio is the median of the rounds' ratios",
    "pictures: drawing and handing them to the logger once; its ratio is to as many steps as lie between "
    "two of them, callbacks.routing.picture_every",
)
_WATCHING = ("throughput", "alarms")
_DRAWN = 5


def measure_callbacks(config: TrainConfig, bench: CallbacksBenchConfig) -> Measured:
    """Rows of each way to watch.

    Raises:
        UserError: the configuration has no routing callback, is dense, or trains on several ranks.
    """
    if mesh_sizes(config).world > 1:
        raise UserError("bench=callbacks watches one process: use parallel=single")
    if config.callbacks.routing is None:
        raise UserError("bench=callbacks measures the routing callback: use callbacks=default")
    if not config.experts.num_experts:
        raise UserError("bench=callbacks counts routing, and arch=dense has none: use arch=mohge or arch=moe")
    rounds = bench.warmup + bench.rounds
    with tempfile.TemporaryDirectory(prefix="mohge-bench-") as folder:
        shown = _training(config, rounds, folder)
        ways = Ways(shown, rounds)
        say(f"callbacks: {', '.join(_NAMES)}, {bench.rounds} rounds of {shown.trainer.log_every} steps")
        alarms = logging.getLogger("callbacks.alarms")
        level = alarms.level
        alarms.setLevel(logging.CRITICAL)  # ways that change look like stalls
        try:
            train(shown, RunFolder(folder), [], callbacks=[ways])
        finally:
            alarms.setLevel(level)
    seconds = {name: each[bench.warmup :] for name, each in ways.seconds.items()}
    step = statistics.median(seconds[UNWATCHED])
    between = config.callbacks.routing.picture_every * step

    def row(name: str, values: list[float], ratio: float) -> Row:
        return Row(
            bench="callbacks",
            shape=shape_name(config),
            dtype=config.trainer.precision,
            kernel=config.experts.kernel,
            part=name,
            against=UNWATCHED,
            ratio=ratio,
            unit="time, round by round",
            timing=Timing(values),
            threads=torch.get_num_threads(),
        )

    rows = [
        row(
            name,
            values,
            statistics.median(a / b for a, b in zip(values, seconds[UNWATCHED], strict=True)),
        )
        for name, values in seconds.items()
    ]
    rows.append(row(PICTURES, ways.pictures, statistics.median(ways.pictures) / between))
    return Measured(rows, list(NOTES))


def _training(config: TrainConfig, rounds: int, folder: str) -> TrainConfig:
    """The run to watch: long enough, and without what interrupts it."""
    steps = rounds * len(_NAMES) * config.trainer.log_every + 1
    trainer = dataclasses.replace(
        config.trainer,
        max_steps=steps,
        val_every=steps,
        val_sequences=config.data.batch_sequences,
        checkpoint_every=steps,
    )
    paths = dataclasses.replace(config.paths, run_dir=folder, output_dir=folder)
    logger = config.logger
    if logger.name == "mlflow":
        logger = dataclasses.replace(logger, tracking_uri=f"sqlite:///{folder}/mlflow.db")
    # Of the class of a run's configuration, without the keys of mohge-bench, so that pictures can read it.
    kept = {each.name: getattr(config, each.name) for each in dataclasses.fields(TrainConfig)}
    return TrainConfig(**kept | {"trainer": trainer, "paths": paths, "logger": logger})


class _Uncounted(RoutingCounts):
    """Counts nothing."""

    def add(self, decisions: Any) -> None:
        """Leave out the decisions."""


class Ways(Checkpoint):
    """Watches a training in one way after another, and takes the time of each.

    It is a Checkpoint only because Lightning calls those last: a turn ends when its last record is written.

    Args:
        config: of the training.
        rounds: in each of which every way has one turn of `trainer.log_every` steps, in a random order.

    Attributes:
        seconds: of a step, by way; one number for each round.
        pictures: seconds to draw and send all pictures once, several times.
    """

    def __init__(self, config: TrainConfig, rounds: int) -> None:
        self._steps = config.trainer.log_every
        order = random.Random(config.seed)
        self._turns = [name for _ in range(rounds) for name in order.sample(_NAMES, len(_NAMES))]
        self._callbacks: dict[str, list[pl.Callback]] = {UNWATCHED: [], COUNTED: []}
        routing = config.callbacks.routing
        assert routing is not None, "checked"
        others = [(name, getattr(config.callbacks, name)) for name in _WATCHING]
        for tier, cfg in (
            (BRIEF, dataclasses.replace(routing, tier="brief")),
            (DETAILED, dataclasses.replace(routing, tier="detailed")),
        ):
            self._callbacks[tier] = [
                build(f"callbacks.{name}", item.target, item, config)
                for name, item in [("routing", cfg), *others]
                if item is not None
            ]
        self.seconds: dict[str, list[float]] = {name: [] for name in _NAMES}
        self.pictures: list[float] = []
        self._now = UNWATCHED
        self._since = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start every way; each may set a profiler of its own."""
        self._counts = {False: pl_module.step_counts, True: _uncounted(pl_module.step_counts)}
        plain, self._profilers = trainer.profiler, {}
        for name in _NAMES:
            trainer.profiler = plain
            self._pass_to(name, "on_train_start", trainer, pl_module)
            self._profilers[name] = trainer.profiler
        trainer.profiler = plain

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Change the way, when its turn is over, before the first micro-batch of a step."""
        step, accumulate = trainer.global_step, pl_module.config.trainer.accumulate
        if step % self._steps == 0 and batch_idx % accumulate == 0:
            now = time.perf_counter()
            turn = step // self._steps
            if turn > 0:
                self.seconds[self._now].append((now - self._since) / self._steps)
            if turn < len(self._turns):
                self._now = self._turns[turn]
            trainer.profiler = self._profilers[self._now]
            pl_module.step_counts = self._counts[self._now == UNWATCHED]
            pl_module.step_counts.reset()
            self._since = now
        self._pass_on("on_train_batch_start", trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Watch."""
        self._pass_on("on_train_batch_end", trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Watch in detail, so that there is something to draw."""
        self._pass_to(DETAILED, "on_validation_start", trainer, pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Watch in detail, so that there is something to draw."""
        self._pass_to(DETAILED, "on_validation_end", trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw and send the pictures, then end every way."""
        routing, module_config = self._callbacks[DETAILED][0], pl_module.config
        due = SimpleNamespace(
            global_step=module_config.callbacks.routing.picture_every, loggers=trainer.loggers
        )
        for _ in range(_DRAWN):
            begun = time.perf_counter()
            routing.on_train_batch_start(due, pl_module, None, 0)  # type: ignore[arg-type]
            self.pictures.append(time.perf_counter() - begun)
        self._pass_to_all("on_train_end", trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let every way clean up."""
        self._pass_to_all("on_exception", trainer, pl_module, exception)

    def _pass_on(self, hook: str, *arguments: Any) -> None:
        self._pass_to(self._now, hook, *arguments)

    def _pass_to_all(self, hook: str, *arguments: Any) -> None:
        for name in _NAMES:
            self._pass_to(name, hook, *arguments)

    def _pass_to(self, name: str, hook: str, *arguments: Any) -> None:
        for callback in self._callbacks[name]:
            getattr(callback, hook)(*arguments)


def _uncounted(counts: RoutingCounts) -> _Uncounted:
    layers, groups = counts.group_LG.shape
    return _Uncounted(layers, groups, counts.expert_LE.shape[1] // groups, counts.expert_LE.device)
