"""The HTML page: a template filled with sections, and all that draws its charts inside it.

Names of runs and texts of corpora are strangers' input: the template escapes them, and specifications of
charts cannot end the script element that they stand in.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from evaluation.report.look import MANY
from evaluation.report.tables import Chart

_HERE = Path(__file__).parent
_LIBRARY = "window.vegaEmbed = vegaEmbed;"


@dataclass(frozen=True)
class PageTable:
    """A table of the page; the first cell of a row is its header."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | dict[str, Any]]]
    """Text, or `text` with `parts`: (share, colour) of a bar below it."""
    wrapped: frozenset[int] = frozenset()
    """Columns of sentences, which may break into lines."""
    folded: bool = False
    """Whether the reader has to open it."""


@dataclass(frozen=True)
class Fragment:
    """HTML that is there already, to be opened by the reader."""

    title: str
    note: str
    html: Markup
    open: bool = False


Item = Chart | PageTable | Fragment


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    id: str
    title: str
    text: Sequence[str] = ()
    items: list[Item] = field(default_factory=list)


def render(
    title: str,
    answers: Sequence[dict[str, Any]],
    sections: Sequence[Section],
    remarks: Sequence[str],
) -> str:
    """The whole page.

    Args:
        title: of the page.
        answers: for each run its `name` and `answers`, each a `question` and an `answer`.
        sections: in reading order; those without items and text are left out.
        remarks: sentences about runs that are damaged or not finished.
    """
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True)
    environment.filters["spec"] = _spec
    return environment.get_template("page.html").render(
        title=title,
        made=datetime.datetime.now().strftime("%d %B %Y, %H:%M"),
        answers=answers,
        sections=[section for section in sections if section.items or section.text],
        remarks=remarks,
        open_runs=MANY,
        css=_inside("page.css"),
        script=_inside("page.js"),
        library=_script(vl_convert.javascript_bundle(_LIBRARY)),
    )


def _spec(spec: dict[str, Any]) -> Markup:
    """JSON that may stand in a script element, whatever its texts are."""
    text = json.dumps(spec, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _inside(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _script(code: str) -> Markup:
    """Code in which no string ends or hides the element around it."""
    return Markup(code.replace("</script", "<\\/script").replace("<!--", "<\\!--"))
