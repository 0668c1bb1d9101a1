"""Links of the documents, the README and the notebooks lead somewhere, in the repository as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from links import is_outside, is_well_formed
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def markdown(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def tokens(text: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(text)


def links(text: str) -> Iterator[str]:
    for token in tokens(text):
        for part in token.children or ():
            target = part.attrs.get("href") or part.attrs.get("src")
            if target:
                yield str(target)


@cache
def anchors(path: Path) -> set[str]:
    """Names that GitHub gives to the headings."""
    found: list[str] = []
    parsed = tokens(markdown(path))
    for opening, heading in pairwise(parsed):
        if opening.type == "heading_open":
            plain = "".join(part.content for part in heading.children or ())
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            same = sum(1 for other in found if re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other))
            found.append(f"{slug}-{same}" if same else slug)
    return set(found)


def problem(path: Path, link: str) -> str | None:
    """Why a link of this document leads nowhere, or None."""
    if is_outside(link):
        return None if is_well_formed(link) else "is no address"
    name, _, anchor = link.partition("#")
    target = (path.parent / name).resolve() if name else path
    if not target.is_relative_to(ROOT) or not target.exists():
        return "does not exist"
    if anchor and anchor not in anchors(target):
        return "has no such heading"
    return None


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path):
    found = {link: problem(path, link) for link in links(markdown(path))}
    assert {link: why for link, why in found.items() if why} == {}


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("TRAINING.md", None),
        ("TRAINING.md#budget", None),
        ("../conf/slurm/train.sbatch", None),
        ("https://arxiv.org/abs/2604.23108", None),
        ("TRAINING.md#no-such-thing", "has no such heading"),
        ("NOWHERE.md", "does not exist"),
        ("../../elsewhere", "does not exist"),
        ("https://arxiv", "is no address"),
        ("htps://arxiv.org", "is no address"),
    ],
)
def test_what_a_dead_link_is(link: str, why: str | None):
    assert problem(ROOT / "docs" / "README.md", link) == why


def test_links_are_found_outside_of_code_alone():
    text = (
        "See [a](A.md#b), ![c](c.png) and `[d](D.md)`.\n\n    [e](E.md)\n\n| [f](F.md) |\n|---|\n| [g](G) |"
    )
    assert list(links(text)) == ["A.md#b", "c.png", "F.md", "G"]


def test_the_index_names_every_document_and_notebook():
    index = ROOT / "docs" / "README.md"
    named = {(index.parent / link.partition("#")[0]).resolve() for link in links(markdown(index))}
    assert {*DOCUMENTS, *NOTEBOOKS} - {index} - named == set()
