"""Errors that tell a user what to do."""

from __future__ import annotations

import errno


class UserError(ValueError):
    """Wrong input: a config, file, checkpoint, corpus or disk that cannot serve.

    The message is one sentence that names the thing and the remedy. Commands print it without a
    traceback and exit with status 2.
    """


class RunError(RuntimeError):
    """A run that failed by itself, for instance through a non-finite loss. Commands exit with status 1."""


class NonFiniteError(RunError):
    """A loss or a norm of the gradient that is infinite or not a number."""


class LostRankError(RunError):
    """A rank of a run died or hangs; the others were stopped, and the run can go on from its checkpoint."""


class Interrupted(Exception):  # noqa: N818  (it is not an error: the run saved its state and left)
    """A run that was asked to stop by a signal, and has saved its state."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal

    def __reduce__(self) -> tuple[type[Interrupted], tuple[str, int]]:
        """So that it can be sent to another rank: it would be made anew of its message alone."""
        return type(self), (str(self), self.signal)


_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EFBIG,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
)


def disk_refusal(error: Exception) -> UserError | None:
    """What to tell a user whose disk is full or closed to the program; None if the error is another."""
    no_temporary = isinstance(error, FileNotFoundError) and "temporary directory" in str(error)
    if not isinstance(error, OSError) or not (error.errno in _DISK_ERRORS or no_temporary):
        return None
    where = error.filename or "a file"
    return UserError(f"cannot write {where}: {error.strerror}; free space or give another folder")


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or repr(error)).splitlines()[0]
