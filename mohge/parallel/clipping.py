"""The norm of gradients that are spread over ranks in several ways, and clipping by it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from mohge.parallel.local import local_part
from mohge.parallel.world import add_over_ranks


def gradient_norm(parameters: Iterable[nn.Parameter], copies: int | None) -> Tensor:
    """Euclidean norm of the whole gradient, the same on every rank. Collective, if ranks train together.

    torch's own functions take tensors of one mesh; here experts are on another than the rest. Yet every
    element is on equally many ranks, so the squares of local parts add up to that many times the square.

    Args:
        parameters: of the model; those without a gradient count as zero.
        copies: ranks that hold each element (dp_replicate); None for a process that trains alone.
    """
    norm = get_total_norm([local_part(p.grad) for p in parameters if p.grad is not None])
    if copies is None:
        return norm
    square = norm.double().square()
    add_over_ranks(square)
    return (square / copies).sqrt()


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float, norm: Tensor) -> None:
    """Scales all gradients by limit / norm, in place, as torch's clip_grad_norm_ does.

    Args:
        parameters: of the model.
        limit: largest norm; the norm is above it.
        norm: of `gradient_norm`.
    """
    gradients = [local_part(p.grad) for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0).to(gradients[0]))
