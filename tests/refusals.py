"""What refusing wrong input looks like: one sentence, exit status 2, and nothing left behind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from commands import Finished, run_light

_HEAVY = {"torch", "lightning", "safetensors"}


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file with its content, and every folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def assert_refused(finished: Finished, fragments: Sequence[str]) -> None:
    """The command said one sentence, which holds the fragments, and left with exit status 2."""
    lines = finished.stderr.splitlines()
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
    finished = run_light(name, arguments, folder)
    assert_refused(finished, fragments)
    assert contents(folder) == before
    assert finished.cpu_seconds < 2
    assert finished.imported.isdisjoint(_HEAVY)
    return set(finished.imported)
