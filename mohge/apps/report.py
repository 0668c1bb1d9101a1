"""mohge-report: one HTML page of one or many runs, or of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mohge.apps.output import emit
from mohge.apps.resume import override_key
from mohge.apps.runner import run_app
from mohge.config.report_schema import ReportConfig
from mohge.config.targets import build
from mohge.errors import UserError

_OF_RUNS = ("_target_", "runs", "tokens", "ranks")
_OF_A_SWEEP = ("sweep._target_", "sweep.path", "document", "check")
_KEYS = (*_OF_RUNS, *_OF_A_SWEEP, "output", "format")
_WITH_ANSWERS = 3
"""Runs, at most, whose answers are printed; the page has them all."""


def run(config: ReportConfig, overrides: list[str]) -> None:
    """Makes the report, and prints a summary and where it is."""
    for override in overrides:
        if override_key(override) not in _KEYS:
            raise UserError(f"{override} has no effect, as all of training comes from the runs: leave it out")
    given = {override_key(override): override for override in overrides}
    if config.sweep.path is not None:
        _refuse(given, _OF_RUNS, "with sweep=PATH")
        if config.check and config.document is None:
            raise UserError("check=true has no effect without document=FILE: name the document to check")
        if config.check and config.output is not None:
            raise UserError(
                f"output={config.output} has no effect with check=true, which writes nothing: leave it out"
            )
        outcome = build("sweep", config.sweep.target, config)
        emit(outcome.result, outcome.render, config.format, output=None)
        return
    _refuse(given, _OF_A_SWEEP, "without sweep=PATH")
    if "runs" not in given:
        raise UserError("runs has no value: give one with runs=VALUE, or a sweep with sweep=PATH")
    result = build("report", config.target, config)
    emit(result, lambda: _render(result), config.format, output=None)


def main() -> None:
    """Console entry point."""
    sys.argv[1:] = long_names(sys.argv[1:])
    run_app("report", ReportConfig, run)


def long_names(arguments: Sequence[str]) -> list[str]:
    """The command line with `sweep.path=PATH` for `sweep=PATH`, which would name a choice of conf/sweep."""
    return [
        f"sweep.path={argument.removeprefix('sweep=')}" if argument.startswith("sweep=") else argument
        for argument in arguments
    ]


def _refuse(given: dict[str, str], keys: Sequence[str], when: str) -> None:
    for key in keys:
        if key in given:
            raise UserError(f"{given[key]} has no effect {when}: leave it out")


def _render(result: dict[str, Any]) -> RenderableType:
    """A row per run, the answers of a few runs, remarks, and where the page is."""
    runs = result["runs"]
    table = Table(title=f"Report of {len(runs)} run{'s' * (len(runs) > 1)}", title_justify="left")
    table.add_column("run", overflow="fold")
    for header in ("tokens", "val bits per byte", "active parameters", "idle experts"):
        table.add_column(header, justify="right")
    for run in runs:
        active, idle = run["active_parameters"], run["idle_experts"]
        table.add_row(
            Text(run["name"]),
            f"{run['tokens']:,}",
            _number(run["bits_per_byte"], ".4f"),
            f"{active['expected']:,} (plan)" if active["measured"] is None else f"{active['measured']:,.0f}",
            "no routing" if not run["groups"] else "not recorded" if idle is None else str(len(idle)),
        )
    parts: list[RenderableType] = [table]
    if len(runs) <= _WITH_ANSWERS:
        for run in runs:
            parts.append(Text(run["name"], style="bold"))
            parts += [Text(f"  {one['question']} {one['answer']}") for one in run["answers"]]
    parts += [Text(remark) for remark in result["remarks"]]
    parts.append(Text(f"Report: {result['page']}", no_wrap=True, overflow="ignore"))
    return Group(*parts)


def _number(value: float | None, form: str) -> str:
    return "not recorded" if value is None else format(value, form)
