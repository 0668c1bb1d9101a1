"""Several finished runs beside a baseline: one table, one JSON file, pictures."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from evaluation.plots import draw_all
from evaluation.run_data import RunData, read_run
from mohge.errors import UserError
from mohge.files import write_json_atomically


def compare(runs: dict[str, Path], baseline: str, output_dir: Path) -> dict[str, Any]:
    """Print one table of finished runs, and write comparison.json and pictures.

    Args:
        runs: run folders, by the name to show.
        baseline: name of the run that the others are compared with.
        output_dir: where comparison.json and the pictures go.

    Returns:
        What comparison.json holds.

    Raises:
        UserError: a run folder misses a file or holds a damaged one, or the baseline is not among the runs.
    """
    if baseline not in runs:
        raise UserError(f"baseline={baseline} is not among the runs: choose one of {', '.join(runs)}")
    read = [read_run(name, path) for name, path in runs.items()]
    facts = {run.name: _facts(run) for run in read}
    for fact in facts.values():
        fact["fewer_parameters"] = 1 - fact["parameters"]["total"] / facts[baseline]["parameters"]["total"]
    result: dict[str, Any] = {"baseline": baseline, "runs": facts}
    result["plots"] = [str(path) for path in draw_all(read, output_dir)]
    write_json_atomically(output_dir / "comparison.json", result)
    console = Console()
    console.print(_table(facts, baseline))
    for remark in _remarks(facts, baseline):
        console.print(remark, highlight=False, soft_wrap=True)
    console.print(f"comparison.json and plots: {output_dir}", highlight=False, soft_wrap=True)
    return result


def _facts(run: RunData) -> dict[str, Any]:
    """The machine-readable row of one run."""
    widths = run.config.experts.widths
    shares = run.rows_share()
    speeds = run.series("speed/tokens_per_second")[1]
    expected = run.budget["active_parameters"]["expected"]
    measured = run.last("val/routing/active_parameters") if run.config.experts.num_experts else expected
    bits = "val/bits_per_byte"
    by_domain = sorted({metric for row in run.metrics for metric in row if metric.startswith(f"{bits}/")})
    return {
        "path": str(run.path),
        "arch": run.config.arch_name,
        "model": run.config.model.name,
        "seed": run.config.seed,
        "state": run.status.get("state"),
        "step": run.metrics[-1]["step"],
        "tokens": run.metrics[-1]["tokens"],
        "parameters": run.budget["parameters"],
        "active_parameters": {**run.budget["active_parameters"], "measured": measured},
        "train_loss": run.last("train/loss"),
        "validation": {
            "bits_per_byte": run.last(bits),
            "loss": run.last("val/loss"),
            "perplexity": run.last("val/perplexity"),
            "bits_per_byte_by_domain": {
                metric.removeprefix(f"{bits}/"): run.last(metric) for metric in by_domain
            },
        },
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "groups": [
            {"width": width, "share_of_rows": shares[group] if shares else None}
            for group, width in enumerate(widths)
        ],
    }


def _table(facts: dict[str, dict[str, Any]], baseline: str) -> Table:
    table = Table(title="Comparison", title_justify="left")
    table.add_column("")
    for name in facts:
        header = f"{name} (baseline)" if name == baseline else name
        table.add_column(header, justify="right", overflow="fold")

    def row(label: str, cell: Callable[[dict[str, Any]], str]) -> None:
        table.add_row(label, *(cell(fact) for fact in facts.values()))

    row("training tokens", lambda fact: _short(fact["tokens"]))
    row("total parameters", lambda fact: _short(fact["parameters"]["total"]))
    row("active per token, expected", lambda fact: _short(fact["active_parameters"]["expected"]))
    row("active per token, measured", lambda fact: _short(fact["active_parameters"]["measured"]))
    row("validation bits per byte", lambda fact: _number(fact["validation"]["bits_per_byte"], ".4f"))
    row("tokens per second", lambda fact: _number(fact["tokens_per_second"]))
    row("share of tokens per group\n(by width of its experts)", _group_cell)
    return table


def _group_cell(fact: dict[str, Any]) -> str:
    if not fact["groups"]:
        return "no routing"
    return "\n".join(f"{g['width']}: {_number(g['share_of_rows'], '5.1%')}" for g in fact["groups"])


def _number(value: float | None, form: str = ",.0f") -> str:
    return "not recorded" if value is None else format(value, form)


def _short(value: float | None) -> str:
    """Four digits and a unit, such as 3.190M; the exact value is in comparison.json."""
    if value is None:
        return "not recorded"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            digits = f"{value / size:#.4g}"
            return f"{digits.rstrip('.')}{unit}"
    return f"{value:.0f}"


def _remarks(facts: dict[str, dict[str, Any]], baseline: str) -> list[str]:
    """Sentences under the table."""
    base = facts[baseline]
    remarks = []
    for name, fact in facts.items():
        if name == baseline:
            continue
        share = fact["fewer_parameters"]
        remarks.append(
            f"{name} has {abs(share):.1%} {'fewer' if share >= 0 else 'more'} parameters than {baseline} "
            f"({fact['parameters']['total']:,} against {base['parameters']['total']:,})."
        )
        if fact["tokens"] != base["tokens"]:
            remarks.append(f"{name} and {baseline} saw different numbers of tokens: not comparable.")
    unfinished = {name: fact["state"] for name, fact in facts.items() if fact["state"] != "finished"}
    remarks += [f"{name} is {state}, not finished." for name, state in unfinished.items()]
    if any(fact["groups"] for fact in facts.values()):
        remarks.append(
            "Share of tokens: of the last validation's token-expert pairs, those a group computed."
        )
    return remarks
