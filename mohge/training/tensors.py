"""The tensors that training goes on from, by name: weights, buffers, and the optimizer's moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WEIGHTS = "model."
"""Prefix of the weights' names."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


def training_tensors(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """References to `model.<parameter or buffer>` and `optimizer.<moment>.<parameter>`, plain or distributed.

    Parameters that are not learned (`requires_grad` is False) have no moments, nor has any before the first
    step.
    """
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    tensors = {f"{WEIGHTS}{name}": tensor.detach() for name, tensor in weights.items()}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        tensors |= {f"optimizer.{moment}.{name}": state[moment] for moment in _MOMENTS if moment in state}
    return tensors


def make_moments(optimizer: torch.optim.AdamW, steps: int) -> None:
    """Makes the state of learned parameters that AdamW makes in its first step, so that it can be filled.

    Args:
        optimizer: one that has not stepped.
        steps: done by the training to go on from.
    """
    for group in optimizer.param_groups:
        for parameter in (one for one in group["params"] if one.requires_grad):
            optimizer.state[parameter] = {
                "step": torch.tensor(float(steps), dtype=torch.float32, device=parameter.device),
                **{moment: torch.zeros_like(parameter) for moment in _MOMENTS},
            }
