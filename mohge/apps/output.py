"""How commands hand out results: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType

from mohge.files import write_text_atomically

FILE_WIDTH = 110
"""Characters of a line that goes to a pipe or a file."""


def emit(
    result: dict[str, Any],
    table: Callable[[], RenderableType],
    format: str,
    output: str | None,
) -> None:
    """Prints a result, and writes it to `output` as JSON when that is given.

    Args:
        result: the machine-readable result.
        table: makes the human-readable one.
        format: `json` prints one object and nothing else, `table` the table.
        output: path of a JSON file, or None.
    """
    text = json.dumps(result, indent=2)
    if output is not None:
        write_text_atomically(output, text + "\n")
    if format == "json":
        print(text)
    else:
        console = Console()
        # A pipe or a file has no width: the one that rich assumes would cut wide tables. What must stay on
        # one line, such as a path that is to be copied, may be longer.
        (console if console.is_terminal else Console(width=FILE_WIDTH)).print(table(), crop=False)
