"""A text of two tokens whose routing is made up, so that every table can be worked out by hand."""

from __future__ import annotations

import numpy as np

from evaluation.tokens.record import Pairs, Record

SEQUENCES, COMMON, RARE = 10, 0, 1
FREQUENCY_V = np.array([5.0, 3.0])
LOSS_V = np.array([1.0, 4.0])
WIDTHS = (10, 30)


def decided() -> Record:
    """Ten sequences: common, common, common, rare; of 4 experts in 2 groups, each token takes one.

    Layer 0: the common token goes to the narrow experts 0 and 1 (20 and 10 times), the rare one to wide
    expert 2. Layer 1: the common one to wide expert 3, the rare one to narrow expert 0.
    """
    tokens_P = np.tile([COMMON, COMMON, COMMON, RARE], SEQUENCES)
    groups_PLG = np.zeros((len(tokens_P), 2, 2), np.uint8)
    groups_PLG[tokens_P == COMMON, 0, 0] = groups_PLG[tokens_P == RARE, 0, 1] = 1
    groups_PLG[tokens_P == COMMON, 1, 1] = groups_PLG[tokens_P == RARE, 1, 0] = 1
    return Record(
        tokens_P=tokens_P,
        loss_P=LOSS_V[tokens_P],
        sequence_P=np.repeat(np.arange(SEQUENCES), 4),
        domain_N=np.repeat([0, 1], SEQUENCES // 2),
        groups_PLG=groups_PLG,
        pairs=(
            Pairs(np.array([0, 1, 2]), np.array([COMMON, COMMON, RARE]), np.array([20, 10, 10])),
            Pairs(np.array([0, 3]), np.array([RARE, COMMON]), np.array([10, 30])),
        ),
        domains=("first", "second"),
        widths=WIDTHS,
        per_group=2,
    )
