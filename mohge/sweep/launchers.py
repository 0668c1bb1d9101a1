"""Who starts the workers of a sweep: this process, joblib, or SLURM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Protocol

from mohge.config.sweep_schema import SlurmConfig, SweepConfig
from mohge.errors import UserError, first_line
from mohge.sweep.worker import Job, work

_THREADS = "OMP_NUM_THREADS"


class Launched(Protocol):
    """Workers that have been started."""

    outlive: bool
    """Whether they go on when the command that started them ends."""

    @property
    def alive(self) -> bool:
        """Whether one of them still works."""
        ...

    def failed(self) -> list[str]:
        """Which of them, that have all ended, did so otherwise than with all done, and how; for people."""
        ...

    def place(self) -> str:
        """Where they are, for people."""
        ...


def launched(config: SweepConfig, job: Job) -> Launched:
    """Starts `config.workers` workers.

    Raises:
        UserError: the launcher cannot be had here.
    """
    if config.launcher == "slurm":
        return Submitted(config.slurm, job, config.workers)
    threads = _threads_of_each(config.workers)
    started = InJoblib if config.launcher == "joblib" else Local
    return started(job, config.workers, threads)


class Local:
    """Processes of this machine, which share its cores.

    Args:
        job: of each.
        workers: their number.
        threads: of each.
    """

    outlive = False

    def __init__(self, job: Job, workers: int, threads: int) -> None:
        self._processes = [_start_worker(job, threads) for _ in range(workers)]

    @property
    def alive(self) -> bool:
        """Whether one of them still works."""
        return any(process.poll() is None for process in self._processes)

    def failed(self) -> list[str]:
        """Which of them ended otherwise than with all done, and how."""
        ends = [(process.pid, process.poll()) for process in self._processes]
        return [f"worker {pid} ended with status {status}" for pid, status in ends if status]

    def place(self) -> str:
        """Where they are, for people."""
        return f"processes {', '.join(str(process.pid) for process in self._processes)}"


class InJoblib:
    """Workers that joblib starts: on this machine, or where `joblib.parallel_config` says.

    Args:
        job: of each.
        workers: their number.
        threads: of each.
    """

    outlive = False

    def __init__(self, job: Job, workers: int, threads: int) -> None:
        from joblib import Parallel, delayed

        # In a thread, so that the command goes on looking; each task starts a process, so that signals from
        # a terminal reach a worker only through the lifeline.
        tasks = [delayed(run_worker)(job, threads) for _ in range(workers)]
        self._statuses: list[int] = []

        def run_all() -> None:
            self._statuses += Parallel(n_jobs=workers)(tasks)

        self._thread = threading.Thread(target=run_all, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether one of them still works."""
        return self._thread.is_alive()

    def failed(self) -> list[str]:
        """Which of them ended otherwise than with all done, and how."""
        return [f"a worker of joblib ended with status {status}" for status in self._statuses if status]

    def place(self) -> str:
        """Where they are, for people."""
        return "workers of joblib"


class Submitted:
    """One array of jobs, which goes on when nobody looks.

    Args:
        settings: of each job.
        job: of each worker.
        workers: their number.
        cluster: kind of executor of submitit.

    Raises:
        UserError: submitit or SLURM is missing, or jobs would be told to save as soon as they begin.
    """

    outlive = True

    def __init__(self, settings: SlurmConfig, job: Job, workers: int, cluster: str = "slurm") -> None:
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise UserError("launcher=slurm needs SLURM, and there is no sbatch here: use launcher=local")
        if settings.notice >= 60 * settings.minutes:
            raise UserError(
                f"slurm.notice={settings.notice} seconds are all of slurm.minutes={settings.minutes}: "
                "give jobs more time, or less notice"
            )
        try:
            import submitit
        except ImportError as error:
            raise UserError(
                "launcher=slurm needs submitit: pip install 'mohge[slurm]', or use launcher=local"
            ) from error
        executor = submitit.AutoExecutor(folder=Path(job.folder) / "slurm", cluster=cluster)
        chosen = {"slurm_partition": settings.partition, "slurm_account": settings.account}
        executor.update_parameters(
            name="mohge-sweep",
            timeout_min=settings.minutes,
            cpus_per_task=settings.cpus,
            gpus_per_node=settings.gpus,
            mem_gb=settings.memory,
            # Since SLURM 22.05 srun does not take the number of cores from sbatch by itself.
            slurm_srun_args=[f"--cpus-per-task={settings.cpus}"],
            slurm_signal_delay_s=settings.notice,
            **{name: value for name, value in chosen.items() if value is not None},
        )
        with executor.batch():
            jobs: list[Any] = [executor.submit(work, job) for _ in range(workers)]
        self._jobs = jobs

    @property
    def alive(self) -> bool:
        """Whether one of them still works."""
        return not all(job.done() for job in self._jobs)

    def failed(self) -> list[str]:
        """Which of them ended otherwise than with all done, and how."""
        ends = [(job.job_id, job.exception()) for job in self._jobs]
        return [f"job {id} failed: {first_line(error)}" for id, error in ends if error is not None]

    def place(self) -> str:
        """Where they are, for people."""
        return f"jobs {', '.join(str(job.job_id) for job in self._jobs)}"


def run_worker(job: Job, threads: int) -> int:
    """Runs a worker in a process of its own to its end; returns its exit status."""
    process = _start_worker(job, threads)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # of a terminal: the command lets the worker save first
            continue


def _start_worker(job: Job, threads: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mohge.sweep.worker"],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in a terminal then reaches only the command
        env={_THREADS: str(threads)} | os.environ,
    )
    assert process.stdin is not None
    process.stdin.write(job.to_json())
    process.stdin.close()
    return process


def _threads_of_each(workers: int) -> int:
    from joblib import cpu_count  # knows bound cores and limits of containers, on every system

    return max(1, int(cpu_count()) // workers)
