"""What each expert is busy with.

Shapes: E experts of a layer, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.tokens.record import Record

TYPICAL = 8
"""Tokens that are named for each expert, at most."""
FEWEST_ROWS = 10
"""Rows of a token that an expert must have computed: a rare token is where it is by chance."""


def experts_table(record: Record, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Load of every expert of every layer, and its typical tokens.

    Typical are those of at least `FEWEST_ROWS` rows whose share among the expert's rows is largest beside
    their share among all tokens (the lift), and larger than it; of equal lift, the more frequent.

    Args:
        record: of a pass over a text.
        texts: of each token id.
    """
    experts = len(record.widths) * record.per_group
    total_V = np.bincount(record.tokens_P, minlength=len(texts))
    table = []
    for layer, pairs in enumerate(record.pairs):
        rows_E = np.bincount(pairs.expert, weights=pairs.rows, minlength=experts)
        lift = (pairs.rows / rows_E[pairs.expert]) / (total_V[pairs.token] / total_V.sum())
        candidate = (pairs.rows >= FEWEST_ROWS) & (lift > 1)
        order = np.lexsort((pairs.token, -pairs.rows, -lift))
        order = order[candidate[order]]
        for expert in range(experts):
            best = order[pairs.expert[order] == expert][:TYPICAL]
            group = expert // record.per_group
            table.append(
                {
                    "layer": layer,
                    "expert": expert,
                    "group": group,
                    "width": record.widths[group],
                    "rows": int(rows_E[expert]),
                    "load": float(rows_E[expert] / rows_E.mean()),
                    "typical": [
                        {
                            "token": texts[pairs.token[entry]],
                            "rows": int(pairs.rows[entry]),
                            "lift": float(lift[entry]),
                        }
                        for entry in best
                    ],
                }
            )
    return table
