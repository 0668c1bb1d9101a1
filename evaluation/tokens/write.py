"""The files of an analysis: tokens.json, the coloured text, and a CSV of each table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from evaluation.tokens.coloured import coloured_page
from mohge.files import atomic_folder


def write_folder(folder: Path, result: dict[str, Any]) -> None:
    """Writes the folder, whole or not at all.

    Raises:
        UserError: it is taken, or the disk refuses.
    """
    tables = {
        "difficulty": _difficulty_rows(result),
        "parts": [_flat(entry, result["widths"]) for entry in result["parts"]],
        "domains": [_flat(entry, result["widths"]) for entry in result["domains"]],
        "experts": [_expert_row(entry) for entry in result["experts"]],
    }
    with atomic_folder(folder) as temporary:
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
        (temporary / "tokens.json").write_text(text + "\n", encoding="utf-8")
        (temporary / "text.html").write_text(coloured_page(result), encoding="utf-8")
        for name, rows in tables.items():
            with (temporary / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def _difficulty_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each layer and group; the correlations of a layer are in each of its rows."""
    rows = []
    for entry in result["difficulty"]:
        layer = "all" if entry["layer"] is None else entry["layer"]
        of_layer: dict[str, Any] = {}
        for name in ("rarity_correlation", "loss_correlation"):
            found = entry[name] or dict.fromkeys(("rho", "low", "high"))
            of_layer |= {f"{name}_{key}": value for key, value in found.items()}
        rows += [{"layer": layer, **_flat(group, result["widths"]), **of_layer} for group in entry["groups"]]
    return rows


def _flat(entry: dict[str, Any], widths: list[int]) -> dict[str, Any]:
    """An entry of a table as cells: NAME, NAME_low, NAME_high for a mean, one for each group's share."""
    cells: dict[str, Any] = {}
    for name, value in entry.items():
        if isinstance(value, dict):
            cells |= {name: value["mean"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        elif name == "shares":
            cells |= {
                f"share_group_{group}_width_{widths[group]}": share for group, share in enumerate(value)
            }
        else:
            cells[name] = value
    return cells


def _expert_row(entry: dict[str, Any]) -> dict[str, Any]:
    """An expert's row; its typical tokens as JSON, since they may hold any character."""
    tokens = [typical["token"] for typical in entry["typical"]]
    return {**entry, "typical": json.dumps(tokens, ensure_ascii=False)}
