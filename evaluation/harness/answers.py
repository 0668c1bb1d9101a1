"""Answers that are kept: what was asked of a model is never computed twice.

One SQLite file of rows (key, JSON answer), where the key is a checksum of the model's weights, of its reading
(context, tokenizer) and of the request. Each batch is a transaction, so that a process may be killed at any
time. Values are JSON, since pickles of a file that somebody else may have written must not be read.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mohge.errors import UserError

_AT_ONCE = 500
"""Keys of one query; SQLite takes 999 in old versions."""
_WAIT = 60.0
"""Seconds to wait for another process that writes."""


class Answers:
    """Answers of one model.

    Args:
        path: of the file, which is made unless it is there; None keeps answers in memory alone.
        model: what else an answer depends on, such as a checksum of the weights.

    Raises:
        UserError: the file is damaged or is of another program, or the disk refuses.
    """

    def __init__(self, path: Path | None, model: str) -> None:
        self._path = path
        self._model = model
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path or ":memory:", timeout=_WAIT, isolation_level=None)
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
            )
        except (sqlite3.Error, OSError) as error:
            raise self._refusal(error) from error

    def key(self, kind: str, *request: Any) -> str:
        """The name of a request.

        Args:
            kind: of request.
            request: plain values.
        """
        return hashlib.sha256(json.dumps([self._model, kind, *request]).encode()).hexdigest()

    def find(self, keys: Sequence[str]) -> dict[str, Any]:
        """The answers that are there."""
        found = {}
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            try:
                rows = self._file.execute(f"SELECT key, answer FROM answers WHERE key IN ({marks})", some)
                found.update({key: json.loads(answer) for key, answer in rows})
            except (sqlite3.Error, ValueError) as error:
                raise self._refusal(error) from error
        return found

    def add(self, answers: Iterable[tuple[str, Any]]) -> None:
        """Keep answers by their keys, all or none of them."""
        rows = [(key, json.dumps(answer)) for key, answer in answers]
        try:
            self._file.execute("BEGIN IMMEDIATE")
            self._file.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
            self._file.execute("COMMIT")
        except sqlite3.Error as error:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise self._refusal(error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _refusal(self, error: Exception) -> UserError:
        return UserError(
            f"{self._path} cannot be used ({error}): free space if the disk is full, else delete the file, "
            "and all answers are computed again"
        )
