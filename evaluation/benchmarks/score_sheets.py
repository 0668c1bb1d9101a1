"""Tables of scores and of differences to the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.benchmarks.answers import SIGNIFICANT, finding
from evaluation.benchmarks.figures import NONE, digits, probability, with_error, with_interval
from evaluation.benchmarks.sheet import Sheet, macro_name, task_name

_BESIDE = 4
"""Arms beside each other in a table, at most."""
_GUESSING = "°"


def scores(comparison: Mapping[str, Any]) -> list[Sheet]:
    """A row for each task, a column for each arm; several tables of many arms."""
    names = list(comparison["arms"])
    parts = [names[start : start + _BESIDE] for start in range(0, len(names), _BESIDE)]
    return [_scores(comparison, part, number) for number, part in enumerate(parts)]


def _scores(comparison: Mapping[str, Any], names: list[str], number: int) -> Sheet:
    arms = [comparison["arms"][name] for name in names]
    rows = []
    for task, facts in comparison["tasks"].items():
        chance = digits(100 * facts["chance"]) if facts["chance"] is not None else NONE
        cells = [_score(arm["tasks"][task], facts["in_percent"]) for arm in arms]
        rows.append([task_name(facts), f"{facts['items']:,}", chance, *cells])
    if comparison["macro_tasks"]:
        rows.append([macro_name(comparison), "", "", *(_score(arm["macro"], True) for arm in arms)])
    kinds = {len(arm["seeds"]) > 1 for arm in arms}
    meaning = "standard error over items" if False in kinds else ""
    meaning += " of one checkpoint, " if len(kinds) > 1 else ""
    meaning += "deviation over seeds" if True in kinds else ""
    note = f"Accuracies in percent, ± {meaning}."
    if any(_GUESSING in cell for row in rows for cell in row):
        note += f" {_GUESSING} not above guessing (chance)."
    return Sheet(
        "scores" if number == 0 else f"scores_{number + 1}",
        "Scores" if number == 0 else "Scores, continued",
        note,
        ["task (metric)", "items", "chance", *(_heading(comparison, name) for name in names)],
        rows,
    )


def _heading(comparison: Mapping[str, Any], name: str) -> str:
    seeds = len(comparison["arms"][name]["seeds"])
    is_base = len(comparison["arms"]) > 1 and name in comparison["baselines"]
    return name + (", baseline" if is_base else "") + (f", {seeds} seeds" if seeds > 1 else "")


def _score(facts: Mapping[str, Any], percent: bool) -> str:
    several = facts["over_seeds"]
    error = several["deviation"] if several is not None else facts["stderr"]
    shown = with_error(facts["score"], error, percent=percent)
    return f"{shown} {_GUESSING}" if facts.get("above_chance") == 0 else shown


def differences(comparison: Mapping[str, Any], name: str) -> Sheet:
    """A row for each task that an arm and its baseline have both answered."""
    arm = comparison["arms"][name]
    lines: list[tuple[str, dict[str, Any], bool, bool, float | None]] = []
    for task, facts in comparison["tasks"].items():
        found = arm["tasks"][task]["difference"]
        if found is not None:
            kind = (facts["in_percent"], facts["higher_is_better"])
            lines.append((task_name(facts), found, *kind, found["p_holm"]))
    macro = (arm["macro"] or {}).get("difference")
    if macro is not None:
        lines.append((macro_name(comparison), macro, True, True, None))
    several = any(change["over_seeds"] is not None for _, change, *_ in lines)
    header = ["task (metric)", "difference (95%)", "p", "p, Holm", "finding"]
    rows = []
    for label, change, percent, higher, p_holm in lines:
        ends = [change[key] for key in ("difference", "low", "high")]
        shown = with_interval(*ends, percent=percent, signed=True)
        said = finding(change, higher, change["p"] if change is macro else p_holm)
        row = [label, shown, probability(change["p"]), probability(p_holm), said]
        if several:
            row.insert(2, _by_seed(change, percent))
        rows.append(row)
    if several:
        header.insert(2, "by seed")
        note = (
            "Mean difference over seeds, paired by seed, with its 95% t interval, and p of the paired t "
            "test. By seed: the same two checkpoints on the same items, * if p of that test alone is below "
            f"{SIGNIFICANT}."
        )
    else:
        note = (
            "Two checkpoints on the same items, with a 95% bootstrap interval, and p of McNemar's exact test "
            "or, where items are more than right or wrong, of a permutation test."
        )
    note += " Accuracies in points of percent. Holm's correction is over the tasks."
    title = f"{name} less {arm['baseline']}"
    return Sheet(f"difference_{name}", title, note, header, rows, frozenset({len(header) - 1}))


def _by_seed(found: Mapping[str, Any], percent: bool) -> str:
    shown = []
    for one in found["by_seed"]:
        mark = "*" if one["p"] is not None and one["p"] < SIGNIFICANT else ""
        value = with_interval(one["difference"], one["low"], one["high"], percent=percent, signed=True)
        shown.append(value.partition(" ")[0] + mark)
    return " ".join(shown)


def over_seeds(comparison: Mapping[str, Any]) -> Sheet:
    """Means of arms with several seeds, with t intervals."""
    arms = {name: arm for name, arm in comparison["arms"].items() if len(arm["seeds"]) > 1}
    rows = []
    lines = [
        (task_name(facts), facts["in_percent"], [arm["tasks"][task] for arm in arms.values()])
        for task, facts in comparison["tasks"].items()
    ]
    if comparison["macro_tasks"]:
        lines.append((macro_name(comparison), True, [arm["macro"] for arm in arms.values()]))
    for label, percent, found in lines:
        cells = []
        for one in found:
            ends = one["over_seeds"] or {}
            cells.append(with_interval(one["score"], ends.get("low"), ends.get("high"), percent=percent))
        rows.append([label, *cells])
    note = "Mean over seeds with its 95% t interval: other seeds on these very items."
    header = ["task (metric)", *(_heading(comparison, name) for name in arms)]
    return Sheet("over_seeds", "Over seeds", note, header, rows, in_terminal=False)


def checkpoints(comparison: Mapping[str, Any]) -> Sheet:
    """A row for each checkpoint, a column for each task."""
    tasks = comparison["tasks"]
    rows = []
    for one in comparison["checkpoints"]:
        cells = []
        for task, facts in tasks.items():
            found = one["tasks"].get(task)
            if found is None or found["status"] == "failed":
                cells.append(NONE if found is None else "failed")
                continue
            score = found["metrics"][found["primary"]]
            shown = with_error(score["value"], score["stderr"], percent=facts["in_percent"])
            guessing = found["against_chance"] not in (None, "above")
            cells.append(f"{shown} {_GUESSING}" if guessing else shown)
        macro = one["macro"] or {"value": None, "stderr": None}
        cells += (
            [with_error(macro["value"], macro["stderr"], percent=True)] if comparison["macro_tasks"] else []
        )
        rows.append([one["arm"], NONE if one["seed"] is None else str(one["seed"]), *cells])
    header = ["arm", "seed", *(task_name(facts) for facts in tasks.values())]
    header += [macro_name(comparison)] if comparison["macro_tasks"] else []
    note = f"Each score ± its standard error over items. {_GUESSING} not above guessing (chance)."
    return Sheet("checkpoints", "Each checkpoint", note, header, rows, in_terminal=False)


def other_metrics(comparison: Mapping[str, Any]) -> Sheet:
    """Metrics beside the primary ones, whose p is not adjusted."""
    rows = []
    for task, facts in comparison["tasks"].items():
        for metric, kind in facts["metrics"].items():
            for name, arm in comparison["arms"].items():
                found = arm["tasks"][task]["other_metrics"].get(metric)
                if found is None or found["score"] is None:
                    continue
                percent = facts["in_percent"] and kind["aggregation"] == "mean" and abs(found["score"]) <= 1
                change = found["difference"] or dict.fromkeys(("difference", "low", "high", "p"))
                ends = [change[key] for key in ("difference", "low", "high")]
                shown = with_interval(*ends, percent=percent, signed=True)
                row = [
                    task_name(facts, metric),
                    name,
                    _score(found, percent),
                    shown,
                    probability(change["p"]),
                ]
                rows.append(row)
    note = "Differences to the arm's baseline. p is not adjusted for the number of tests."
    header = ["task (metric)", "arm", "score", "difference (95%)", "p"]
    return Sheet("other_metrics", "Other metrics", note, header, rows, frozenset({1}), in_terminal=False)
