"""The width that a token got.

Shapes: L layers, K experts per token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor


def main_group(experts_LK: Tensor, per_group: int, groups: int) -> int:
    """The width group that got most of a token's choices over all layers; of equals, the narrowest.

    Args:
        experts_LK: ids of the token's experts, group-major.
        per_group: experts of a group.
        groups: number of groups.
    """
    counts_G = torch.bincount((experts_LK // per_group).flatten(), minlength=groups)
    return int(counts_G.argmax())


def token_texts(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[str]:
    """What each token stands for by itself; U+FFFD where that is a part of a character."""
    return tokenizer.decode_batch([[token] for token in tokens], skip_special_tokens=False)
