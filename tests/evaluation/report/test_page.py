"""The page in a real browser: small, quick, without network, legible on a desk and on a phone."""

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import DESKTOP, PHONE, page
from composing import composed
from fabricated_runs import write_whole_run

from evaluation.report.making import make_report
from evaluation.report.page import Section, render
from evaluation.report.tables import Chart, DataTable
from mohge.config.load import typed
from mohge.config.report_schema import ReportConfig

ALL_CHARTS = {"loss_curves", "group_shares", "expert_load", "rank_balance", "rank_load", "rank_history"}
ALL_CHARTS |= {"cost_quality", "token_frequency", "token_loss", "parts", "domains", "routing_metrics"}
ALL_CHARTS |= {"auxiliary_losses", "speed", "time_split"}


def report(*runs, **settings):
    config = typed(ReportConfig, composed("runs=none", "tokens=0", config_name="report"))
    return make_report(dataclasses.replace(config, runs=tuple(map(str, runs)), **settings))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """One report of three runs: two ranks, one process, dense."""
    folder = tmp_path_factory.mktemp("three")
    for arch in ("mohge", "moe", "dense"):
        write_whole_run(folder / arch, f"arch={arch}", ranks=2 if arch == "mohge" else 1)
    experts = folder / "mohge" / "routing.jsonl"
    lines = [json.loads(line) for line in experts.read_text().splitlines()]
    lines[-1]["expert_counts"][2][5] = 0
    experts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return report(folder)


@pytest.fixture(scope="module")
def thirty(tmp_path_factory):
    """The page of thirty runs of 1000 logged steps each, ten of each architecture."""
    folder = tmp_path_factory.mktemp("thirty")
    for arch in ("mohge", "moe", "dense"):
        source = write_whole_run(folder / arch / "0", f"arch={arch}", steps=3000)
        for number in range(1, 10):
            copy = folder / arch / str(number)
            copy.mkdir()
            for path in source.rglob("*.*"):
                if path.is_file():
                    target = copy / path.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
    return folder / report(folder)["page"]


def open_page(tab, path):
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.absolute().as_uri())
    tab.wait_for_selector("body[data-ready]", timeout=60_000)
    assert said == []
    return float(tab.evaluate("document.body.dataset.ready"))


@pytest.mark.slow
def test_each_chart_has_a_picture_and_its_figures(three):
    assert {Path(name).name for name in three["charts"]} == ALL_CHARTS
    folder = Path(three["page"]).parent
    for name in three["charts"]:
        png = (folder / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert len(png) > 5000
        header, *rows = (folder / f"{name}.csv").read_text().splitlines()
        assert header.startswith("run,")
        assert rows
    assert sorted(path.stem for path in (folder / "charts").iterdir()) == sorted([*ALL_CHARTS, *ALL_CHARTS])


@pytest.mark.slow
def test_report_json_has_what_the_page_says(three):
    folder = Path(three["page"]).parent
    assert json.loads((folder / "report.json").read_text()) == three
    by_name = {run["name"]: run for run in three["runs"]}
    assert by_name["mohge"]["idle_experts"] == [{"layer": 2, "expert": 5, "width": 80}]
    assert by_name["mohge"]["rank_balance"]["max_over_mean"] == {"as trained": pytest.approx(240 / 220)}
    assert by_name["moe"]["rank_balance"]["ranks"] == 8
    assert by_name["dense"]["rank_balance"] is None
    assert three["remarks"] == []
    text = (folder / "report.html").read_text()
    for run in three["runs"]:
        for one in run["answers"]:
            assert one["answer"] in text


class Headings(HTMLParser):
    def __init__(self):
        super().__init__()
        self.levels, self.languages, self.unlabelled = [], [], []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("h1", "h2", "h3", "h4"):
            self.levels.append(int(tag[1]))
        if tag == "html":
            self.languages.append(given.get("lang"))
        if tag == "th" and given.get("scope") not in ("col", "row"):
            self.unlabelled.append(given)
        if tag == "figure" and not given.get("aria-labelledby"):
            self.unlabelled.append(given)


@pytest.mark.slow
def test_the_page_can_be_read_by_ear(three):
    parser = Headings()
    parser.feed(Path(three["page"]).read_text())
    assert parser.languages == ["en"]
    assert parser.levels[0] == 1
    assert parser.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(parser.levels, parser.levels[1:], strict=False))
    assert parser.unlabelled == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_charts_are_drawn_and_nothing_sticks_out(three, tmp_path, size):
    with page(size) as tab:
        open_page(tab, Path(three["page"]))
        assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
        marks = tab.evaluate(
            "Object.fromEntries([...document.querySelectorAll('.chart')].map(box => "
            "[box.id.slice(6), box.querySelectorAll('svg .mark-group path, svg .mark-text text').length]))"
        )
        assert set(marks) == ALL_CHARTS
        assert min(marks.values()) > 5
        described = tab.evaluate(
            "[...document.querySelectorAll('.chart svg')].every(svg => svg.getAttribute('aria-label') || "
            "svg.closest('figure').getAttribute('aria-labelledby'))"
        )
        assert described
        crosses = tab.locator("#chart-expert_load svg text", has_text="\N{MULTIPLICATION SIGN}").count()
        assert crosses == 1
        tab.screenshot(path=tmp_path / "report.png", full_page=True)


@pytest.mark.slow
def test_the_page_fits_paper(three):
    with page() as tab:
        open_page(tab, Path(three["page"]))
        tab.emulate_media(media="print")
        tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        # A printer lays out anew, and draws no chart anew.
        tab.evaluate("window.addEventListener('resize', event => event.stopImmediatePropagation(), true)")
        tab.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
        assert tab.evaluate("document.documentElement.scrollWidth") <= 718
        assert tab.evaluate("[...document.querySelectorAll('details')].every(one => one.open)")


@pytest.mark.slow
def test_a_click_on_the_legend_leaves_one_run(three):
    with page() as tab:
        open_page(tab, Path(three["page"]))
        tab.locator("#chart-loss_curves .role-legend-label text", has_text="moe").first.click()
        faded = "#chart-loss_curves svg .mark-line path[opacity='0.1']"
        tab.wait_for_selector(faded, state="attached")
        assert tab.locator(faded).count() == 4  # of two other runs, in two panels


@pytest.mark.slow
def test_thirty_runs_are_light_and_quick(thirty, tmp_path):
    assert thirty.stat().st_size < 5e6
    with page() as tab:
        # What else the machine does can only slow it down: the quickest of three counts.
        assert min(open_page(tab, thirty) for _ in range(3)) < 2000
        tab.screenshot(path=tmp_path / "thirty.png", full_page=True)
        choose = tab.locator("#chart-expert_load").locator("xpath=preceding-sibling::div//select")
        choose.select_option("mohge/3")
        other = "shown.get(document.querySelector('#chart-parts')).view.signal('chosen')"
        tab.wait_for_function(f"{other} === 'mohge/3'")
        assert tab.locator("#chart-expert_load svg text", has_text="144 · 15").count() == 1


@pytest.mark.slow
def test_names_of_runs_cannot_act(tmp_path):
    hostile = "script><img src=x onerror=h()>"
    write_whole_run(tmp_path / "x<" / hostile, "arch=mohge")
    write_whole_run(tmp_path / 'quote"and,comma' / "{{ 7 * 7 }}", "arch=moe")
    result = report(tmp_path)
    names = [run["name"] for run in result["runs"]]
    assert names == ['quote"and,comma/{{ 7 * 7 }}', f"x</{hostile}"]
    with page() as tab:
        tab.add_init_script("window.h = () => { window.hacked = true; }")
        open_page(tab, Path(result["page"]))
        assert tab.evaluate("window.hacked") is None
        assert tab.locator("h3", has_text=f"x</{hostile}").count() > 0
        assert tab.locator("h3", has_text="{{ 7 * 7 }}").count() > 0
        labels = tab.locator("#chart-loss_curves .role-legend-label text").all_text_contents()
        assert len(labels) == 2
        assert labels[0].startswith('quote"and,comma/{{ 7')


def test_a_specification_cannot_end_its_script():
    table = DataTable(("run",), [])
    chart = Chart("name", "title", "note", table, {"usermeta": {}, "x": "</script><!--"}, {})
    text = render("<b>title</b>", [], [Section("id", "title", [], [chart])], ["<i>remark</i>"])
    assert "</script><!--" not in text
    assert r"\u003c/script\u003e\u003c!--" in text
    assert "&lt;b&gt;title" in text
    assert "&lt;i&gt;remark" in text
