"""What every command shares: composing, validating, and turning failures into sentences and exit statuses.

Exit status: 0 done, 1 a failure of the run itself, 2 wrong input; 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mohge.config.load import explain_hydra, typed
from mohge.config.matching import matched
from mohge.config.schema import TrainConfig
from mohge.errors import Interrupted, RunError, UserError, disk_refusal
from mohge.parallel.ranks import this_rank

C = TypeVar("C", bound=TrainConfig)
T = TypeVar("T")

_FULL_ERROR = "HYDRA_FULL_ERROR"
_NO_BEST = "No trials are completed yet"
"""What Optuna says where every run of a search has failed."""
_PAGE = 110
"""Characters of a line of --help."""


def run_app(config_name: str, schema: type[C], run: Callable[[C, list[str]], float | None]) -> None:
    """Composes `conf/<config_name>.yaml` with the command line, validates it, and calls `run`.

    Args:
        config_name: primary configuration.
        schema: its class.
        run: the program; it gets the typed configuration and the command line's overrides, and returns what
            a sweeper that searches is to minimise, if there is such a thing.
    """
    user_setting = os.environ.get(_FULL_ERROR)

    def guarded(action: Callable[[], T]) -> T:
        try:
            return action()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception as error:
            if user_setting == "1":
                traceback.print_exc()
            sys.exit(_report(error, schema))
        except KeyboardInterrupt:
            sys.exit(_say("interrupted", 128 + signal.SIGINT))

    statuses: list[int] = []  # exit statuses of the runs of a multirun

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)
    def task(config: DictConfig) -> float | None:
        # Guarded here too: an exception that crosses Hydra gets a second report from it, an exit does not.
        try:
            result = guarded(
                lambda: run(matched(typed(schema, config)), list(HydraConfig.get().overrides.task))
            )
        except SystemExit as error:
            status = int(error.code or 0)
            if HydraConfig.get().mode != RunMode.MULTIRUN or status >= 128:
                raise
            statuses.append(status)  # the other runs go on
            return None
        statuses.append(0)
        return result

    def all_runs() -> None:
        try:
            task()
        except ValueError as error:
            if not statuses or min(statuses) == 0 or _NO_BEST not in str(error):
                raise
            # Each run has told why it failed: that a search has no best one then is no further news.

    os.environ[_FULL_ERROR] = "1"  # Hydra then raises instead of printing its own report
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            guarded(lambda: _print_folded(all_runs))
            return
        guarded(all_runs)
        if any(statuses):
            sys.exit(max(statuses))
    finally:
        if user_setting is None:
            del os.environ[_FULL_ERROR]
        else:
            os.environ[_FULL_ERROR] = user_setting


def _print_folded(action: Callable[[], None]) -> None:
    """Prints what an action prints, in lines of a page: Hydra lists the choices of a group in one."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            action()
    finally:  # Hydra exits after its help
        for line in printed.getvalue().splitlines():
            print(line if len(line) <= _PAGE else textwrap.fill(line, _PAGE, subsequent_indent="    "))


def _report(error: Exception, schema: type) -> int:
    """Prints one sentence for an expected failure, a traceback for others, and returns the exit status."""
    if isinstance(error, UserError):
        return _say(str(error), 2)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _say(explain_hydra(error, schema), 2)
    if (refusal := disk_refusal(error)) is not None:
        return _say(str(refusal), 2)
    if isinstance(error, Interrupted):
        return _say(str(error), 128 + error.signal)
    if isinstance(error, RunError):
        return _say(str(error), 1)
    if type(error) is ValueError and _raised_by_hydra(error):
        return _say(str(error), 2)
    traceback.print_exception(error)
    return 1


def _raised_by_hydra(error: Exception) -> bool:
    """Whether Hydra's own code raised: it uses bare ValueErrors for some malformed overrides."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).startswith("hydra.")


def _say(sentence: str, status: int) -> int:
    sentence = " ".join(sentence.split())  # one line, also when it quotes a library's message
    if status < 128:
        sentence = f"error: {sentence}"
    rank = this_rank()
    print(sentence if rank.is_first else f"rank {rank.index}: {sentence}", file=sys.stderr)
    return status
