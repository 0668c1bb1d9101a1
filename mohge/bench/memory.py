"""Peak memory of a computation, counted and therefore the same in every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Most bytes of tensors that `run` held at once, above those held when it began.

    On the CPU every block that torch's allocator gives out or takes back is counted, temporary ones inside
    operators included; what a library such as oneDNN allocates for itself is not. Torch does not tell when a
    block is freed that was there before, so `run` should free none.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    return peak_of(allocations(profiler))


def step_peak_bytes(
    make_step: Callable[[], object], drop_gradients: Callable[[], None], device: torch.device
) -> int:
    """Most bytes that a training step holds at once, above weights and optimizer state.

    Args:
        make_step: makes one; the optimizer has its state already.
        drop_gradients: forgets those of the step before.
        device: where.
    """

    def two_steps() -> None:  # gradients of the first may be there in the second
        make_step()
        make_step()

    drop_gradients()
    return peak_bytes(two_steps, device)


def allocations(profiler: profile) -> list[tuple[int, int]]:
    """Every allocation on the CPU, in order of time.

    Args:
        profiler: one that ran with `profile_memory`.

    Returns:
        Pairs of the time in nanoseconds and the size in bytes, which is negative where a block was freed.
    """
    assert profiler.profiler is not None, "the profiler has run"
    results = profiler.profiler.kineto_results
    assert results is not None
    events: list[Any] = [event for event in results.events() if event.name() == "[memory]"]
    return [(event.start_ns(), event.nbytes()) for event in sorted(events, key=lambda e: e.start_ns())]


def peak_of(sizes: list[tuple[int, int]]) -> int:
    """Largest running sum of the sizes of `allocations`, at least 0."""
    held = peak = 0
    for _, size in sizes:
        held += size
        peak = max(peak, held)
    return peak
