"""How fast this machine multiplies matrices, and how much memory this process has needed."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence

import torch

_SIDES = {"cpu": (256, 512, 1024), "cuda": (2048, 4096, 8192)}
_REPEATS = 4
_LEAST = 3  # products that a size must have time for


def matmul_peak(dtypes: Sequence[torch.dtype], device: torch.device, seconds: float = 0.2) -> float:
    """FLOP/s of the fastest product of two square matrices, with the threads that this process has.

    The random state of training is left alone.

    Args:
        dtypes: of the matrices: those that training may compute in.
        device: where.
        seconds: that all may take, about; a size that would take longer is not tried.
    """
    return max(_fastest_product(dtype, device, seconds / len(dtypes)) for dtype in dtypes)


def _fastest_product(dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    start, best = time.perf_counter(), 0.0
    generator = torch.Generator(device).manual_seed(0)
    for side in _SIDES[device.type]:
        flops = 2 * side**3
        if best and time.perf_counter() - start + _LEAST * flops / best > seconds:
            break
        a, b = (torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2))
        out = torch.mm(a, b)  # the first of a size sets up what the others use
        for _ in range(_REPEATS):
            _wait(device)
            began = time.perf_counter()
            torch.mm(a, b, out=out)
            _wait(device)
            ended = time.perf_counter()
            best = max(best, flops / (ended - began))
            if ended - start > seconds:
                break
    return best


def peak_bytes(device: torch.device) -> int:
    """Most memory so far: on a GPU, of tensors that lived at once; else resident, of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
