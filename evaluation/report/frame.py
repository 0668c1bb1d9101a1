"""What every page has: its head and style, and all that draws its charts inside it.

Names of runs and texts of corpora are strangers' input: templates escape them, and specifications of charts
cannot end the script element that they stand in.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

_HERE = Path(__file__).parent
_LIBRARY = "window.vegaEmbed = vegaEmbed;"


def framed(folder: Path, drawn: bool, **values: object) -> str:
    """The page that page.html of a folder makes; it needs no network.

    Args:
        folder: of the template, which extends frame.html and may take macros from parts.html.
        drawn: whether the page has charts.
        values: that the template fills in; `title` is among them.
    """
    environment = Environment(loader=FileSystemLoader([folder, _HERE]), autoescape=True)
    environment.filters["spec"] = _spec
    return environment.get_template("page.html").render(
        css=_inside("page.css"),
        script=_inside("page.js"),
        library=_script(vl_convert.javascript_bundle(_LIBRARY)) if drawn else "",
        **values,
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
