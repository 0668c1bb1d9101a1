"""How commands hand out results: a table for people, one JSON object for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType

from mohge.files import write_text_atomically


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
        Console().print(table())
