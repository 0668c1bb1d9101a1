"""Which part of a training step time goes to."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from lightning.pytorch.profilers import Profiler

PARTS = ("data", "forward", "backward", "optimizer", "communication", "logging", "other")
_LEFT_OUT = "left out"


class StepClock:
    """Charges every moment to the part entered last and not yet left, and so to one part alone.

    What is outside of all parts is "other". Pauses, and all within a part named `left out`, count nowhere.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """The clock to read, in seconds."""
        self._clock = clock
        self._entered = ["other"]
        self._paused = False
        self._reset()
        self._since = clock()

    def enter(self, part: str) -> None:
        """What follows belongs to `part`."""
        self._charge()
        entered = self._entered
        entered.append(part if entered[-1] is not _LEFT_OUT else _LEFT_OUT)

    def leave(self) -> None:
        """The part entered last is over: what follows belongs to the one around it."""
        self._charge()
        self._entered.pop()

    def pause(self) -> None:
        """What follows is no part of a step."""
        self._charge()
        self._paused = True

    def resume(self) -> None:
        """Steps go on."""
        self._charge()
        self._paused = False

    def take_shares(self) -> dict[str, float]:
        """Share of each part in all the time since the last call, or since the clock began; they sum to 1."""
        self._charge()
        seconds = {part: self._seconds[part] for part in PARTS}
        total = sum(seconds.values())
        assert total > 0, "steps take time"
        self._reset()
        return {part: spent / total for part, spent in seconds.items()}

    def _charge(self) -> None:
        now = self._clock()
        self._seconds[_LEFT_OUT if self._paused else self._entered[-1]] += now - self._since
        self._since = now

    def _reset(self) -> None:
        self._seconds = dict.fromkeys((*PARTS, _LEFT_OUT), 0.0)


class StepProfiler(Profiler):
    """Tells a StepClock what Lightning does: to its profiler it names each hook, fetch and save."""

    def __init__(self, clock: StepClock) -> None:
        super().__init__()
        self._clock = clock

    def start(self, action_name: str) -> None:
        """Lightning begins something."""
        part = _part_of(action_name)
        if part is not None:
            self._clock.enter(part)

    def stop(self, action_name: str) -> None:
        """Lightning has ended it."""
        if _part_of(action_name) is not None:
            self._clock.leave()


@functools.cache
def _part_of(action: str) -> str | None:
    """The part that one of Lightning's actions is; None for one that belongs to what is around it.

    They look like [Callback]RecordWriter.on_train_batch_start or [_TrainingEpochLoop].train_dataloader_next.
    The module's optimizer_step contains forward and backward pass, which are parts of their own.
    """
    if action == "save_checkpoint":
        return _LEFT_OUT
    if action.startswith("[Callback]"):
        return "logging"
    owner, _, hook = action.rpartition(".")
    if owner.startswith("[LightningModule]"):
        return "optimizer" if hook == "optimizer_step" else None
    hooks = {"train_dataloader_next": "data", "batch_to_device": "data"}
    return (hooks | {"training_step": "forward", "backward": "backward"}).get(hook)
