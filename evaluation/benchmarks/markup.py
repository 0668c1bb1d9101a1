"""A comparison as Markdown and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluation.benchmarks.sheet import Sheet
from evaluation.benchmarks.sheets import sheets

_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "°": r"$^{\circ}$",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
}


def as_markdown(comparison: Mapping[str, Any]) -> str:
    """Tables of GitHub's Markdown with their notes, answers and remarks."""
    parts = [f"# {title(comparison)}"]
    parts += [f"**{marked(one['question'])}** {marked(one['answer'])}" for one in comparison["answers"]]
    for sheet in sheets(comparison):
        rule = [":--" if place == 0 or place in sheet.words else "--:" for place in range(len(sheet.header))]
        lines = [markdown_row(map(marked, cells)) for cells in (sheet.header, *sheet.rows)]
        lines.insert(1, markdown_row(rule))
        parts += [f"## {marked(sheet.title)}", "\n".join(lines), marked(sheet.note)]
    said = [*comparison["remarks"], *comparison["families"]]
    if said:
        parts += ["## Remarks", "\n".join(f"- {marked(remark)}" for remark in said)]
    return "\n\n".join(parts) + "\n"


def as_latex(comparison: Mapping[str, Any]) -> str:
    r"""Tables for \input, which need the package booktabs; answers and remarks stand in comments."""
    parts = [_commented([title(comparison), r"In the preamble: \usepackage{booktabs}"])]
    for sheet in sheets(comparison):
        parts.append(latex_table(sheet))
    said = [one["answer"] for one in comparison["answers"]]
    parts.append(_commented([*said, *comparison["families"], *comparison["remarks"]]))
    return "\n\n".join(part for part in parts if part) + "\n"


def title(comparison: Mapping[str, Any]) -> str:
    """Of all files: which suites, and what is compared."""
    names, bases = list(comparison["arms"]), comparison["baselines"]
    suites = ", ".join(comparison["suites"])
    others = [name for name in names if name not in bases]
    if not others:
        return f"{suites}: {', '.join(names)}"
    return f"{suites}: {', '.join(others)} beside {', '.join(bases)}"


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def latex_table(sheet: Sheet) -> str:
    """A table with the caption of its sheet."""
    columns = "".join(
        "l" if place == 0 or place in sheet.words else "r" for place in range(len(sheet.header))
    )
    label = re.sub(r"[^a-z0-9]+", "-", sheet.name.lower()).strip("-")
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(sheet.title)}. {escaped(sheet.note)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_row(sheet.header),
            r"\midrule",
            *map(_latex_row, sheet.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def _commented(lines: Iterable[str]) -> str:
    return "\n".join(f"% {' '.join(line.split())}" for line in lines)


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def marked(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
