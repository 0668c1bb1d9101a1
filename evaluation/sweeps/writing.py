"""The files of a sweep's report, and the renewal of a document."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from evaluation.benchmarks.markup import latex_table, markdown_row, marked
from evaluation.benchmarks.sheet import Sheet
from evaluation.report.tables import Chart
from evaluation.sweeps import blocks, document
from evaluation.sweeps.analysis import Analysis
from evaluation.sweeps.page import as_page
from evaluation.sweeps.storing import save_study
from evaluation.sweeps.study import Study
from mohge.files import write_json_atomically, write_text_atomically

PAGE, RESULTS, CELLS, CHARTS = "index.html", "results.json", "cells.csv", "charts"
_DIGEST = re.compile(r"<!-- figure ([0-9a-f]{16}) -->")


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


def renew_document(
    path: Path, study: Study, analysis: Analysis, charts: Sequence[Chart], *, check: bool
) -> list[str]:
    """Makes the marked parts and the figures of a document anew, and the table of cells beside the figures.

    Args:
        path: of the Markdown file.
        study: the sweep.
        analysis: of it.
        charts: that figures are made of.
        check: write nothing.

    Returns:
        What has changed, or would: `table arms`, `figure pareto_active`, `NAME.csv`.

    Raises:
        UserError: the document cannot be read, names what the sweep does not have, or the disk refuses.
    """
    text = document.read_document(path)
    folder = document.figures_folder(path)
    by_name = {chart.name: chart for chart in charts}
    wanted = document.figures_of(path, text)
    document.check_figures(path, wanted, list(by_name))

    def make(kind: str, name: str, given: list[str]) -> str:
        if kind == "table":
            return table_markdown(blocks.table(study, analysis, name, given))
        return blocks.sentence(study, analysis, name, given)

    new, changed = document.renewed(path, text, make)
    figures = {folder / f"{name}.svg": by_name[name] for name in wanted}
    stale = {place: chart for place, chart in figures.items() if _digest_in(place) != _digest(chart)}
    changed += [f"figure {chart.name}" for chart in stale.values()]
    if not check:
        if new != text:
            write_text_atomically(path, new)
        for place, chart in stale.items():
            write_text_atomically(place, as_svg(chart))
        save_study(study, folder / f"{analysis.name}.csv")
    return changed


def as_svg(chart: Chart) -> str:
    """A chart as SVG, the same bytes each time, with a checksum of what it draws."""
    svg: str = vl_convert.vegalite_to_svg(chart.picture)
    head, tag, rest = svg.partition(">")
    return f"{head}{tag}<!-- figure {_digest(chart)} -->{rest}\n"


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
        return "The sweep has no figures for this table."
    rule = [":--" if place == 0 or place in sheet.words else "--:" for place in range(len(sheet.header))]
    lines = [markdown_row(map(marked, cells)) for cells in (sheet.header, *sheet.rows)]
    lines.insert(1, markdown_row(rule))
    return "\n".join(lines) + f"\n\n{marked(sheet.note)}"


def _digest(chart: Chart) -> str:
    return hashlib.sha256(json.dumps(chart.picture, sort_keys=True).encode()).hexdigest()[:16]


def _digest_in(path: Path) -> str | None:
    """The checksum in a figure that is there already."""
    if not path.exists():
        return None
    found = _DIGEST.search(path.read_text(encoding="utf-8"))
    return found.group(1) if found else None
