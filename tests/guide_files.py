"""The files that a document shows: a line that is a path in backquotes, and the block of code below it."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[1] / "docs" / "ADDING_A_ROUTER.md"
_FILE = re.compile(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def write_guide(folder: Path, document: Path = GUIDE) -> list[str]:
    """Write the files of a document, by default the guide to a new router, under a folder; their paths."""
    found = dict(_FILE.findall(document.read_text(encoding="utf-8")))
    for name, content in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return list(found)


def guide_commands() -> list[str]:
    """Those that the guide shows with a prompt, in order."""
    return re.findall(r"^    \$ (.+)$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
