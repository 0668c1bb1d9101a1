"""What refusing wrong input looks like: one sentence, exit status 2, and nothing left behind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from commands import Finished, run_command

_HEAVY = {"torch", "lightning", "safetensors"}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def assert_refused(finished: Finished, fragments: Sequence[str]) -> None:
    """The command said one sentence, which holds the fragments, and left with exit status 2."""
    lines = [line for line in finished.stderr.splitlines() if not line.startswith("import time:")]
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("error: ")
    for fragment in fragments:
        assert fragment in lines[0]
    assert "Traceback" not in finished.stdout
    assert finished.status == 2


def assert_refused_at_once(
    name: str, arguments: Sequence[str], folder: Path, fragments: Sequence[str]
) -> set[str]:
    """As `assert_refused`, in 2 seconds of CPU, with nothing heavy imported and nothing in `folder` changed.

    Returns:
        The modules that the command imported.
    """
    before = contents(folder)
    finished = run_command(name, arguments, folder, environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert_refused(finished, fragments)
    assert contents(folder) == before
    assert finished.cpu_seconds < 2
    imported = set(re.findall(r"\| +([\w.]+)$", finished.stderr, flags=re.MULTILINE))
    assert imported.isdisjoint(_HEAVY)
    return imported
