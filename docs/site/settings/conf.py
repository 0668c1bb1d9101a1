"""Configuration of Sphinx for the HTML site; `build.py` lays out what it reads."""

from __future__ import annotations

import builtins
import dataclasses
import re
from itertools import groupby
from typing import Any, get_type_hints

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

project = "MoHGE"
author = "the MoHGE developers"
html_title = "MoHGE"

extensions = ["myst_nb", "sphinx.ext.autodoc"]
include_patterns = ["index.md", "docs/*.md", "notebooks/*.ipynb", "reference/*.md"]

# The documents are GitHub's Markdown: headings have its anchors, and indented blocks no language.
myst_heading_anchors = 4
highlight_language = "none"
nb_execution_mode = "off"  # notebooks need a trained run, and are stored without outputs

# Docstrings are in Google's style, with Markdown's single backticks around code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
toc_object_entries = False  # thousands, which each page would carry in its navigation

html_theme = "furo"
html_copy_source = False
html_use_index = False  # searching finds more
html_domain_indices = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}


def link_the_start_page(app: Sphinx, name: str, source: list[str]) -> None:
    """The README is the site's start page: links to it lead there."""
    source[0] = source[0].replace("](../README.md", "](../index.md")


def leave_builtins_alone(app: Sphinx, doctree: nodes.document) -> None:
    """The type `bytes` is Python's, not a field of that name that a class of ours may have."""
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link["refdomain"] == "py" and hasattr(builtins, link["reftarget"]):
            link.replace_self(nodes.Text(link["reftarget"]))


def leave_out_object(app: Sphinx, doctree: nodes.document) -> None:
    """That a class derives from `object` alone is not worth a line."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def simplify_configuration(app: Sphinx, what: str, name: str, obj: Any, *_: Any) -> tuple[str, None] | None:
    """Configuration classes list their keys below, each with its type: not a second time as arguments."""
    if not (what == "class" and dataclasses.is_dataclass(obj) and hasattr(obj, "__pydantic_validator__")):
        return None
    types = get_type_hints(obj)  # without pydantic's bounds
    obj.__annotations__ = {key: types[key] for key in obj.__annotations__}
    return "", None


def read_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Makes reStructuredText of a docstring: of Google's sections, and of what it takes from Markdown."""
    if what == "module":
        paragraphs = [
            list(group) for blank, group in groupby(lines, lambda line: not line.strip()) if not blank
        ]
        lines[:] = [line for paragraph in paragraphs for line in [*_with_blocks(paragraph), ""]]
    # A word that ends in an underscore would be a link; a word in backticks is code.
    lines[:] = [re.sub(r"(`[^`]*`)|(?<=\w)_(?!\w)", lambda m: m[1] or r"\_", line) for line in lines]
    # Napoleon is not told what is described: of an attribute it would take words before a colon for the type.
    lines[:] = GoogleDocstring(lines).lines()


def _with_blocks(paragraph: list[str]) -> list[str]:
    """A list gets a blank line before it, and indented lines or columns become a literal block."""
    if paragraph[0].startswith(" ") or re.search(r"\S {2,}\S", paragraph[0]):
        return ["::", "", *(f"    {line}" for line in paragraph)]
    first = next((n for n, line in enumerate(paragraph) if line.startswith("- ")), None)
    if first is not None:
        return [*paragraph[:first], "", *paragraph[first:]]
    found = []
    for indented, group in groupby(paragraph, lambda line: line.startswith(" ")):
        run = list(group)
        found += ["", "::", "", *run, ""] if indented else run
    return found


def setup(app: Sphinx) -> None:
    """Connects what is above."""
    app.connect("source-read", link_the_start_page)
    app.connect("doctree-read", leave_builtins_alone)
    app.connect("doctree-read", leave_out_object)
    app.connect("autodoc-process-signature", simplify_configuration)
    app.connect("autodoc-process-docstring", read_docstring)
