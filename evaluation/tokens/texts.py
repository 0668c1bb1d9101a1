"""Pieces of the text that was read, token by token, to be coloured by width.

Shapes: P positions, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.tokens.parts import PARTS
from evaluation.tokens.record import Record

EXCERPT = 160
"""Tokens shown of each domain."""
DOMAINS = 8
"""Domains that are shown, at most."""
LONGEST = 5000
"""Tokens shown of a text of the user's: more would make a page that browsers find heavy."""


def excerpts(
    record: Record, part_P: np.ndarray, texts: Sequence[str], *, whole: bool
) -> list[dict[str, Any]]:
    """The beginning of the first window of each domain or, of a text of the user's, all of it.

    Args:
        record: of a pass over a text.
        part_P: part of text of each position, as an index of `PARTS`.
        texts: of each token id.
        whole: whether the record is of a user's text, of which `LONGEST` tokens are taken.
    """
    width_PL = np.stack([record.mean_width_P(layer) for layer in range(record.layers)], axis=1)
    found = []
    for number, name in enumerate(record.domains[:DOMAINS]):
        (places,) = np.nonzero(record.domain_P == number)
        if not whole:
            places = places[record.sequence_P[places] == record.sequence_P[places[0]]]
        tokens = [
            {
                "text": texts[record.tokens_P[place]],
                "part": PARTS[part_P[place]],
                "widths": [round(float(width), 1) for width in width_PL[place]],
                "loss": round(float(record.loss_P[place]), 3),
            }
            for place in places[: LONGEST if whole else EXCERPT]
        ]
        found.append({"source": name, "tokens": tokens})
    return found
