"""Which part of a training step each operation belongs to.

Forward, hooks mark the range of each module. Backward, an operation belongs to the part whose forward
operation made its autograd node: both carry the same sequence number. What a part recomputes in the backward
pass is marked by the same hooks. On a CPU the times of all parts sum to that of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

import mohge.training.module
from mohge.bench.training_step import TrainingStep
from mohge.model.feed_forward import SwiGLU
from mohge.model.transformer import TransformerBlock
from mohge.moe.layer import MoELayer

_MARK = "mohge part: "
_NODE = "autograd::engine::evaluate_function: "
HEAD, RESIDUAL, ATTENTION, ROUTER = "head and loss", "norms and residual", "attention", "router"
EXPERTS, SHARED, EMBEDDING = "experts", "shared experts", "embedding"
AUXILIARY, CLIPPING, OPTIMIZER, OTHER = "auxiliary losses", "clipping", "optimizer", "autograd itself"


@dataclass
class PartTimes:
    """Seconds of a step by part."""

    forward: dict[str, float] = field(default_factory=dict)
    """In the forward pass; for clipping and optimizer, all of it."""
    backward: dict[str, float] = field(default_factory=dict)
    """In the backward pass."""

    @property
    def total(self) -> float:
        """Of the whole step."""
        return sum(self.forward.values()) + sum(self.backward.values())

    def of(self, part: str) -> float:
        """Forward and backward of one part."""
        return self.forward.get(part, 0.0) + self.backward.get(part, 0.0)

    def names(self) -> list[str]:
        """Of all parts, the longest first."""
        return sorted({*self.forward, *self.backward}, key=self.of, reverse=True)


def profile_step(step: TrainingStep, micro_batches: list[torch.Tensor], device: torch.device) -> PartTimes:
    """Make one step under the profiler, and sort its operations into parts.

    Args:
        step: to make.
        micro_batches: what it is called with.
        device: where it runs; on a GPU, times are those of its kernels.
    """
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with marked(step.module), profile(activities=activities) as profiler:
        for number, tokens_BS in enumerate(micro_batches):
            with record_function(_MARK + HEAD):
                loss = step.forward(tokens_BS, number)
            with record_function(_MARK + OTHER):
                loss.backward()
        with record_function(_MARK + CLIPPING):
            step.clip()
        with record_function(_MARK + OPTIMIZER):
            step.update()
    events: list[FunctionEvent] = list(profiler.events() or [])
    return _sort(events, on_gpu=device.type == "cuda")


@contextmanager
def marked(module: mohge.training.module.LanguageModule) -> Iterator[None]:
    """Mark the parts of a module's forward pass for the profiler, for as long as this lasts."""
    with ExitStack() as stack:
        for part, child in _modules(module.model):
            _mark_module(child, _MARK + part, stack)
        stack.enter_context(_marked_function(mohge.training.module, "auxiliary_losses", AUXILIARY))
        yield


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for child in model.modules():
        if isinstance(child, nn.Embedding):
            yield EMBEDDING, child
        elif isinstance(child, TransformerBlock):
            yield RESIDUAL, child
            yield RESIDUAL, child.attention_norm
            yield RESIDUAL, child.ffn_norm
            yield ATTENTION, child.attention
            yield (SHARED if isinstance(child.ffn, SwiGLU) else EXPERTS), child.ffn
        elif isinstance(child, MoELayer):
            yield ROUTER, child.router
            yield EXPERTS, child.experts
            if child.shared is not None:
                yield SHARED, child.shared
    yield RESIDUAL, model.get_submodule("final_norm")


def _mark_module(module: nn.Module, name: str, stack: ExitStack) -> None:
    entered: list[Any] = []

    def enter(*_: object) -> None:
        mark = record_function(name)
        mark.__enter__()
        entered.append(mark)

    def leave(*_: object) -> None:
        entered.pop().__exit__(None, None, None)

    stack.callback(module.register_forward_pre_hook(enter).remove)
    stack.callback(module.register_forward_hook(leave).remove)


@contextmanager
def _marked_function(owner: Any, name: str, part: str) -> Iterator[None]:
    """Mark what is no module: a function that `owner` calls by this name."""
    plain: Callable[..., Any] = getattr(owner, name)

    def with_mark(*arguments: Any, **keywords: Any) -> Any:
        with record_function(_MARK + part):
            return plain(*arguments, **keywords)

    setattr(owner, name, with_mark)
    try:
        yield
    finally:
        setattr(owner, name, plain)


def _sort(events: list[FunctionEvent], *, on_gpu: bool) -> PartTimes:
    times = PartTimes()
    sorter = _Sorter(events)
    for event in events:
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        part, backward = sorter.place(event)
        phase = times.backward if backward else times.forward
        phase[part] = phase.get(part, 0.0) + microseconds * 1e-6
    return times


class _Sorter:
    """Places events; each belongs where the nearest of its ancestors does that has a place."""

    def __init__(self, events: list[FunctionEvent]) -> None:
        self._places: dict[int, tuple[str, bool]] = {}
        in_time = sorted(events, key=lambda event: event.time_range.start)
        made_by: dict[int, str] = {}  # sequence number to the part of the operation that made the node
        for event in in_time:
            part, backward = self.place(event)
            if event.sequence_nr >= 0 and not backward:
                made_by[event.sequence_nr] = part  # of several the last: the others made no node
        self._places.clear()
        before = OTHER
        for event in in_time:
            if event.name.startswith(_NODE):
                # A node without number accumulates the gradient that the node before it has computed.
                before = made_by.get(event.sequence_nr, before)
                self._places[event.id] = (before, True)

    def place(self, event: FunctionEvent) -> tuple[str, bool]:
        """Part of an event, and whether it is of the backward pass."""
        found = self._places.get(event.id)
        if found is None:
            parent = event.cpu_parent
            above = (OTHER, event.name.startswith(_NODE)) if parent is None else self.place(parent)
            if event.name.startswith(_MARK):
                part = event.name.removeprefix(_MARK)
                found = (part, above[1] or part == OTHER)
            else:
                found = (above[0], above[1] or event.name.startswith(_NODE))
            self._places[event.id] = found
        return found
