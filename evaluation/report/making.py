"""mohge-report's work: finds runs, reads them, and writes the page, its figures and its charts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evaluation.report.finding import find_runs
from evaluation.run_data import RunData, read_object, read_run
from mohge.config.report_schema import ReportConfig
from mohge.errors import UserError
from mohge.files import atomic_path, json_plain, refuse_taken, write_json_atomically, write_text_atomically

if TYPE_CHECKING:
    from evaluation.report.gathering import Attempt

T = TypeVar("T")

PAGE, FIGURES, CHARTS = "report.html", "report.json", "charts"
FORMAT = "mohge-report-1"


def make_report(config: ReportConfig) -> dict[str, Any]:
    """Writes report.html, report.json and charts/ of the runs that a configuration names.

    Args:
        config: `runs`, `output`, `tokens` and `ranks`; the rest is not looked at.

    Returns:
        What report.json holds: `format`, `page`, `title`, `runs` (their figures and answers, see
        `facts.run_facts`), `seeds`, `remarks` and `charts`.

    Raises:
        UserError: no run was found or can be read, or the output folder holds something else.
    """
    found = find_runs(config.runs)
    folder = _output(config)
    remarks: list[str] = []
    runs = [run for name, path in found.items() if (run := _read(name, path, remarks)) is not None]
    if not runs:
        raise UserError(f"no run can be reported: {remarks[0].rstrip('.')}")

    # Late: altair takes a second to import, and wrong input has been refused by now.
    from evaluation.report.gathering import gather
    from evaluation.report.layout import lay_out
    from evaluation.report.page import render

    gathered = gather(runs, config.ranks, config.tokens, _attempts(remarks))
    title = f"MoHGE report: {runs[0].name}" if len(runs) == 1 else f"MoHGE report: {len(runs)} runs"
    sections, charts = lay_out(gathered)
    names = [f"{CHARTS}/{chart.name}" for chart in charts]
    result = {
        "format": FORMAT,
        "page": str(folder / PAGE),
        "title": title,
        "runs": gathered.results(),
        "seeds": gathered.seeds,
        "remarks": remarks,
        "charts": names,
    }
    page = render(title, gathered.results(), sections, remarks)
    stale = _stale(folder, names)
    for chart in charts:
        write_text_atomically(folder / CHARTS / f"{chart.name}.csv", chart.table.csv())
        with atomic_path(folder / CHARTS / f"{chart.name}.png") as temporary:
            temporary.write_bytes(_picture(chart.picture))
    write_text_atomically(folder / PAGE, page)
    plain: dict[str, Any] = json_plain(result)
    write_json_atomically(folder / FIGURES, plain)
    for path in stale:
        path.unlink(missing_ok=True)
    return plain


def _output(config: ReportConfig) -> Path:
    """The folder to write, which is new, empty, or holds a report."""
    if config.output is not None:
        folder = Path(config.output).expanduser()
    elif len(config.runs) == 1:
        folder = Path(config.runs[0]).expanduser() / "report"
    else:
        raise UserError(f"runs names {len(config.runs)} folders: say where to write with output=DIR")
    if _before(folder) is None:
        refuse_taken(folder)
    return folder


def _before(folder: Path) -> dict[str, Any] | None:
    """The figures of the report that the folder holds, if it holds one."""
    if not (folder / FIGURES).is_file():
        return None
    try:
        figures = read_object(folder / FIGURES)
    except UserError:
        return None
    return figures if figures.get("format") == FORMAT else None


def _read(name: str, path: Path, remarks: list[str]) -> RunData | None:
    try:
        run = read_run(name, path)
    except UserError as error:
        remarks.append(f"{name} is left out: {error}.")
        return None
    state = run.status.get("state")
    if state != "finished":
        remarks.append(f"{name} is {state or 'not begun'}, not finished: what it has recorded is shown.")
    return run


def _attempts(remarks: list[str]) -> Attempt:
    """Calls a function for a run; what keeps it from working becomes a remark, and None comes back."""

    def attempt(run: RunData, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except UserError as error:
            remarks.append(f"{run.name}: {error}.")
            return None

    return attempt


def _stale(folder: Path, charts: Sequence[str]) -> list[Path]:
    """Files of charts that the report which is there has, and this one does not."""
    before = (_before(folder) or {}).get("charts", [])
    gone = [Path(name).name for name in before if name not in charts]
    return [folder / CHARTS / f"{name}.{kind}" for name in gone for kind in ("png", "csv")]


def _picture(spec: dict[str, Any]) -> bytes:
    import vl_convert

    png: bytes = vl_convert.vegalite_to_png(spec, scale=2)
    return png
