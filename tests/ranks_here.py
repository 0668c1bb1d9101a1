"""Functions run on several gloo ranks of this machine, and what they return."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_FORKS = multiprocessing.get_context("forkserver")
# Imported once, in the process that the ranks are forked from.
_FORKS.set_forkserver_preload(["mohge.training.run", "datamodules.text", "callbacks"])
_SECONDS = 120


def run_ranks(function: Callable[..., Any], ranks: int, *arguments: Any) -> list[Any]:
    """Call `function(*arguments)` on so many ranks at once; what each of them returned.

    Raises:
        AssertionError: with the traceback of the rank that failed first, or a rank does not end.
    """
    with tempfile.TemporaryDirectory() as folder:
        pairs = [_FORKS.Pipe(duplex=False) for _ in range(ranks)]
        processes = [
            _FORKS.Process(target=_rank, args=(index, ranks, folder, sender, function, arguments))
            for index, (_, sender) in enumerate(pairs)
        ]
        for process in processes:
            process.start()
        for _, sender in pairs:
            sender.close()
        try:
            _wait_for([receiver for receiver, _ in pairs])
            return [torch.load(Path(folder) / f"result-{index}") for index in range(ranks)]
        finally:
            for process in processes:
                process.kill()
                process.join()


def _wait_for(receivers: list[Connection]) -> None:
    waiting = dict(enumerate(receivers))
    deadline = time.monotonic() + _SECONDS
    while waiting:
        ready = wait(waiting.values(), timeout=max(0.0, deadline - time.monotonic()))
        assert ready, f"ranks hang: {list(waiting)}"
        for index in [index for index, receiver in waiting.items() if receiver in ready]:
            try:
                failure = waiting.pop(index).recv()
            except EOFError:
                failure = "died without a word"
            assert failure is None, f"rank {index}: {failure}"


def _rank(
    index: int, ranks: int, folder: str, sender: Connection, function: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(1)
    numbers = {"RANK": index, "WORLD_SIZE": ranks, "LOCAL_RANK": index, "LOCAL_WORLD_SIZE": ranks}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    try:
        store = f"file://{Path(folder) / 'store'}"
        timeout = timedelta(seconds=_SECONDS / 2)
        dist.init_process_group("gloo", init_method=store, rank=index, world_size=ranks, timeout=timeout)
        # By a file: tensors sent as such live in the memory of a process that will have ended.
        torch.save(function(*arguments), Path(folder) / f"result-{index}")
        sender.send(None)
    except BaseException:
        sender.send(traceback.format_exc())
    finally:
        os._exit(0)  # a rank whose peers are gone could wait for them forever
