"""What ranks do to show that they meet."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mohge.errors import Interrupted, UserError
from mohge.parallel.ranks import this_rank
from mohge.parallel.world import (
    add_over_ranks,
    barrier,
    first,
    gather,
    local_first,
    maximum_over_ranks,
    wait_at_most,
)


class NotPortableError(Exception):
    """Cannot be unpickled: it wants two arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


def meet(folder: Path) -> dict[str, Any]:
    rank = dist.get_rank()
    calls = []

    def tell() -> str:
        calls.append(rank)
        return f"from rank {rank}"

    def refuse() -> None:
        raise UserError("the disk is full: free space")

    def fail() -> None:
        raise NotPortableError("a reason", "of its own")

    def leave() -> None:
        raise Interrupted("SIGINT received", 2)

    result: dict[str, Any] = {"first": first(tell), "calls": calls}
    for name, action in (("refused", refuse), ("failed", fail), ("left", leave)):
        try:
            first(action)
        except Exception as error:
            result[name] = f"{type(error).__name__}: {error}"
            result[f"{name} by"] = getattr(error, "signal", None)
    tensor = torch.tensor([rank, 10 * rank])
    add_over_ranks(tensor)
    result |= {"sum": tensor.tolist(), "maximum": maximum_over_ranks(7 - rank), "gathered": gather(rank * 2)}

    def make() -> bool:
        there = (folder / "made").exists()
        (folder / "made").touch()
        return there

    result["was_there"] = local_first(this_rank(), make)
    return result


def wait_in_vain() -> float:
    """Seconds until a rank gives up on one that does not come."""
    group = dist.new_group([0, 1])
    wait_at_most(1)
    barrier()
    began = time.monotonic()
    if dist.get_rank() == 1:
        time.sleep(6)
        return 0.0
    try:
        dist.barrier(group)
    except RuntimeError:
        return time.monotonic() - began
    raise AssertionError("it came")
