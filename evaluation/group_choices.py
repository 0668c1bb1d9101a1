"""How many choices of experts fell on each width group.

Shapes: B rows, S positions, G width groups, K experts per token, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mohge.moe.decision import RoutingDecision


def group_choices(decisions: Sequence[RoutingDecision], lengths: Sequence[int], longest: int) -> Tensor:
    """Choices of experts of each width group by each row's own positions, over all layers: int64 (B, G).

    Args:
        decisions: of the layers, for B * longest positions; none of a dense model, where G is 0.
        lengths: positions of each row; those behind them are padding.
        longest: S.
    """
    rows = len(lengths)
    if not decisions:
        return torch.zeros(rows, 0, dtype=torch.int64)
    groups, per_group = decisions[0].num_groups, decisions[0].experts_per_group
    group_LBX = torch.stack([each.expert_ids_TK for each in decisions]) // per_group
    group_LBSK = group_LBX.view(len(decisions), rows, longest, -1)
    device = group_LBSK.device
    real_BS = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
    row_B1 = torch.arange(rows, device=device)[:, None]
    cell_LBSK = group_LBSK + (row_B1 * groups)[:, None]
    chosen = cell_LBSK[:, real_BS]
    return torch.bincount(chosen.flatten(), minlength=rows * groups).view(rows, groups).cpu()
