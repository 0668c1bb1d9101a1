"""What a benchmark says while it runs."""

from __future__ import annotations

import sys


def say(sentence: str) -> None:
    """Print a line on stderr, so that stdout holds the result alone."""
    print(sentence, file=sys.stderr, flush=True)
