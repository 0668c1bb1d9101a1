"""Tables and files: the terminal, Markdown, LaTeX, and the page in a real browser."""

import io
import json
import re
from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, page
from invented import failed, realistic, right, task, write_evaluation
from rich.console import Console

from evaluation.benchmarks.comparing import compare
from evaluation.benchmarks.markup import as_latex, as_markdown, escaped
from evaluation.benchmarks.sheets import sheets
from evaluation.benchmarks.terminal import render
from evaluation.benchmarks.writing import write_comparison

HOSTILE = "a|b_c & <img src=x onerror=h()> 50% {{ 7 * 7 }} [red]"


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three arms, seven tasks, two seeds."""
    return compare(realistic(tmp_path_factory.mktemp("three"), seeds=(1, 2)))


@pytest.fixture(scope="module")
def files(three, tmp_path_factory):
    """The folder and the paths that were written."""
    folder = tmp_path_factory.mktemp("files")
    return folder, write_comparison(three, folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    tasks = {"piqa": task(right(20, 40), label=HOSTILE), "bad": failed("bad", HOSTILE)}
    mohge = write_evaluation(folder / "a", tasks, name=HOSTILE)
    moe = write_evaluation(
        folder / "b", {"piqa": task(right(10, 40), label=HOSTILE)}, arch="moe", suite=HOSTILE
    )
    return compare([mohge, moe])


def shown(comparison):
    text = io.StringIO()
    Console(file=text, width=110, legacy_windows=False).print(render(comparison))
    return text.getvalue()


def test_the_terminal_shows_three_arms_without_cutting(three):
    text = shown(three)
    assert max(map(len, text.splitlines())) <= 110
    assert "…" not in text
    for words in ("mohge less moe", "dense less moe", "Cost by task", "Widths that mohge used", "Remarks"):
        assert words in text
    for task_facts in three["tasks"].values():
        assert task_facts["label"] in text


def test_the_documentation_names_the_tables_that_the_terminal_leaves_out(three):
    text = (Path(__file__).parents[3] / "docs" / "BENCHMARK_STATISTICS.md").read_text(encoding="utf-8")
    left_out = [sheet.title for sheet in sheets(three) if not sheet.in_terminal]
    assert left_out == ["Over seeds", "Each checkpoint", "Other metrics"]
    assert all(f"*{title}*" in text for title in left_out)
    assert not any(title in shown(three) for title in left_out)


def test_the_terminal_shows_one_checkpoint_alone(tmp_path):
    found = compare([write_evaluation(tmp_path / "a", {"piqa": task(right(20, 40), label="PIQA")})])
    text = shown(found)
    assert re.search(r"PIQA \(acc\) +│ +40 │ +50.0 │ +50.0 ± 8.0 °", text)
    assert "less" not in text


def test_all_tables_have_one_cell_a_column(three):
    for sheet in sheets(three):
        assert {len(row) for row in sheet.rows} == {len(sheet.header)}, sheet.name


def test_markdown_shows_every_table(three):
    text = as_markdown(three)
    for sheet in sheets(three):
        assert f"## {sheet.title}" in text
    bars = [line.count("|") for line in text.splitlines() if line.startswith("| PIQA (acc)")]
    assert bars == [7, 7, 7, 5]  # scores of three arms, two arms' differences, three arms over seeds
    assert "exact\\_match" in text


def test_latex_is_balanced_and_escaped(three, hostile):
    for comparison in (three, hostile):
        text = as_latex(comparison)
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule")
        body = [line for line in text.splitlines() if not line.startswith("%")]
        assert not re.search(r"(?<!\\)[%#_]", "\n".join(body).replace("\\label{tab:", ""))
        assert "\N{MINUS SIGN}" not in "\n".join(body)
    assert escaped("50% & a_b ± 1 \\") == r"50\% \& a\_b $\pm$ 1 \textbackslash{}"


def test_markdown_cells_do_not_end_at_a_strangers_bar(hostile):
    lines = [line for line in as_markdown(hostile).splitlines() if line.startswith("| a")]
    assert lines
    assert all(r"a\|b\_c" in line and r"\<img" in line for line in lines if "onerror" in line)


def test_brackets_are_no_markup_of_the_terminal(hostile):
    assert "[red]" in shown(hostile)


@pytest.mark.slow
def test_files(three, files):
    folder, paths = files
    names = {path.relative_to(folder).as_posix() for path in paths}
    assert {f"comparison.{kind}" for kind in ("json", "md", "tex", "html")} <= names
    charts = {
        f"charts/{name}.{kind}"
        for name in ("differences", "differences_bits", "widths")
        for kind in ("png", "csv")
    }
    assert charts <= names
    assert all(path.stat().st_size > 0 for path in paths)
    assert json.loads((folder / "comparison.json").read_text()) == three
    rows = (folder / "charts" / "differences.csv").read_text().splitlines()
    assert rows[0] == "run,task,difference,low,high,p,p_holm,basis"
    difference = three["arms"]["mohge"]["tasks"]["piqa_local"]["difference"]
    assert rows[1].startswith(f"mohge,PIQA (acc),{100 * difference['difference']:.7g},")


def test_charts_of_an_earlier_comparison_do_not_stay(tmp_path):
    tasks = {"piqa": task(right(10, 40), label="PIQA")}
    folders = [write_evaluation(tmp_path / arch, tasks, arch=arch) for arch in ("mohge", "moe")]
    write_comparison(compare(folders), tmp_path / "tables")
    assert (tmp_path / "tables/charts/differences.png").exists()
    (tmp_path / "tables/charts/mine.png").touch()
    write_comparison(compare(folders[:1]), tmp_path / "tables")
    assert not list((tmp_path / "tables/charts").glob("differences*"))
    assert (tmp_path / "tables/charts/mine.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_in_a_browser(files, size):
    folder, _ = files
    with page(size) as tab:
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto((folder / "comparison.html").as_uri())
        tab.wait_for_selector("body[data-ready]", timeout=60_000)
        assert said == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert tab.locator(".chart svg").count() == 3
        small = tab.evaluate(
            "[...document.querySelectorAll('td, p, dd, li')].filter(one => parseFloat(getComputedStyle(one)"
            ".fontSize) < 12).length"
        )
        assert small == 0


@pytest.mark.slow
def test_names_cannot_act(hostile, tmp_path):
    write_comparison(hostile, tmp_path)
    with page() as tab:
        tab.add_init_script("window.h = () => { window.hacked = true; }")
        tab.goto((tmp_path / "comparison.html").as_uri())
        tab.wait_for_selector("body[data-ready]", timeout=60_000)
        assert tab.evaluate("window.hacked") is None
        assert tab.locator("li", has_text="{{ 7 * 7 }}").count() > 0
