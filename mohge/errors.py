"""Errors that tell a user what to do."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong input: a config, file, checkpoint, corpus or disk that cannot serve.

    The message is one sentence that names the thing and the remedy. Commands print it without a
    traceback and exit with status 2.
    """


class RunError(RuntimeError):
    """A run that failed by itself, for instance through a non-finite loss. Commands exit with status 1."""


class Interrupted(Exception):  # noqa: N818  (it is not an error: the run saved its state and left)
    """A run that was asked to stop by a signal, and has saved its state."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or repr(error)).splitlines()[0]
