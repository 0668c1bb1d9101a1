"""The tables of the page: summary, seeds, alarms, differences, typical tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report.differences import Differences
from evaluation.report.page import PageTable
from evaluation.report.who import Analysis

_VIRIDIS = ("#440154", "#443983", "#31688e", "#21918c", "#35b779", "#90d743")
_NONE = "not recorded"


def summary(facts: Sequence[dict[str, Any]]) -> PageTable:
    """A row for each run."""
    header = ["run", "model", "seed", "state", "training tokens", "validation bits per byte", "parameters"]
    header += ["active, expected", "active, measured", "training FLOPs per token", "tokens per second"]
    header += ["share of rows per width", "idle experts", "MaxVio", "alarms"]
    rows = []
    for fact in facts:
        active, flops = fact["active_parameters"], fact["train_flops_per_token"]
        idle = fact["idle_experts"]
        rows.append(
            [
                *(fact["name"], f"{fact['model']} {fact['arch']}", str(fact["seed"])),
                *(str(fact["state"] or "unknown"), short(fact["tokens"])),
                *(number(fact["bits_per_byte"], ".4f"), short(fact["parameters"])),
                *(short(active["expected"]), short(active["measured"])),
                short(flops["measured"] or flops["expected"]),
                number(fact["tokens_per_second"], ",.0f"),
                _shares(fact["groups"]),
                "no routing" if not fact["groups"] else _NONE if idle is None else str(len(idle)),
                number(fact["max_violation"], ".2f"),
                str(sum(fact["alarms"].values())),
            ]
        )
    return PageTable("Runs, one a row", header, rows)


def seeds(rows: Sequence[dict[str, Any]]) -> PageTable:
    """Mean and deviation over seeds, of `facts.over_seeds`."""
    header = ("model", "training tokens", "seeds", "validation bits per byte", "tokens per second")
    body = [
        [
            *(f"{row['model']} {row['arch']}", f"{row['tokens']:,}", str(row["runs"])),
            *(_deviating(row["bits_per_byte"], ".4f"), _deviating(row["tokens_per_second"], ",.0f")),
        ]
        for row in rows
    ]
    return PageTable("Runs that differ in seed: mean ± standard deviation", header, body)


def alarms(by_run: Mapping[str, Sequence[dict[str, Any]]]) -> PageTable:
    """A row for each alarm."""
    rows = [
        [name, f"{alarm['step']:,}", f"{alarm['tokens']:,}", alarm["kind"], alarm["text"]]
        for name, found in by_run.items()
        for alarm in found
    ]
    header = ("run", "step", "training tokens", "kind", "what happened, and what helps")
    return PageTable("Alarms", header, rows, wrapped=frozenset({4}))


def differences(caption: str, found: Differences) -> PageTable:
    """A row for each run, a column for each key that differs."""
    rows = [[name, *values] for name, values in found.values.items()]
    return PageTable(caption, ("run", *found.keys), rows)


def typical_tokens(analysis: Analysis) -> PageTable:
    """A row for each expert: the tokens that it gets more often than others."""
    rows = []
    for expert in analysis.data["experts"]:
        tokens = ", ".join(f"“{_visible(one['token'])}” {one['lift']:.1f}x" for one in expert["typical"])
        name = f"layer {expert['layer']} expert {expert['expert']}"
        rows.append([name, str(expert["width"]), f"{expert['load']:.2f}", tokens or "none often enough"])
    header = ("expert", "width", "load", "typical tokens")
    return PageTable(f"{analysis.run}: typical tokens", header, rows, wrapped=frozenset({3}), folded=True)


def number(value: float | None, form: str) -> str:
    """A figure, or that there is none."""
    return _NONE if value is None else format(value, form)


def short(value: float | None) -> str:
    """Four digits and a unit, such as 3.190M; report.json has the exact value."""
    if value is None:
        return _NONE
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:#.4g}".rstrip(".") + unit
    return f"{value:.0f}"


def _shares(groups: Sequence[dict[str, Any]]) -> str | dict[str, Any]:
    """`48: 27% · 80: 25%`, over a bar with the same shares, dark narrow and light wide."""
    if not groups:
        return "no routing"
    if any(group["share"] is None for group in groups):
        return _NONE
    last = max(len(groups) - 1, 1)
    colours = [_VIRIDIS[round(index / last * (len(_VIRIDIS) - 1))] for index in range(len(groups))]
    return {
        "text": " · ".join(f"{group['width']}: {group['share']:.0%}" for group in groups),
        "parts": [(group["share"], colour) for group, colour in zip(groups, colours, strict=True)],
    }


def _visible(token: str) -> str:
    """A token whose spaces, line breaks and tabs can be seen."""
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "→")


def _deviating(value: dict[str, float | None], form: str) -> str:
    mean, deviation = value["mean"], value["deviation"]
    if mean is None or deviation is None:
        return _NONE
    return f"{mean:{form}} ± {deviation:{form}}"
