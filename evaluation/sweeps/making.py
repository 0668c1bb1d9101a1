"""mohge-report's work for a sweep: reads it, analyses it, and writes the report or renews a document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.run_data import read_object
from evaluation.sweeps.reading import read_study
from mohge.config.report_schema import ReportConfig
from mohge.errors import RunError, UserError
from mohge.files import json_plain, refuse_taken

if TYPE_CHECKING:
    from rich.console import RenderableType

    from evaluation.sweeps.analysis import Analysis
    from evaluation.sweeps.study import Study

FORMAT = "mohge-sweep-report-1"
_RESULTS = "results.json"


@dataclass(frozen=True)
class SweepOutcome:
    """What a report of a sweep leaves for the command."""

    result: dict[str, Any]
    """What results.json holds."""
    render: Callable[[], RenderableType]
    """Makes the tables of the terminal."""


def report_sweep(config: ReportConfig) -> SweepOutcome:
    """Reports the sweep `config.sweep.path`.

    With `config.document` its marked parts and figures are made anew; a folder is then written only if
    `config.output` names it. Else the folder is `output`, or `report/` in the sweep's folder, or, for a table
    of cells, the one beside it.

    Raises:
        UserError: there is no such sweep or document, or the output folder holds something else.
        RunError: `config.check` is set, and the document is not what the sweep gives.
    """
    assert config.sweep.path is not None
    # A document may be renewed before the first cell is finished; a report would be empty.
    study = read_study(config.sweep.path, begun=config.document is None or config.output is not None)
    folder = _output(config)

    # Late: scipy and altair take seconds to import, and wrong input has been refused by now.
    from evaluation.sweeps.analysis import analyse
    from evaluation.sweeps.charts import charts
    from evaluation.sweeps.terminal import render
    from evaluation.sweeps.writing import PAGE, pairs_of_document, renew_document, write_report

    asked = pairs_of_document(Path(config.document), study) if config.document is not None else None
    analysis = analyse(study, asked)
    drawn = charts(study, analysis)
    result = _result(study, analysis)
    result["charts"] = [chart.name for chart in drawn]
    if config.document is not None:
        changed = renew_document(Path(config.document), study, analysis, drawn, check=config.check)
        if config.check and changed:
            raise RunError(
                f"{config.document} is not what {config.sweep.path} gives ({', '.join(changed)}): make it "
                f"anew with mohge-report sweep={config.sweep.path} document={config.document}"
            )
        result["document"] = {"path": config.document, "changed": changed}
    if folder is not None:
        result["page"] = str(folder / PAGE)
        write_report(folder, study, analysis, drawn, result)
    return SweepOutcome(result, lambda: render(analysis, result))


def _result(study: Study, analysis: Analysis) -> dict[str, Any]:
    from evaluation.sweeps.sentences import answers, remarks, summary

    result = {
        "format": FORMAT,
        "summary": summary(study),
        "answers": answers(study, analysis),
        **analysis.as_dict(),
        "remarks": remarks(study, analysis),
        "document": None,
        "page": None,
    }
    plain: dict[str, Any] = json_plain(result)
    return plain


def _output(config: ReportConfig) -> Path | None:
    """The folder to write, which is new, empty, or holds the report of a sweep; None where none is asked."""
    assert config.sweep.path is not None
    place = Path(config.sweep.path).expanduser()
    if config.output is not None:
        folder = Path(config.output).expanduser()
    elif config.document is not None:
        return None
    else:
        folder = (place if place.is_dir() else place.parent) / "report"
    if not _is_ours(folder):
        refuse_taken(folder)
    return folder


def _is_ours(folder: Path) -> bool:
    try:
        return read_object(folder / _RESULTS).get("format") == FORMAT
    except UserError:
        return False
