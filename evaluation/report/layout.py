"""The sections of the page, in reading order, with the words around tables and charts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from evaluation.report import curves, loads, page_tables, who_charts
from evaluation.report.differences import config_differences, environment_differences
from evaluation.report.gathering import Gathered
from evaluation.report.look import MANY
from evaluation.report.page import Fragment, Item, Section
from evaluation.report.tables import Chart
from evaluation.report.who import Analysis

_TEXTS = 16
"""Coloured texts, at most, over all runs: they are most of a page's bytes."""
_HISTORY = 1200
"""Points of the chart of recorded ranks, over all runs."""


def lay_out(gathered: Gathered) -> tuple[list[Section], list[Chart]]:
    """All sections that have something to show, and the charts in them."""
    sections = [
        _summary(gathered),
        _section("loss", "Loss", [curves.loss_curves(gathered.runs)]),
        _section(
            "routing",
            "Where tokens go: widths and experts",
            [curves.group_shares(gathered.runs, gathered.shares), loads.expert_load(gathered.runs)],
        ),
        _ranks(gathered),
        _section("cost", "Cost against quality", [loads.cost_quality(gathered.facts)]),
        *_who(gathered.analyses),
        _section(
            "metrics",
            "Routing and auxiliary losses over time",
            [curves.routing_metrics(gathered.runs), curves.auxiliary_losses(gathered.runs)],
        ),
        _speed(gathered),
        _differences(gathered),
    ]
    charts = [item for section in sections for item in section.items if isinstance(item, Chart)]
    return sections, charts


def _section(id: str, title: str, charts: Sequence[Chart | None], text: Sequence[str] = ()) -> Section:
    return Section(id, title, text, [chart for chart in charts if chart is not None])


def _summary(gathered: Gathered) -> Section:
    text = (
        "Active parameters are those that one token passes through: expected if all experts were used "
        "alike, and as measured in the last validation. MaxVio is the largest load of an expert over the "
        "mean, minus 1, in the worst layer: 0 is even. Shares of widths, idle experts and bits per byte are "
        "of the last validation; tokens per second are the median over the run."
    )
    section = Section("summary", "Summary", [text], [page_tables.summary(gathered.facts)])
    if gathered.seeds:
        section.items.append(page_tables.seeds(gathered.seeds))
    return section


def _ranks(gathered: Gathered) -> Section:
    balances = gathered.balances
    recorded = sum(balance.recorded for balance in balances)
    charts = [
        loads.rank_balance(balances),
        loads.rank_load(balances),
        loads.rank_history(balances, _HISTORY // max(recorded, 1), [run.name for run in gathered.runs]),
    ]
    return _section("ranks", "Balance of ranks", charts)


def _who(analyses: Sequence[Analysis]) -> list[Section]:
    """Difficulty, parts and domains; then texts and typical tokens of each run."""
    if not analyses:
        return []
    several = [analysis for analysis in analyses if len(analysis.widths) > 1]
    figures = _section(
        "who",
        "Who goes where: rare, hard and special tokens",
        [
            who_charts.difficulty(several, "frequency"),
            who_charts.difficulty(several, "loss"),
            who_charts.shares(several, "parts"),
            who_charts.shares(several, "domains"),
        ],
        [_sample(analyses)],
    )
    coloured = (
        ["Each token has the colour of the width of its experts. Open a run to read."] if several else []
    )
    texts = Section("texts", "A text, coloured by width", coloured)
    for number, analysis in enumerate(several[:_TEXTS]):
        texts.items.append(_text(analysis, max(1, _TEXTS // len(several)), first=number == 0))
    if len(analyses) > MANY:
        return [figures, texts]
    lift = "Tokens that an expert gets more often than others do: 3.0x is three times the usual share."
    tables = [page_tables.typical_tokens(analysis) for analysis in analyses]
    typical = Section("typical", "Typical tokens of each expert", [lift], [*tables])
    return [figures, texts, typical]


def _sample(analyses: Sequence[Analysis]) -> str:
    sizes = [analysis.data["tokens"] for analysis in analyses]
    corpora = sorted({f"{analysis.data['corpus']} ({analysis.data['split']})" for analysis in analyses})
    size = f"{min(sizes):,}" if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"
    return (
        f"Of {size} tokens of {', '.join(corpora)}, at the newest checkpoint that was looked at. The same "
        "tables, for each layer, are in the folder tokens/ of each run."
    )


def _text(analysis: Analysis, most: int, *, first: bool) -> Fragment:
    # Late, as in `who`: not every report has one.
    from evaluation.tokens.coloured import coloured_text

    texts = analysis.data["texts"]
    html = Markup(coloured_text(texts[:most], analysis.widths)) if texts else Markup("")
    shown = f"{min(most, len(texts))} of {len(texts)} texts; all are in {analysis.folder / 'text.html'}"
    return Fragment(analysis.run, shown, html, open=first)


def _speed(gathered: Gathered) -> Section:
    section = _section("speed", "Speed", [curves.speed(gathered.runs), curves.time_split(gathered.runs)])
    if any(gathered.alarms.values()):
        section.items.append(page_tables.alarms(gathered.alarms))
    return section


def _differences(gathered: Gathered) -> Section:
    several = len(gathered.runs) > 1
    text = [] if several else ["There is one run: nothing to compare."]
    items: list[Item] = []
    configs = config_differences(gathered.runs)
    environments = environment_differences(gathered.environments)
    if configs.keys:
        items.append(page_tables.differences("Configuration: keys that differ", configs))
    elif several:
        text.append("All configurations are the same.")
    if environments.keys:
        items.append(page_tables.differences("Environment: what differs", environments))
    if environments.shared:
        shared = "; ".join(f"{name} {value}" for name, value in environments.shared.items())
        text.append(f"Environment{' of all runs' * several}: {shared}.")
    return Section("differences", "What differs between the runs", text, items)
