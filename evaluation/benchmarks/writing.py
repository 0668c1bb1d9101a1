"""The files of a comparison: JSON, Markdown, LaTeX, HTML and the charts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluation.benchmarks.markup import as_latex, as_markdown
from mohge.files import atomic_path, write_json_atomically, write_text_atomically

STEM = "comparison"
CHARTS = "charts"


def write_comparison(comparison: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write comparison.json, .md, .tex and .html, and a PNG and a CSV of each chart in charts/.

    Args:
        comparison: of `comparing.compare`.
        folder: where they go; files of an earlier comparison are replaced.

    Returns:
        The files.

    Raises:
        UserError: the disk refuses.
    """
    # Late: altair takes a second to import.
    import vl_convert

    from evaluation.benchmarks.charts import NAMES, charts
    from evaluation.benchmarks.page import as_page

    drawn = charts(comparison)
    texts = {
        folder / f"{STEM}.md": as_markdown(comparison),
        folder / f"{STEM}.tex": as_latex(comparison),
        folder / f"{STEM}.html": as_page(comparison, drawn),
        **{folder / CHARTS / f"{chart.name}.csv": chart.table.csv() for chart in drawn},
    }
    for path, text in texts.items():
        write_text_atomically(path, text)
    pictures = {folder / CHARTS / f"{chart.name}.png": chart.picture for chart in drawn}
    for path, spec in pictures.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
    write_json_atomically(folder / f"{STEM}.json", comparison)
    for name in set(NAMES) - {chart.name for chart in drawn}:  # of an earlier comparison
        for kind in ("png", "csv"):
            (folder / CHARTS / f"{name}.{kind}").unlink(missing_ok=True)
    return [folder / f"{STEM}.json", *texts, *pictures]
