"""How ranks start and end together. Each test has a supervisor of its own, to signal and to outlive."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mohge.parallel.rank_process import End, _echo

HERE = Path(__file__).parent
RANKS = 3
# It must not have torch, and must not be a module that ranks import again.
PROGRAM = "import sys; import rank_targets; rank_targets.supervise(*sys.argv[1:])"


@dataclass(frozen=True)
class Ended:
    outcome: str
    stdout: str
    stderr: str


class Supervisor:
    """A process that launches ranks."""

    def __init__(self, folder: Path, target: str):
        self._output = folder / "stdout"
        # Short: sockets of multiprocessing are made in it, whose names have at most 107 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="t-"))
        places = {"PYTHONPATH": os.pathsep.join([str(HERE), str(folder)]), "TMPDIR": str(self.temporary)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, target, "argument", str(RANKS)],
            stdout=self._output.open("w"),
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | places | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def send_group(self, number: int) -> None:
        """As a terminal does on Ctrl-C: also to the server of forks."""
        os.killpg(self._process.pid, number)

    def wait_for(self, line: str, count: int = 1) -> None:
        deadline = time.monotonic() + 30
        while (said := self._output.read_text()).splitlines().count(line) < count:
            assert time.monotonic() < deadline, f"the ranks do not get to {line!r}, but to {said!r}"
            time.sleep(0.02)

    def end(self, seconds: float = 60) -> Ended:
        """Wait until all processes have ended: each has the pipe of stderr, which ends with the last."""
        _, stderr = self._process.communicate(timeout=seconds)
        stdout = self._output.read_text()
        outcomes = [line for line in stdout.splitlines() if line.startswith("outcome ")]
        return Ended("".join(outcomes).removeprefix("outcome "), stdout, stderr)

    def kill_everything(self) -> None:
        """So that a test that fails leaves nothing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate(timeout=30)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[[str], Supervisor]]:
    started = []

    def start(target: str) -> Supervisor:
        started.append(Supervisor(tmp_path, target if ":" in target else f"rank_targets:{target}"))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.kill_everything()
        assert not list(supervisor.temporary.glob("mohge-*"))
        shutil.rmtree(supervisor.temporary)


def test_every_rank_knows_which_it_is_and_has_a_session_of_its_own(supervise):
    ended = supervise("finish").end()
    assert ended.outcome == "finished"
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    said = {line for line in ended.stdout.splitlines() if line.startswith("rank")}
    assert said == {f"rank {rank} 3 {rank} 3 {loopback} True argument" for rank in range(RANKS)}
    assert ended.stderr == ""


@pytest.mark.parametrize(
    ("target", "outcome"),
    [
        ("refuse", "UserError 0 data.path is empty: give a folder"),
        ("fail", "RunError 0 rank 1: the loss is nan at step 3"),
        ("exit_silently", "LostRankError 0 rank 1 ended with exit status 3 without a word"),
    ],
)
def test_failures_that_need_no_traceback(supervise, target, outcome):
    ended = supervise(target).end()
    assert (ended.outcome, ended.stderr) == (outcome, "")


def test_an_exception_shows_its_traceback_once_and_ends_the_others(supervise):
    ended = supervise("crash").end()
    assert ended.outcome == "RunError 0 rank 1 failed: ValueError: first line"
    assert ended.stderr.startswith("rank 1:\nTraceback")
    assert ended.stderr.endswith("ValueError: first line\nsecond line\n")
    assert ended.stderr.count("Traceback") == 1


def test_a_target_that_does_not_exist_is_an_error(supervise):
    ended = supervise("nowhere:main").end()
    assert ended.outcome.startswith("RunError 0 rank ")
    assert ended.outcome.endswith(" failed: ModuleNotFoundError: No module named 'nowhere'")


def test_a_module_that_breaks_the_server_is_an_error(supervise, tmp_path):
    (tmp_path / "broken.py").write_text("raise OSError('no such device')")
    ended = supervise("broken:main").end()
    assert ended.outcome == "RunError 0 no rank can start: importing broken fails, see above"
    assert "no such device" in ended.stderr


def test_a_killed_rank_is_named_not_those_that_lost_it(supervise):
    ended = supervise("die_together").end()
    assert ended.outcome.startswith("LostRankError 0 rank 1 was killed by SIGKILL")
    assert "Traceback" not in ended.stderr


def test_a_rank_that_hangs_is_named_with_its_place(supervise):
    ended = supervise("hang").end()
    assert ended.outcome.startswith("LostRankError 0 rank 1 hangs: ")
    assert "rank_targets.py" in ended.outcome
    assert ended.outcome.endswith(" hang")
    assert "rank 2" not in ended.outcome + ended.stderr
    assert ended.stderr.endswith("    time.sleep(1000)\n")
    assert "Traceback" not in ended.stderr


def test_a_stopped_rank_is_named(supervise):
    ended = supervise("stop").end()
    assert ended.outcome.startswith("LostRankError 0 rank 1 hangs: ")
    if sys.platform == "linux":
        assert ended.outcome.endswith("it does not answer: it is stopped (state T)")


def test_a_rank_that_lost_one_that_had_finished_shows_where(supervise):
    ended = supervise("leave_early").end()
    assert ended.outcome.startswith("RunError 0 rank ")
    assert "failed: RuntimeError" in ended.outcome
    assert "    reduce()\n" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_ranks_which_save(supervise, number):
    supervisor = supervise("leave_on_signal")
    supervisor.wait_for("ready", RANKS)
    supervisor.send_group(number)
    ended = supervisor.end()
    assert ended.outcome == f"Interrupted {number} step 5 is saved"
    assert ended.stdout.splitlines().count("saved") == RANKS


def test_a_signal_outside_of_training_ends_the_ranks(supervise):
    supervisor = supervise("wait_for_signal")
    supervisor.wait_for("ready", RANKS)
    supervisor.send(signal.SIGTERM)
    assert supervisor.end().outcome == "Interrupted 15 SIGTERM received outside of training"


def test_a_second_interrupt_kills(supervise):
    supervisor = supervise("ignore_signals")
    supervisor.wait_for("ready", RANKS)
    supervisor.send(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        supervisor.end(0.5)
    supervisor.send(signal.SIGINT)
    assert supervisor.end().outcome == "Interrupted 2 interrupted twice: the newest steps are not saved"


def test_a_signal_while_ranks_start_is_heard(supervise, tmp_path):
    (tmp_path / "slow.py").write_text("import time; print('importing', flush=True); time.sleep(3)")
    supervisor = supervise("slow:main")
    supervisor.wait_for("importing")
    supervisor.send(signal.SIGINT)
    supervisor.wait_for("outcome Interrupted 2 SIGINT received before training began")
    assert "Traceback" not in supervisor.end().stderr


def test_nothing_outlives_a_killed_supervisor(supervise):
    supervisor = supervise("ignore_signals")
    supervisor.wait_for("ready", RANKS)
    supervisor.send(signal.SIGKILL)
    assert supervisor.end(10).outcome == ""


def test_it_launches_from_a_process_of_multiprocessing_and_from_a_thread(supervise):
    ended = supervise("launch_inside").end()
    assert ended.outcome == "finished"
    assert ended.stdout.count(" True nested") == 2
    assert "rank 0 1 0 1 eth7 True thread" in ended.stdout


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (RuntimeError("[..] Connection closed by peer [127.0.0.1]:1. GLHF!"), End.LOST_PEER),
        (RuntimeError("[..] Timed out waiting 4000ms for recv operation to complete"), End.WAITED),
        (RuntimeError("Timeout waiting for key: default_pg/0//x after 4000 ms"), End.WAITED),
        (RuntimeError("Wait timeout"), End.WAITED),
        (RuntimeError("[enforce fail at pair.cc] op.preamble.length <= op.nbytes. 16 vs 4"), None),
        (ConnectionResetError("Connection reset by peer"), None),
    ],
)
def test_only_errors_of_collectives_are_echoes(error, end):
    assert _echo(error) == end
