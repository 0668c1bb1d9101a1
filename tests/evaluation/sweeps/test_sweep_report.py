"""mohge-report of a sweep: files, document, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import cycle
from types import SimpleNamespace

import numpy as np
import pytest
from invented_sweeps import write_plan
from lxml import html
from rich.console import Console

from evaluation.benchmarks.sheet import Sheet
from evaluation.benchmarks.terminal import sheet_table
from evaluation.sweeps import document
from evaluation.sweeps.analysis import analyse
from evaluation.sweeps.blocks import all_sheets
from evaluation.sweeps.charts import charts
from evaluation.sweeps.labels import place
from evaluation.sweeps.making import report_sweep
from evaluation.sweeps.pairing import estimate
from evaluation.sweeps.pareto import front
from evaluation.sweeps.reading import read_study
from evaluation.sweeps.shown import centred
from evaluation.sweeps.terminal import narrowed
from evaluation.sweeps.writing import figure_digest, pairs_of_document, renew_document, table_markdown
from mohge.apps import report
from mohge.errors import RunError, UserError

DOCUMENT = """# What was found

Prose stays.

<!-- table: arms | moe, mohge -->
old
<!-- end -->

<!-- sentence: finding | mohge less moe -->
<!-- end -->

<!-- table: family | loss.group_weight -->
<!-- end -->

![differences](results/differences.svg)
"""


def config(path, *, output=None, document=None, check=False):
    named = SimpleNamespace(path=str(path))
    return SimpleNamespace(
        sweep=named,
        output=None if output is None else str(output),
        document=None if document is None else str(document),
        check=check,
    )


@pytest.fixture(scope="module")
def reported(sweep, tmp_path_factory):
    """The report of the sweep, and a document that it has renewed."""
    folder = tmp_path_factory.mktemp("reported")
    (folder / "RESULTS.md").write_text(DOCUMENT)
    outcome = report_sweep(config(sweep, output=folder / "out", document=folder / "RESULTS.md"))
    return SimpleNamespace(folder=folder, out=folder / "out", outcome=outcome)


def renew(path, study, *, check=False):
    analysis = analyse(study, pairs_of_document(path, study))
    return renew_document(path, study, analysis, charts(study, analysis), check=check)


@pytest.fixture(scope="module")
def analysed(sweep):
    study = read_study(str(sweep))
    analysis = analyse(study)
    return study, analysis, charts(study, analysis)


def test_the_folder_has_tables_charts_and_a_page_that_names_every_arm(reported):
    assert sorted(path.name for path in reported.out.iterdir()) == [
        *("cells.csv", "cells.curves.csv", "cells.json", "charts", "index.html"),
        *("results.json", "tables.md", "tables.tex"),
    ]
    drawn = {path.name for path in (reported.out / "charts").iterdir()}
    names = {"pareto_active", "pareto_total", "pareto_flops", "differences", "family_loss.group_weight"}
    names |= {"learning_curves", "difference_curves"}
    assert drawn == {f"{name}.{kind}" for name in names for kind in ("svg", "csv")}
    page = html.fromstring((reported.out / "index.html").read_text())
    for arm in ("moe (baseline)", "mohge", "none", "much", "dense"):
        assert page.xpath(f"//section[@id='quality']//th[@scope='row'][text()='{arm}']")
    assert "dense: seed 3 is not finished." in page.xpath("string(//div[@class='remarks'])")
    assert not re.findall(r"(?:src|href)=\"https?:", (reported.out / "index.html").read_text())


def test_results_are_one_object_with_the_figures_of_the_tables(reported):
    result = json.loads((reported.out / "results.json").read_text())
    assert result == json.loads(json.dumps(reported.outcome.result))
    mohge = result["arms"]["mohge"]["beside_baseline"]
    assert mohge["quality"]["mean"] == pytest.approx(0.02)
    assert mohge["quality"]["by_seed"] == pytest.approx({"1": 0.01, "2": 0.03, "3": 0.02})
    assert result["remarks"][0] == "dense: seed 3 is not finished."
    assert result["effects"][0]["name"] == "group loss"


def test_the_terminal_has_each_arm_and_fits(reported):
    console = Console(width=110, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(reported.outcome.render())
    text = console.export_text()
    for arm in ("moe (baseline)", "mohge", "none", "much", "dense"):
        assert arm in text
    assert f"Report: {reported.out}/index.html" in text


def test_no_table_of_the_terminal_is_folded(analysed):
    _, analysis, _ = analysed
    console = Console(width=1000)
    wide = {
        sheet.name: console.measure(sheet_table(narrowed(sheet))).maximum
        for sheet in all_sheets(analysis)
        if sheet.in_terminal
    }
    assert {"quality", "effects", "costs", "family_loss.group_weight"} <= wide.keys()
    assert max(wide.values()) <= 110, wide


def test_bits_of_noise_change_neither_document_nor_figures(analysed, reported, tmp_path):
    """Figures of cells that differ by 1e-15, as processors may: what is committed stays what it is."""
    study, _, _ = analysed
    sign = cycle((1, -1, 1, 1))

    def shaken(name, value):  # the number of tokens is an integer, and decides what is paired
        return value if name == "tokens" else value * (1 + next(sign) * 1e-15)

    cells = [
        replace(cell, figures={name: shaken(name, value) for name, value in cell.figures.items()})
        for cell in study.cells
    ]
    noisy = replace(study, cells=cells)
    assert noisy != study
    shutil.copytree(reported.folder / "results", tmp_path / "results")
    shutil.copy(reported.folder / "RESULTS.md", tmp_path)
    # The table has all digits of what it was given.
    assert renew(tmp_path / "RESULTS.md", noisy, check=True) == ["invented.csv"]


def test_a_digest_is_of_figures_and_not_of_the_library(analysed):
    chart = analysed[2][0]
    later = chart.picture | {"$schema": "v9", "config": {}}
    assert figure_digest(replace(chart, picture=later)) == figure_digest(chart)
    rows = [(*row[:-1], 7) for row in chart.table.rows]
    assert figure_digest(replace(chart, table=replace(chart.table, rows=rows))) != figure_digest(chart)


def test_a_stale_table_is_told_and_only_what_differs_is_written(analysed, reported, tmp_path):
    shutil.copytree(reported.folder / "results", tmp_path / "results")
    shutil.copy(reported.folder / "RESULTS.md", tmp_path)
    table, plan = tmp_path / "results/invented.csv", tmp_path / "results/invented.json"
    text = table.read_text()
    table.write_text(text.replace("2.13,", "2.14,", 1))
    before = plan.stat().st_mtime_ns
    document, study = tmp_path / "RESULTS.md", analysed[0]
    assert renew(document, study, check=True) == ["invented.csv"]
    assert table.read_text() != text
    assert renew(document, study) == ["invented.csv"]
    assert table.read_text() == text
    assert plan.stat().st_mtime_ns == before


def test_a_document_of_the_first_cells_reads_well(analysed, tmp_path):
    """One cell of the baseline alone: every block says that there is nothing yet, and figures are there."""
    study, _, _ = analysed
    marks = ["table: arms | mohge, none", "table: effects", "table: family | loss.group_weight"]
    marks += ["sentence: finding | mohge less moe, none less moe", "sentence: family | loss.group_weight"]
    blocks = [f"<!-- {mark} -->\n<!-- end -->" for mark in [*marks, "sentence: power", "sentence: remarks"]]
    (tmp_path / "R.md").write_text("\n\n".join([*blocks, "![](r/pareto_total.svg)\n"]))
    first = replace(study, cells=study.cells[:1], families=[], curves=[])
    renew(tmp_path / "R.md", first)
    said = [line for line in (tmp_path / "R.md").read_text().splitlines() if line and "<!--" not in line]
    assert said[:3] == ["None of this is finished yet."] * 3
    assert said[3] == (
        "mohge and moe have no finished seed in common yet. none and moe have no finished seed in common yet."
    )
    assert said[4] == "Nothing can be told yet: fewer than three values of loss.group\\_weight are finished."
    assert "Nothing to draw yet" in (tmp_path / "r/pareto_total.svg").read_text()
    assert renew(tmp_path / "R.md", first, check=True) == []


def test_a_document_is_renewed_between_its_marks_alone(reported):
    text = (reported.folder / "RESULTS.md").read_text()
    assert text.startswith("# What was found\n\nProse stays.\n\n<!-- table: arms | moe, mohge -->\n\n| arm |")
    assert "\nold\n" not in text
    assert "| mohge | 1 to 3 | 3.190M | 1.420M |" in text
    assert "mohge has 19.7% fewer parameters than moe (3.190M against 3.974M)" in text
    assert text.count("<!-- end -->") == 3
    assert reported.outcome.result["document"]["changed"] == [
        *("table arms | moe, mohge", "sentence finding | mohge less moe"),
        *("table family | loss.group_weight", "figure differences"),
        *("invented.csv", "invented.json", "invented.curves.csv"),
    ]
    assert sorted(path.name for path in (reported.folder / "results").iterdir()) == [
        *("differences.svg", "invented.csv", "invented.curves.csv", "invented.json")
    ]


def test_the_committed_table_gives_the_same_document_and_a_changed_one_is_told(reported, tmp_path):
    copy = tmp_path / "docs"
    copy.mkdir()
    (copy / "results").mkdir()
    for path in (reported.folder / "results").iterdir():
        (copy / "results" / path.name).write_bytes(path.read_bytes())
    text = (reported.folder / "RESULTS.md").read_text()
    (copy / "RESULTS.md").write_text(text)
    table = copy / "results/invented.csv"
    settings = config(table, document=copy / "RESULTS.md", check=True)
    assert report_sweep(settings).result["document"]["changed"] == []
    (copy / "RESULTS.md").write_text(text.replace("3.190M", "3.191M"))
    (copy / "results/differences.svg").write_text("<svg></svg>")
    with pytest.raises(RunError, match=r"table arms \| moe, mohge, .*figure differences.* make it anew"):
        report_sweep(settings)
    assert "3.191M" in (copy / "RESULTS.md").read_text()  # a check writes nothing
    report_sweep(config(table, document=copy / "RESULTS.md"))
    assert (copy / "RESULTS.md").read_text() == text
    figure = "results/differences.svg"
    assert (copy / figure).read_bytes() == (reported.folder / figure).read_bytes()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("no marks", "has no marked table"),
        ("<!-- table: arms -->\n", "lacks its <!-- end -->"),
        ("<!-- table: arms -->\n<!-- table: costs -->\n<!-- end -->\n", "lacks its <!-- end -->"),
        ("<!-- table: stars -->\n<!-- end -->\n", "table stars: there is no table stars: choose one of arms"),
        ("<!-- table: arms | mo -->\n<!-- end -->\n", "invented has no arm mo: choose of moe, mohge"),
        ("<!-- sentence: finding | moe -->\n<!-- end -->\n", "moe names no pair of arms: write FIRST less"),
        ("<!-- table: family | lr -->\n<!-- end -->\n", "choose one of loss.group_weight"),
        ("![](results/pareto.svg)\n", "links to the figure pareto, which is none of pareto_active"),
    ],
)
def test_marks_that_mean_nothing_are_refused(analysed, tmp_path, text, sentence):
    (tmp_path / "RESULTS.md").write_text(text)
    with pytest.raises(UserError, match=re.escape(sentence)):
        renew(tmp_path / "RESULTS.md", analysed[0])
    assert (tmp_path / "RESULTS.md").read_text() == text


def test_a_folder_of_something_else_is_left_alone(sweep, tmp_path):
    (tmp_path / "results.json").write_text('{"format": "mine"}')
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        report_sweep(config(sweep, output=tmp_path))


def test_a_table_in_markdown_keeps_its_words():
    sheet = Sheet("name", "Title", "A note_", ["arm", "size"], [["a_b|c", "1"]])
    assert table_markdown(sheet) == "| arm | size |\n| :-- | --: |\n| a\\_b\\|c | 1 |\n\nA note\\_"


def test_renewing_twice_changes_nothing(tmp_path):
    text = "<!-- table: arms -->\n<!-- end -->\n"
    once, changed = document.renewed(tmp_path, text, lambda kind, name, given: "| a |")
    assert changed == ["table arms"]
    assert document.renewed(tmp_path, once, lambda kind, name, given: "| a |") == (once, [])


def test_the_front_is_what_no_other_beats():
    # (2, 3) is beaten by (1, 3); of the two at cost 4 the better stays; equals stay both.
    assert front([(1, 3), (2, 3), (4, 1), (4, 2), (3, 2), (3, 2)]) == [0, 4, 5, 2]


def test_labels_cover_neither_each_other_nor_points():
    points = [(100.0, 100.0), (100.0, 103.0), (100.0, 106.0), (180.0, 100.0), (395.0, 100.0)]
    labels = place(points, ["first", "second", "third", "fourth", "at_the_edge"], (400, 300))
    widths = [5.9 * len(text) for text in ("first", "second", "third", "fourth", "at_the_edge")]
    boxes = [(one.x, one.y, width) for one, width in zip(labels, widths, strict=True)]
    for index, (x, y, width) in enumerate(boxes):
        assert x >= 0
        assert x + width <= 400
        for other_x, other_y, other_width in boxes[index + 1 :]:
            assert abs(y - other_y) >= 13 or x + width <= other_x or other_x + other_width <= x
        for point_x, point_y in points:
            assert abs(y - point_y) >= 6.5 or not x - 5 < point_x < x + width + 5


def test_labels_of_one_column_are_in_the_order_of_their_points():
    points = [(300.0, 150.0 + 3 * number * (-1) ** number) for number in range(16)]
    texts = [f"arm_{number}" for number in range(16)]
    labels = place(points, texts, (600, 380))
    for side in (True, False):
        column = [index for index in range(16) if (labels[index].x > 300) == side]
        assert len(column) > 4
        by_point = sorted(column, key=lambda index: points[index][1])
        assert by_point == sorted(column, key=lambda index: labels[index].y)


def test_whiskers_are_as_wide_as_the_noise_also_of_arms_that_are_one_training_at_first():
    """Twelve arms of one noise, six of them near-copies: each deviates as much as it does by itself."""
    rng = np.random.default_rng(1)
    squares = []
    for _ in range(500):
        noise_AS = rng.normal(size=(7, 3))
        values_AS = np.concatenate([noise_AS, np.repeat(noise_AS[:1], 5, axis=0)]) + rng.normal(size=3)
        arms = [estimate(dict(enumerate(values))) for values in values_AS.tolist()]
        groups = [*map(str, range(7)), *["0"] * 5]
        squares.append([one.deviation**2 for one in centred(arms, [0, 1, 2], groups)])
    np.testing.assert_allclose(np.mean(squares, 0), 1, atol=0.2)


def test_sweep_is_short_for_its_path():
    assert report.long_names(["sweep=my/dir", "output=there"]) == ["sweep.path=my/dir", "output=there"]


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["sweep.path=x", "runs=y"], "runs=y has no effect with sweep=PATH"),
        (["sweep.path=x", "tokens=5"], "tokens=5 has no effect with sweep=PATH"),
        (["sweep.path=x", "check=true"], "check=true has no effect without document=FILE"),
        (["sweep.path=x", "document=y", "check=true", "output=z"], "output=z has no effect with check=true"),
        (["runs=y", "document=z"], "document=z has no effect without sweep=PATH"),
        ([], "runs has no value: give one with runs=VALUE, or a sweep with sweep=PATH"),
        (["sweep.path=/nowhere"], "sweep=/nowhere is no sweep"),
    ],
)
def test_what_has_no_effect_is_refused(overrides, sentence):
    from composing import composed

    from mohge.config.load import typed
    from mohge.config.report_schema import ReportConfig

    settings = typed(ReportConfig, composed(*overrides, config_name="report"))
    with pytest.raises(UserError, match=re.escape(sentence)):
        report.run(settings, overrides)


def test_a_document_without_finished_cells_says_so(tmp_path):
    arms = {"moe": {"overrides": ["arch=moe"]}, "mohge": {"overrides": ["arch=mohge"]}}
    write_plan(tmp_path / "sweep", arms, [1], baseline="moe", contrasts={"it": [["mohge", "moe"]]})
    marks = ["sentence: summary", "table: costs", "table: effects", "sentence: power", "sentence: remarks"]
    blocks = [f"<!-- {mark} -->\n<!-- end -->" for mark in marks]
    (tmp_path / "R.md").write_text("\n\n".join([*blocks, "![](r/learning_curves.svg)\n"]))
    report_sweep(config(tmp_path / "sweep", document=tmp_path / "R.md"))
    said = [line for line in (tmp_path / "R.md").read_text().splitlines() if line and "<!--" not in line]
    assert said[:3] == [
        "invented: 0 of 2 cells are finished, of 2 arms with seeds 1. No difference is judged before all "
        "planned seeds of its arms are finished.",
        *["None of this is finished yet."] * 2,
    ]
    assert said[3:5] == [
        "What these seeds can show is not known yet: moe has no finished cell.",
        "- No cell of seed 1 is finished.",
    ]
    assert (
        report_sweep(config(tmp_path / "r/invented.csv", document=tmp_path / "R.md", check=True)).result[
            "document"
        ]["changed"]
        == []
    )
