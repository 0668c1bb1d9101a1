"""The console commands as a user runs them, or, where start-up would cost too much, forked."""

from __future__ import annotations

import functools
import importlib
import json
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
_MODULES = {"mohge-lm-eval": "evaluation.harness.command_line"}
"""Of commands that are not in mohge.apps."""


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    status: int
    """Exit status; minus the signal's number if one killed it."""
    stdout: str
    stderr: str
    cpu_seconds: float = 0.0
    imported: frozenset[str] = frozenset()
    """Modules, of a command that `run_light` ran."""


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


def run_light(
    name: str, arguments: Sequence[str], cwd: Path, environment: dict[str, str] | None = None
) -> Finished:
    """Run a command that ought to end before it imports anything heavy, as `run_command` but sooner.

    It is forked from a process that has imported what all commands begin with; that start-up counts as CPU
    seconds of each.
    """
    server = _light_server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        request = {
            "module": _module(name),
            "arguments": list(arguments),
            "cwd": str(cwd),
            "outputs": folder,
            "environment": environment or {},
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status, seconds = json.loads(server.stdout.readline())
        stdout, stderr = ((outputs / name).read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        imported = json.loads((outputs / "modules").read_text(encoding="utf-8"))
    return Finished(status, stdout, stderr, seconds, frozenset(imported))


@functools.cache
def _light_server() -> subprocess.Popen[str]:
    """Of this test process: it ends with its input."""
    # -P: this folder has packages of tests that are named as those tested.
    program = [sys.executable, "-P", Path(__file__).with_name("light_server.py")]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _module(command: str) -> str:
    return _MODULES.get(command, f"mohge.apps.{command.removeprefix('mohge-')}")


class Forked:
    """A command in a process forked from one that has imported everything: it starts at once."""

    def __init__(
        self, name: str, arguments: Sequence[str], cwd: Path, *, file_limit: int | None = None
    ) -> None:
        """As `run_command`; it runs until `wait`. The limit also counts for what the command prints."""
        self._outputs = Path(tempfile.mkdtemp(dir=cwd.parent, prefix="output-"))
        self._process = _FORKS.Process(
            target=_main, args=(_module(name), list(arguments), cwd, self._outputs, file_limit)
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
