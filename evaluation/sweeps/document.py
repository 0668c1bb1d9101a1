"""The parts of a Markdown file that a sweep gives: tables and sentences between markers, and linked figures.

    <!-- table: arms | moe, mohge -->
    …
    <!-- end -->

`blocks` has the names. A link to FOLDER/NAME.svg, with FOLDER named after the document, is a figure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mohge.errors import UserError

Maker = Callable[[str, str, list[str]], str]
"""Kind (table or sentence), name and arguments of a block to its text."""

_BLOCK = re.compile(
    r"^<!-- (?P<kind>table|sentence): (?P<name>\w+)(?: \| (?P<given>.+?))? -->\n(?P<text>.*?)^<!-- end -->$",
    flags=re.MULTILINE | re.DOTALL,
)
_OPENING = re.compile(r"^<!-- (?:table|sentence):", flags=re.MULTILINE)


def read_document(path: Path) -> str:
    """The text of a document with markers.

    Raises:
        UserError: it is missing, or a marker in it has no end.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"document={path} cannot be read: give a Markdown file") from error
    blocks = list(_BLOCK.finditer(text))
    if len(blocks) != len(_OPENING.findall(text)) or any(_OPENING.search(one["text"]) for one in blocks):
        raise UserError(f"{path} has a marker <!-- table: … --> that is malformed or lacks its <!-- end -->")
    if not blocks and not figures_of(path, text):
        raise UserError(f"{path} has no marked table: write <!-- table: arms --> and <!-- end --> into it")
    return text


def renewed(path: Path, text: str, make: Maker) -> tuple[str, list[str]]:
    """The document with every block made anew, and which blocks have changed.

    Args:
        path: of the document, for messages.
        text: of it.
        make: gives a block its text.

    Raises:
        UserError: a block has an unknown name or argument.
    """
    changed = []

    def one(found: re.Match[str]) -> str:
        given = [item.strip() for item in (found["given"] or "").split(",") if item.strip()]
        title = f"{found['kind']} {found['name']}" + (f" | {found['given']}" if found["given"] else "")
        try:
            made = make(found["kind"], found["name"], given)
        except UserError as error:
            raise UserError(f"{path}, {title}: {error}") from error
        body = f"\n{made.strip()}\n\n"
        if body != found["text"]:
            changed.append(title)
        opening = found.group().partition("\n")[0]
        return f"{opening}\n{body}<!-- end -->"

    return _BLOCK.sub(one, text), changed


def figures_folder(path: Path) -> Path:
    """Folder of a document's figures: docs/results/ of docs/RESULTS.md."""
    return path.parent / path.stem.lower()


def figures_of(path: Path, text: str) -> list[str]:
    """Names of the figures that a document links to."""
    folder = re.escape(figures_folder(path).name)
    return list(dict.fromkeys(re.findall(rf"\]\({folder}/([\w.-]+)\.svg\)", text)))


def check_figures(path: Path, wanted: Sequence[str], known: Sequence[str]) -> None:
    """Sees to it that all figures of a document can be made.

    Raises:
        UserError: one cannot.
    """
    for name in wanted:
        if name not in known:
            raise UserError(f"{path} links to the figure {name}, which is none of {', '.join(known)}")
