"""Tables of means per group, domain and part of text, each with its interval.

Shapes: P positions, N sequences, G groups. A row is a pair of a token and one of the experts it went to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evaluation.tokens.intervals import Bootstrap
from evaluation.tokens.parts import PARTS
from evaluation.tokens.record import Record


def difficulty_table(record: Record, frequency_P: np.ndarray, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """How frequent and how hard the tokens of each group are, per layer, and last over all layers.

    Args:
        record: of a pass over a text.
        frequency_P: log10 of the routed token's occurrences per million training tokens.
        bootstrap: of the record's sequences.

    Returns:
        For each layer its number (None: all), the groups, and Spearman's correlation of the mean width of a
        token's experts with its rarity and with its loss: positive where rarer or harder tokens go wider.
    """
    table = []
    for layer in (*range(record.layers), None):
        rows_PG = record.rows_PG(layer)
        rows_NG = _sums(record, rows_PG)
        frequency = bootstrap.means(_sums(record, rows_PG * frequency_P[:, None]), rows_NG)
        loss = bootstrap.means(_sums(record, rows_PG * record.loss_P[:, None]), rows_NG)
        total_G = rows_PG.sum(0)
        groups = [
            {
                "group": group,
                "width": width,
                "rows": int(total_G[group]),
                "share": float(total_G[group] / total_G.sum()),
                "frequency": frequency[group],
                "loss": loss[group],
            }
            for group, width in enumerate(record.widths)
        ]
        width_P = record.mean_width_P(layer)
        table.append(
            {
                "layer": layer,
                "groups": groups,
                "rarity_correlation": bootstrap.rank_correlation(width_P, -frequency_P, record.sequence_P),
                "loss_correlation": bootstrap.rank_correlation(width_P, record.loss_P, record.sequence_P),
            }
        )
    return table


def domains_table(record: Record, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Loss of each domain's tokens, and where they went, over all layers."""
    table = []
    for number, name in enumerate(record.domains):
        entry = _subset(record, record.domain_P == number, bootstrap, {"loss": record.loss_P})
        table.append({"domain": name, **entry})
    return table


def parts_table(
    record: Record, part_P: np.ndarray, frequency_P: np.ndarray, bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Frequency and loss of the tokens of each part of text that occurs, and where they went."""
    values = {"frequency": frequency_P, "loss": record.loss_P}
    return [
        {"part": name, **_subset(record, part_P == number, bootstrap, values)}
        for number, name in enumerate(PARTS)
        if (part_P == number).any()
    ]


def _subset(
    record: Record, chosen_P: np.ndarray, bootstrap: Bootstrap, values: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Number of the chosen tokens, means of values over them, shares of groups, and mean width."""
    columns = {**values, "mean_width": record.mean_width_P(None)}
    sums_NM = _sums(record, np.stack([column * chosen_P for column in columns.values()], axis=1))
    counts_NM = np.repeat(record.by_sequence(chosen_P)[:, None], len(columns), axis=1)
    means = dict(zip(columns, bootstrap.means(sums_NM, counts_NM), strict=True))
    rows_G = record.rows_PG(None)[chosen_P].sum(0)
    width = means.pop("mean_width")
    return {
        "tokens": int(chosen_P.sum()),
        **means,
        "shares": (rows_G / rows_G.sum()).tolist(),
        "mean_width": width,
    }


def _sums(record: Record, values_PM: np.ndarray) -> np.ndarray:
    """Sums of each column over the positions of each sequence: float64 (N, M)."""
    return np.stack([record.by_sequence(column_P) for column_P in values_PM.T], axis=1)
