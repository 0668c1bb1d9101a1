"""The page of results is what its table of cells gives, to the last digit."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from composing import composed

from evaluation.sweeps.making import report_sweep
from mohge.config.load import typed
from mohge.config.report_schema import ReportConfig
from mohge.errors import RunError

DOCS = Path(__file__).parents[2] / "docs"
STUDY = "results/paper_small.csv"


def check(docs: Path) -> None:
    overrides = [f"sweep.path={docs / STUDY}", f"document={docs / 'RESULTS.md'}", "check=true"]
    report_sweep(typed(ReportConfig, composed(*overrides, config_name="report")))


def test_the_page_is_what_the_table_of_cells_gives():
    check(DOCS)


def test_the_table_is_of_the_plan_that_the_command_has():
    with (DOCS / STUDY).with_suffix(".json").open(encoding="utf-8") as file:
        plan = json.load(file)["plan"]
    sweep = composed("sweep=paper_small", config_name="sweep").sweep
    assert {name: arm["overrides"] for name, arm in plan["arms"].items()} == sweep.arms
    assert (plan["contrasts"], plan["seeds"], plan["overrides"]) == (
        sweep.contrasts,
        sweep.seeds,
        sweep.overrides,
    )


def test_every_run_is_long_enough_and_mohge_is_18_percent_smaller():
    with (DOCS / STUDY).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert all(int(row["tokens"]) >= 10_000_000 for row in rows)
    total = {row["arm"]: int(row["total_parameters"]) for row in rows}
    assert total["mohge"] <= 0.82 * total["moe"]


def test_a_page_that_says_something_else_is_noticed(tmp_path):
    shutil.copytree(DOCS / "results", tmp_path / "results")
    page = (DOCS / "RESULTS.md").read_text(encoding="utf-8")
    (tmp_path / "RESULTS.md").write_text(
        page.replace("cells are finished", "cells were finished"), encoding="utf-8"
    )
    with pytest.raises(RunError, match=r"is not what .* gives"):
        check(tmp_path)
