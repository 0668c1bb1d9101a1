"""What ranks do in the tests of the launcher. Only those that need torch import it: it takes seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from mohge.errors import Interrupted, RunError, UserError


def say(*words: Any) -> None:
    """One line in one write: ranks share the file, and an unbuffered print writes the end of a line apart."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()  # a rank that is about to be killed must have written it


def is_rank(index: int) -> bool:
    return os.environ["RANK"] == str(index)


def finish(argument: Any) -> None:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GLOO_SOCKET_IFNAME")
    say("rank", *(os.environ[name] for name in names), os.getsid(0) == os.getpid(), argument)


def refuse(argument: Any) -> None:
    raise UserError("data.path is empty: give a folder")


def fail(argument: Any) -> None:
    if is_rank(1):
        raise RunError("the loss is nan at step 3")


def crash(argument: Any) -> None:
    """Rank 1 fails while a thread of it never ends; the others run on, whatever they are told."""
    start_child()
    if is_rank(1):
        threading.Thread(target=time.sleep, args=(1000,)).start()
        raise ValueError("first line\nsecond line")
    ignore_signals(argument)


def exit_silently(argument: Any) -> None:
    start_child()
    if is_rank(1):
        os._exit(3)
    time.sleep(1000)


def start_child() -> None:
    subprocess.Popen(["sleep", "1000"])


def die_together(argument: Any) -> None:
    """Rank 1 is killed while the others wait for it."""
    connect(60)
    if is_rank(1):
        os.kill(os.getpid(), signal.SIGKILL)
    reduce()


def hang(argument: Any) -> None:
    """Rank 1 sleeps while the others wait for it: rank 2 longer, in a group that rank 0 is not in."""
    import torch.distributed as dist

    connect(2)
    group = dist.new_group([1, 2], timeout=timedelta(seconds=60))
    if is_rank(1):
        time.sleep(1000)
    reduce(group if is_rank(2) else None)


def stop(argument: Any) -> None:
    """Rank 1 is stopped while the others wait for it."""
    connect(2)
    if is_rank(1):
        os.kill(os.getpid(), signal.SIGSTOP)
    reduce()


def leave_early(argument: Any) -> None:
    """Rank 1 finishes while the others still need it."""
    connect(60)
    if not is_rank(1):
        reduce()


def leave_on_signal(argument: Any) -> None:
    """As training does: notices the signal between steps, and saves."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: received.append(number))
    say("ready")
    while not received:
        time.sleep(0.05)
    say("saved")
    raise Interrupted("step 5 is saved", received[0])


def ignore_signals(argument: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    say("ready")
    time.sleep(1000)


def wait_for_signal(argument: Any) -> None:
    say("ready")
    time.sleep(1000)


def launch_inside(argument: Any) -> None:
    """Launches from a process that multiprocessing has started, and from a thread of it."""
    from mohge.parallel.launch import launch

    if is_rank(0):
        launch("rank_targets:finish", "nested", 2)
        os.environ["GLOO_SOCKET_IFNAME"] = "eth7"  # the second launch finds a server that does not know it
        thread = threading.Thread(target=launch, args=("rank_targets:finish", "thread", 1))
        thread.start()
        thread.join()


def connect(seconds: float) -> None:
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=os.environ["MOHGE_RENDEZVOUS"],
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=timedelta(seconds=60),
    )
    dist.barrier()  # importing takes each its time
    for group in dist.distributed_c10d._world.pg_map:
        dist.distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


def reduce(group: Any = None) -> None:
    import torch
    import torch.distributed as dist

    dist.all_reduce(torch.ones(1000), group=group)


def supervise(target: str, argument: str, ranks: str) -> None:
    """What the supervising process of a test does: it says how the launch ended."""
    from mohge.parallel import launch

    say("launching")
    launch._GRACE = launch._LEAVING = 1.0  # tests wait for them
    try:
        launch.launch(target, argument, int(ranks))
        say("outcome", "finished")
    except (UserError, RunError, Interrupted) as error:
        say("outcome", type(error).__name__, getattr(error, "signal", 0), error)
    assert "torch" not in sys.modules
    for number in (signal.SIGTERM, signal.SIGINT):
        assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    assert not list(Path(os.environ["TMPDIR"]).glob("mohge-*"))
