"""Errors that tell a user what to do."""

from __future__ import annotations


class UserError(ValueError):
    """Wrong input: a config, file, checkpoint, corpus or disk that cannot serve.

    The message is one sentence that names the thing and the remedy. Commands print it without a
    traceback and exit with status 2.
    """


class RunError(RuntimeError):
    """A run that failed by itself, for instance through a non-finite loss. Commands exit with status 1."""
