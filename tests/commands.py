"""The console commands as a user runs them, or, where start-up would cost too much, forked."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
# What takes seconds to import is imported once, in the process that the forks come from.
_FORKS.set_forkserver_preload(["mohge.training.run", "datamodules.text", "callbacks"])


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    status: int
    """Exit status; minus the signal's number if one killed it."""
    stdout: str
    stderr: str
    cpu_seconds: float = 0.0


def run_command(
    name: str,
    arguments: Sequence[str],
    cwd: Path,
    *,
    file_limit: int | None = None,
    environment: dict[str, str] | None = None,
) -> Finished:
    """Run a console command of this environment.

    Args:
        name: of the console script.
        arguments: of the command line.
        cwd: folder to run it in.
        file_limit: largest file it may write, in bytes, as on a full disk.
        environment: variables to set.
    """

    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *arguments],
        cwd=cwd,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Finished(done.returncode, done.stdout, done.stderr, seconds)


class Forked:
    """A command in a process forked from one that has imported everything: it starts at once."""

    def __init__(
        self, name: str, arguments: Sequence[str], cwd: Path, *, file_limit: int | None = None
    ) -> None:
        """As `run_command`; it runs until `wait`. The limit also counts for what the command prints."""
        self._outputs = Path(tempfile.mkdtemp(dir=cwd.parent, prefix="output-"))
        module = f"mohge.apps.{name.removeprefix('mohge-')}"
        self._process = _FORKS.Process(
            target=_main, args=(module, list(arguments), cwd, self._outputs, file_limit)
        )
        self._process.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def kill(self, signal: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, signal)

    def wait(self) -> Finished:
        """Wait until it ends."""
        self._process.join(timeout=120)
        assert self._process.exitcode is not None, "the command hangs"
        stdout, stderr = ((self._outputs / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return Finished(self._process.exitcode, stdout, stderr)


def run_forked(name: str, arguments: Sequence[str], cwd: Path, *, file_limit: int | None = None) -> Finished:
    """Run a command, forked, to its end."""
    return Forked(name, arguments, cwd, file_limit=file_limit).wait()


def _main(module: str, arguments: list[str], cwd: Path, outputs: Path, file_limit: int | None) -> None:
    import torch  # here: most tests need none of it

    torch.set_num_threads(1)  # commands run side by side, and the models are tiny
    # As a shell starts it: a test that has launched ranks leaves the server of all forks with these blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    os.chdir(cwd)
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        with open(outputs / name, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()
