"""A worker runs each cell that is free, in a process of its own, and notes how that went."""

from __future__ import annotations

import dataclasses
import io
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from fake_cells import cell, job, write_script

from mohge.sweep import worker
from mohge.sweep.attempts import CellFolder, claimed
from mohge.sweep.stopping import lifeline
from mohge.sweep.worker import Job, work

_FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _fake_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TRAIN", write_script(tmp_path))
    monkeypatch.setattr(worker, "_POLL", 0.01)
    monkeypatch.setattr(worker, "_WAIT", 0.05)


def files(folder: Path, name: str) -> CellFolder:
    return CellFolder(folder / "cells", name)


def ends(folder: Path, name: str) -> list[tuple[int | None, str | None]]:
    return [(a.status, a.reason) for a in files(folder, name).attempts() if a.event == "end"]


def starts(folder: Path, name: str) -> int:
    return sum(attempt.event == "start" for attempt in files(folder, name).attempts())


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_every_cell_is_run_once_and_never_again(tmp_path):
    cells = [cell("one"), cell("two")]
    assert work(job(tmp_path, *cells)) == 0
    assert work(job(tmp_path, *cells, invocation="second", retry=True)) == 0
    for name in ("one", "two"):
        assert files(tmp_path, name).look().state == "finished"
        assert ends(tmp_path, name) == [(0, None)]
        assert starts(tmp_path, name) == 1


def test_what_another_machine_has_finished_is_taken_as_done_once_its_folder_is_copied(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert work(job(there, cell("one"))) == 0
    shutil.copytree(there / "cells/one", here / "cells/one")
    assert work(job(here, cell("one"), cell("two"))) == 0
    assert (starts(here, "one"), starts(here, "two")) == (0, 1)
    assert (ends(here, "one"), ends(here, "two")) == ([(0, "finished elsewhere")], [(0, None)])
    assert files(here, "one").look().state == files(here, "two").look().state == "finished"


def test_a_cell_gets_its_overrides_a_folder_and_a_name_in_the_group_of_the_sweep(tmp_path):
    work(job(tmp_path, cell("one")))
    log = files(tmp_path, "one").log_path.read_text()
    called, told = log.partition("args ")[2].splitlines()[:2]
    assert told == "cell one"
    folder = tmp_path / "cells" / "one"
    assert called == (
        f"kind=finish paths.run_dir='{folder}' logger.group='{tmp_path}' logger.run_name='nano-one-seed1'"
    )


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("refuse", 1, "the lamp is out: light it"),
        ("break", 1, "KeyError: 'lamp'"),
        ("die", -signal.SIGKILL, "killed by SIGKILL, perhaps for lack of memory (dmesg tells)"),
    ],
)
def test_a_failure_is_noted_with_its_reason_and_others_go_on(tmp_path, kind, status, reason):
    assert work(job(tmp_path, cell("bad", kind), cell("good"))) == 0
    assert files(tmp_path, "bad").look().state == "failed"
    assert ends(tmp_path, "bad") == [(status, reason)]
    assert files(tmp_path, "good").look().state == "finished"


def test_what_failed_is_tried_again_when_asked_and_once_in_each_invocation(tmp_path):
    cells = [cell("bad", "refuse"), cell("once", "refuse_once")]
    work(job(tmp_path, *cells))
    work(job(tmp_path, *cells, invocation="second"))
    assert (starts(tmp_path, "bad"), starts(tmp_path, "once")) == (1, 1)
    work(job(tmp_path, *cells, invocation="third", retry=True))
    work(job(tmp_path, *cells, invocation="third", retry=True))  # another worker of the same command
    assert (starts(tmp_path, "bad"), starts(tmp_path, "once")) == (2, 2)
    assert files(tmp_path, "once").look().state == "finished"


def test_what_was_killed_is_tried_again_by_the_next_command(tmp_path):
    for invocation, expected in (("first", 1), ("first", 1), ("second", 2)):
        work(job(tmp_path, cell("dies", "die"), invocation=invocation))
        assert starts(tmp_path, "dies") == expected


@pytest.mark.parametrize("text", ["", '{"state": "fini'])
def test_a_damaged_status_fails_its_cell_alone_and_is_mended_when_asked(tmp_path, text):
    """As a power cut leaves it."""
    cells = [cell("hurt", "refuse_once"), cell("good")]
    work(job(tmp_path, cells[0]))
    run = files(tmp_path, "hurt").run
    (run.path / "status.json").write_text(text)
    assert work(job(tmp_path, *cells, invocation="second")) == 0
    assert (starts(tmp_path, "hurt"), files(tmp_path, "hurt").look().state) == (1, "failed")
    assert files(tmp_path, "good").look().state == "finished"

    assert work(job(tmp_path, *cells, invocation="third", retry=True)) == 0
    assert (starts(tmp_path, "hurt"), files(tmp_path, "hurt").look().state) == (2, "finished")
    assert f"args resume='{run.path}'" in files(tmp_path, "hurt").log_path.read_text()


def test_a_full_disk_ends_a_worker_with_a_sentence(tmp_path, monkeypatch, capsys):
    files(tmp_path, "one").run.path.parent.mkdir()
    files(tmp_path, "one").log_path.symlink_to("/dev/full")
    monkeypatch.setattr(sys, "stdin", io.StringIO(job(tmp_path, cell("one")).to_json()))
    with pytest.raises(SystemExit) as left:
        worker.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        f"error: a worker of {tmp_path} stopped: cannot write a file: No space left on device; free space "
        "or give another folder\n"
    )
    assert files(tmp_path, "one").look().state == "waiting"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_lets_its_cell_save_first(tmp_path, number):
    hangs = tmp_path / "cells" / "slow" / "hangs"
    process = _FORK.Process(target=_exit_with, args=(job(tmp_path, cell("slow", "hang"), cell("next")),))
    process.start()
    wait_for(hangs.exists)
    assert files(tmp_path, "slow").look().state == "running"
    os.kill(process.pid, number)
    process.join(20)
    assert process.exitcode == 128 + number
    assert files(tmp_path, "slow").run.read_status() == {"state": "interrupted", "step": 3}
    assert ends(tmp_path, "slow") == [(None, "interrupted")]
    assert files(tmp_path, "slow").look().state == "stopped"
    assert files(tmp_path, "next").look().state == "waiting"


def test_a_worker_stops_when_its_lifeline_is_cut(tmp_path):
    hangs, line = tmp_path / "cells" / "slow" / "hangs", tmp_path / "a.lifeline"
    status: list[int] = []
    with lifeline(line):
        process = _FORK.Process(
            target=_exit_with, args=(job(tmp_path, cell("slow", "hang"), line=line), line)
        )
        process.start()
        wait_for(hangs.exists)
        status.append(process.exitcode or 0)
    process.join(20)
    assert (status, process.exitcode) == ([0], 143)
    assert ends(tmp_path, "slow") == [(None, "interrupted")]


def test_a_second_signal_ends_a_cell_that_does_not_leave(tmp_path, monkeypatch):
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    deaf = f"import signal, time; {ignore}; print('deaf', flush=True); time.sleep(60)"
    monkeypatch.setattr(worker, "TRAIN", (sys.executable, "-c", deaf))
    process = _FORK.Process(target=_exit_with, args=(job(tmp_path, cell("deaf")),))
    process.start()
    log = files(tmp_path, "deaf").log_path
    wait_for(lambda: log.exists() and "\ndeaf" in log.read_text())
    for _ in range(2):
        os.kill(process.pid, signal.SIGTERM)
        time.sleep(0.1)
    process.join(20)
    assert process.exitcode == 143
    assert ends(tmp_path, "deaf") == [(None, "interrupted")]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process is not told of its parent's death")
def test_what_a_killed_worker_was_running_leaves_too_and_is_then_continued(tmp_path):
    hangs = tmp_path / "cells" / "slow" / "hangs"
    process = _FORK.Process(target=_exit_with, args=(job(tmp_path, cell("slow", "hang")),))
    process.start()
    wait_for(hangs.exists)
    process.kill()
    process.join()
    wait_for(lambda: files(tmp_path, "slow").look().state == "stopped")
    assert files(tmp_path, "slow").run.read_status() == {"state": "interrupted", "step": 3}
    (tmp_path / "cells" / "slow.kind").write_text("finish")
    assert work(job(tmp_path, cell("slow", "hang"))) == 0
    assert f"args resume='{tmp_path / 'cells' / 'slow'}'" in files(tmp_path, "slow").log_path.read_text()
    assert ends(tmp_path, "slow") == [(0, None)]


def test_a_cell_stays_taken_while_its_training_lives(tmp_path):
    """Even if the worker is dead and training does not hear of it."""
    hangs = tmp_path / "cells" / "slow" / "hangs"
    with claimed(files(tmp_path, "slow"), "first") as claim:
        process = worker.start(
            [*worker.TRAIN, "kind=hang", f"paths.run_dir={hangs.parent}"],
            (tmp_path / "log").open("wb"),
            claim.descriptor,
            "slow",
        )
        wait_for(hangs.exists)
    try:
        with claimed(files(tmp_path, "slow"), "second") as claim:
            assert claim is None
        assert files(tmp_path, "slow").look().state == "running"
    finally:
        process.terminate()
        process.wait()
    with claimed(files(tmp_path, "slow"), "second") as claim:
        assert claim is not None


def test_a_worker_waits_for_what_others_run_and_takes_it_over(tmp_path):
    taken = threading.Event()

    def hold() -> None:
        with claimed(files(tmp_path, "one"), "other"):
            taken.set()
            time.sleep(0.3)

    other = threading.Thread(target=hold)
    other.start()
    taken.wait()
    assert work(job(tmp_path, cell("one"))) == 0
    other.join()
    assert files(tmp_path, "one").look().state == "finished"


def test_two_workers_share_the_cells(tmp_path):
    cells = [cell(f"c{number}") for number in range(8)]
    workers = [_FORK.Process(target=_exit_with, args=(job(tmp_path, *cells),)) for _ in range(2)]
    for process in workers:
        process.start()
    for process in workers:
        process.join(30)
    assert [process.exitcode for process in workers] == [0, 0]
    assert [starts(tmp_path, one.id) for one in cells] == [1] * 8


def test_the_end_of_a_cell_whose_worker_was_killed_at_that_moment_is_noted_by_another(tmp_path):
    work(job(tmp_path, cell("one")))
    path = files(tmp_path, "one").attempts_path
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    for _ in range(2):
        work(job(tmp_path, cell("one")))
    assert starts(tmp_path, "one") == 1
    assert ends(tmp_path, "one") == [(0, "its worker was killed")]


def test_a_run_that_was_killed_before_it_had_written_its_facts_begins_anew(tmp_path):
    run = tmp_path / "cells" / "one"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    work(job(tmp_path, cell("one")))
    assert "args kind=finish" in files(tmp_path, "one").log_path.read_text()


def test_a_job_survives_its_way_to_another_process(tmp_path):
    sent = job(tmp_path, cell("one"), line=tmp_path / "x.lifeline", retry=True)
    assert Job.from_json(sent.to_json()) == sent


def test_nothing_is_left_running(tmp_path):
    work(job(tmp_path, cell("one"), cell("bad", "break")))
    assert [
        child for child in psutil.Process().children() if "fake_training" in " ".join(child.cmdline())
    ] == []


def _exit_with(given: Job, *unused: object) -> None:
    sys.exit(work(given))


def test_presets_of_ones_own_reach_each_run(tmp_path):
    own = dataclasses.replace(job(tmp_path, cell("a")), presets="/mine")
    arguments = worker._arguments(own, cell("a"), CellFolder(tmp_path, "a"))
    assert arguments[:3] == ["--config-dir", "/mine", "kind=finish"]


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="needs Linux's groups of sessions")
def test_a_run_in_its_own_session_is_as_nice_as_the_sweep(tmp_path):
    """Else `nice mohge-sweep` would leave the rest of the machine half of it, or less."""

    def niced() -> None:
        os.nice(5)
        with (tmp_path / "share").open("wb") as log:
            worker.start(["cat", "/proc/self/autogroup"], log, log.fileno(), "one").wait()

    child = _FORK.Process(target=niced)
    child.start()
    child.join()
    expected = min(os.getpriority(os.PRIO_PROCESS, 0) + 5, 19)  # of tests that are nice themselves
    assert (tmp_path / "share").read_text().endswith(f"nice {expected}\n")


class _Share:
    """A file that refuses writers in these ways, one after another."""

    def __init__(self, *refusals: OSError):
        self._refusals = list(refusals)
        self.tries = 0
        self.content = ""

    def write_text(self, text: str) -> None:
        self.tries += 1
        if self._refusals:
            raise self._refusals.pop(0)
        self.content = text


@pytest.mark.parametrize(
    ("refusals", "tries", "content"),
    [
        ([], 1, "5"),
        ([BlockingIOError()] * 2, 3, "5"),  # one of others than root who came just after another
        ([BlockingIOError()] * 1000, worker._SHARE_TRIES, ""),
        ([PermissionError()], 1, ""),
        ([FileNotFoundError()], 1, ""),
    ],
)
def test_a_run_begins_whatever_becomes_of_its_niceness(monkeypatch, refusals, tries, content):
    share = _Share(*refusals)
    monkeypatch.setattr(worker, "_SHARE", share)
    monkeypatch.setattr(worker, "_LIBC", None)
    monkeypatch.setattr(os, "getpriority", lambda which, who: 5)
    worker.follow(os.getppid())()
    assert (share.tries, share.content) == (tries, content)
