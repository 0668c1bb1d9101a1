"""The files of a sweep's report, and the renewal of a document."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from evaluation.benchmarks.markup import latex_table, markdown_row, marked
from evaluation.benchmarks.sheet import Sheet
from evaluation.report.tables import Chart
from evaluation.sweeps import blocks, document
from evaluation.sweeps.analysis import Analysis
from evaluation.sweeps.charts import ALWAYS
from evaluation.sweeps.page import as_page
from evaluation.sweeps.pairing import Pairs
from evaluation.sweeps.storing import save_study, study_texts
from evaluation.sweeps.study import Study
from mohge.errors import UserError
from mohge.files import write_json_atomically, write_text_atomically

PAGE, RESULTS, CELLS, CHARTS = "index.html", "results.json", "cells.csv", "charts"
_LIBRARYS = ("$schema", "config", "name", "views", "data", "datasets", "usermeta")
"""Keys of a specification that hold the data again, or what the library and the common look put there."""
_NOTHING = """<svg xmlns="http://www.w3.org/2000/svg" width="860" height="60" viewBox="0 0 860 60">
<rect width="860" height="60" fill="#f4f5f7"/>
<text x="20" y="35" font-family="sans-serif" font-size="14" fill="#33383f">
Nothing to draw yet: too few cells are finished.</text>
</svg>
"""
_NO_NOTE = "Too few cells are finished for this figure."
_DIGEST = re.compile(r"<!-- figure ([0-9a-f]{16}) -->")
_ROOM = {"left": 30, "right": 30, "top": 5, "bottom": 5}
"""Around a picture, in its units."""


def write_report(
    folder: Path, study: Study, analysis: Analysis, charts: Sequence[Chart], result: Mapping[str, Any]
) -> None:
    """Writes the page, the tables, the charts and the figures; files of an earlier report are replaced.

    Raises:
        UserError: the disk refuses.
    """
    tables = blocks.all_sheets(analysis)
    texts = {
        folder / "tables.md": as_markdown(result, tables),
        folder / "tables.tex": as_latex(result, tables),
        folder / PAGE: as_page(
            f"Sweep {analysis.name}",
            result["summary"],
            result["answers"],
            result["remarks"],
            tables,
            charts,
        ),
    }
    for chart in charts:
        texts[folder / CHARTS / f"{chart.name}.csv"] = chart.table.csv()
        texts[folder / CHARTS / f"{chart.name}.svg"] = as_svg(chart)
    for path, text in texts.items():
        write_text_atomically(path, text)
    save_study(study, folder / CELLS)
    write_json_atomically(folder / RESULTS, result)


def pairs_of_document(path: Path, study: Study) -> dict[str, Pairs]:
    """The pairs of arms that a document asks for, wherever they stand, for `analyse`.

    Raises:
        UserError: it cannot be read, or one of its pairs is none.
    """
    pairs: dict[str, Pairs] = {}

    def collect(kind: str, name: str, given: list[str]) -> str:
        if name in blocks.PAIRS:
            pairs.update(blocks.pairs_named(study, given))
        return ""

    document.renewed(path, document.read_document(path), collect)
    return pairs


def renew_document(
    path: Path, study: Study, analysis: Analysis, charts: Sequence[Chart], *, check: bool
) -> list[str]:
    """Makes the marked parts and the figures of a document anew, and the table of cells beside the figures.

    Args:
        path: of the Markdown file.
        study: the sweep.
        analysis: of it, with `pairs_of_document`.
        charts: that figures are made of.
        check: write nothing.

    Returns:
        What has changed, or would: `table arms`, `figure pareto_active`, `NAME.csv`, in this order.

    Raises:
        UserError: the document cannot be read, names what the sweep does not have, or the disk refuses.
    """
    text = document.read_document(path)
    folder = document.figures_folder(path)
    by_name = {chart.name: chart for chart in charts}
    wanted = document.figures_of(path, text)
    document.check_figures(path, wanted, [*by_name, *(name for name in ALWAYS if name not in by_name)])

    def make(kind: str, name: str, given: list[str]) -> str:
        if kind == "table":
            return table_markdown(blocks.table(study, analysis, name, given))
        if name == "note":
            return _notes(by_name, given)
        return blocks.sentence(study, analysis, name, given)

    new, changed = document.renewed(path, text, make)
    figures = {name: _figure(by_name.get(name)) for name in wanted}
    stale = [name for name, (digest, _) in figures.items() if _digest_in(folder / f"{name}.svg") != digest]
    changed += [f"figure {name}" for name in stale]
    texts = study_texts(study, folder / f"{analysis.name}.csv")
    differing = {place: made for place, made in texts.items() if not _holds(place, made)}
    changed += [place.name for place in differing]
    if not check:
        if new != text:
            write_text_atomically(path, new)
        for name in stale:
            write_text_atomically(folder / f"{name}.svg", figures[name][1]())
        for place, made in differing.items():
            write_text_atomically(place, made)
    return changed


def _notes(by_name: Mapping[str, Chart], given: Sequence[str]) -> str:
    """How figures are read, which their pictures do not say."""
    known = dict.fromkeys([*by_name, *ALWAYS])
    for name in given:
        if name not in known:
            raise UserError(f"there is no figure {name}: choose one of {', '.join(known)}")
    return "\n\n".join(f"*{marked(by_name[name].note)}*" for name in given if name in by_name) or _NO_NOTE


def _figure(chart: Chart | None) -> tuple[str, Callable[[], str]]:
    """Checksum of a figure, and what makes it; without a chart, of a picture that says so."""
    if chart is not None:
        return figure_digest(chart), lambda: as_svg(chart)
    digest = hashlib.sha256(_NOTHING.encode()).hexdigest()[:16]
    return digest, lambda: _NOTHING.replace(">", f"><!-- figure {digest} -->", 1)


def as_svg(chart: Chart) -> str:
    """A chart as SVG, the same bytes each time, with a checksum of what it draws."""
    # Where it is looked at, letters may be wider than where it was made: names beside an axis need room.
    svg: str = vl_convert.vegalite_to_svg({**chart.picture, "padding": _ROOM})
    head, tag, rest = svg.partition(">")
    return f"{head}{tag}<!-- figure {figure_digest(chart)} -->{rest}\n"


def as_markdown(result: Mapping[str, Any], tables: Iterable[Sheet]) -> str:
    """Answers, tables and remarks in GitHub's Markdown."""
    parts = [f"# Sweep {marked(result['name'])}", marked(result["summary"])]
    parts += [f"**{marked(one['question'])}** {marked(one['answer'])}" for one in result["answers"]]
    for sheet in tables:
        parts += [f"## {marked(sheet.title)}", table_markdown(sheet)]
    if result["remarks"]:
        parts += ["## Remarks", "\n".join(f"- {marked(remark)}" for remark in result["remarks"])]
    return "\n\n".join(parts) + "\n"


def as_latex(result: Mapping[str, Any], tables: Iterable[Sheet]) -> str:
    r"""Tables for \input, which need the package booktabs."""
    said = [f"Sweep {result['name']}. {result['summary']}", r"In the preamble: \usepackage{booktabs}"]
    comments = "\n".join(f"% {' '.join(line.split())}" for line in [*said, *result["remarks"]])
    return "\n\n".join([comments, *map(latex_table, tables)]) + "\n"


def table_markdown(sheet: Sheet) -> str:
    """A table of GitHub's Markdown, and below it how to read it."""
    if not sheet.rows:
        return "None of this is finished yet."
    rule = [":--" if place == 0 or place in sheet.words else "--:" for place in range(len(sheet.header))]
    lines = [markdown_row(map(marked, cells)) for cells in (sheet.header, *sheet.rows)]
    lines.insert(1, markdown_row(rule))
    return "\n".join(lines) + f"\n\n{marked(sheet.note)}"


def figure_digest(chart: Chart) -> str:
    """Of the figures and of what we draw with them, not of what the library of charts adds."""
    told = [chart.title, chart.note, chart.table.csv(), _ours(chart.picture)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _ours(spec: Any) -> Any:
    if isinstance(spec, dict):
        return {key: _ours(value) for key, value in spec.items() if key not in _LIBRARYS}
    return [_ours(value) for value in spec] if isinstance(spec, list) else spec


def _holds(path: Path, text: str) -> bool:
    """Whether a file has this text, to the byte."""
    return path.is_file() and path.read_bytes() == text.encode()


def _digest_in(path: Path) -> str | None:
    """The checksum in a figure that is there already."""
    if not path.exists():
        return None
    found = _DIGEST.search(path.read_text(encoding="utf-8", errors="replace"))
    return found.group(1) if found else None
