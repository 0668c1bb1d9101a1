"""Ranks that meet: one process group for all, and the few exchanges of plain values that training needs.

Every function here is collective and a no-op in a process that is alone: all ranks call it in the same order.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mohge.parallel.ranks import Rank

T = TypeVar("T")

RENDEZVOUS = "MOHGE_RENDEZVOUS"
"""Variable in which our own launcher names the file where its ranks meet."""
_UNTIL_TRAINING = timedelta(hours=1)
"""How long ranks wait for each other before training: one of them may be preparing a corpus."""


def is_connected() -> bool:
    """Whether this process is one of several."""
    return dist.is_available() and dist.is_initialized()


def connect(rank: Rank, device_type: str) -> None:
    """Joins the process group of all ranks: gloo for tensors on a CPU, NCCL for those on a GPU.

    Ranks meet at the file that our launcher names, or as torchrun and SLURM say, at MASTER_ADDR.

    Args:
        rank: this process.
        device_type: "cpu" or "cuda"; on GPUs, each rank of a machine takes one.
    """
    cuda = device_type == "cuda"
    device = torch.device("cuda", rank.local_index) if cuda else None
    if cuda:
        torch.cuda.set_device(device)
    if RENDEZVOUS not in os.environ and "MASTER_ADDR" not in os.environ:
        # srun names nodes and job: the first node, and a port that follows from the job.
        from lightning.fabric.plugins.environments import SLURMEnvironment

        nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "127.0.0.1")
        os.environ["MASTER_ADDR"] = SLURMEnvironment.resolve_root_node_address(nodes)
        port = 15000 + int(os.environ.get("SLURM_JOB_ID", "0")[-4:])
        os.environ.setdefault("MASTER_PORT", str(port))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=os.environ.get(RENDEZVOUS, "env://"),
        rank=rank.index,
        world_size=rank.world,
        timeout=_UNTIL_TRAINING,
        device_id=device,
    )


def disconnect() -> None:
    """Leaves the process group; what other ranks are waiting for will not come."""
    if is_connected():
        dist.destroy_process_group()


def wait_at_most(seconds: float) -> None:
    """From now on, a rank that waits so long for another calls it lost: its operation raises."""
    if not is_connected():
        return
    # New groups, those of a mesh among them, do not inherit the timeout of the first.
    for group in dist.distributed_c10d._world.pg_map:
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


def barrier() -> None:
    """Waits until every rank is here."""
    maximum_over_ranks(0)  # on the CPU, whatever the device: no queue of kernels is waited for


def first(action: Callable[[], T]) -> T:
    """What rank 0 gets from `action`, on every rank; the others do not call it.

    Raises:
        Exception: what `action` raised, on every rank.
    """
    if not is_connected():
        return action()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome = [action(), None]
        except Exception as error:
            outcome = [None, _portable(error)]
    dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    value, failure = outcome
    if failure is not None:
        raise failure
    result: T = value
    return result


def local_first(rank: Rank, action: Callable[[], T]) -> T:
    """What each rank gets from `action`, the first of each machine before the others there."""
    if rank.local_index == 0:
        result = action()
        barrier()
    else:
        barrier()
        result = action()
    return result


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order, on each."""
    if not is_connected():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def add_over_ranks(tensor: Tensor) -> None:
    """Replaces a tensor by its sum over all ranks, in place."""
    if is_connected():
        dist.all_reduce(tensor)


def maximum_over_ranks(value: int) -> int:
    """The largest of the ranks' values."""
    if not is_connected():
        return value
    tensor = torch.tensor([value])
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor)


def _portable(error: Exception) -> Exception:
    """The error, if it survives the way to another process; else one with its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
