"""A stream that continues where an interrupted process left it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from datamodules.files import write_text

_ROWS_PER_STATE = 1000


class ResumableStream(Protocol):
    """What `datasets.IterableDataset` offers."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows from the current state on."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position behind the last row given."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a position."""


class Journal:
    """Keeps what was read of a stream in a folder, with the stream's position, until all of it is.

        rows.jsonl    one JSON value per row
        state.json    how much of rows.jsonl counts, and the stream's position behind it

    The caller holds a lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows, self._state = folder / "rows.jsonl", folder / "state.json"

    def read(self, stream: ResumableStream, parse: Callable[[dict[str, Any], int], Any]) -> Iterator[Any]:
        """`parse(row, number)` of every row, those of an earlier try from the folder.

        `parse` returns a JSON-able value.
        """
        number = 0
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._state.exists():
            state = json.loads(self._state.read_text("utf-8"))
            os.truncate(self._rows, state["bytes"])
            with self._rows.open(encoding="ascii") as kept:
                for line in kept:
                    yield json.loads(line)
                    number += 1
            stream.load_state_dict(state["stream"])
        else:
            self._rows.unlink(missing_ok=True)
        with self._rows.open("ab") as rows:
            for row in stream:
                value = parse(row, number)
                number += 1
                rows.write(json.dumps(value).encode() + b"\n")
                if number % _ROWS_PER_STATE == 0:
                    rows.flush()
                    os.fsync(rows.fileno())
                    content = {"bytes": rows.tell(), "stream": stream.state_dict()}
                    write_text(self._state, json.dumps(content))
                yield value

    def remove(self) -> None:
        """Forget the stream, once all of it is safe elsewhere or no more of it is wanted."""
        shutil.rmtree(self._folder, ignore_errors=True)
