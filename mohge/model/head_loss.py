"""Cross-entropy of the language model's head, without the logits of more than one chunk of tokens at a time.

Shapes: P positions, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
"""Target of a position that is not scored."""
_CHUNK = 1024  # positions; products of fewer rows are less efficient, and the gradient is added up more often


def mean_cross_entropy(hidden_PD: Tensor, weight_VD: Tensor, targets_P: Tensor) -> Tensor:
    """Mean over positions of the cross-entropy of softmax(hidden @ weight.T), exact.

    The gradients are computed in the forward pass, chunk by chunk, and only scaled in the backward pass: no
    logits are kept or computed twice. Differentiable once, in hidden_PD and weight_VD.

    Under autocast, products are computed in the autocast dtype; softmax and sums always in float32, or in
    float64 where hidden_PD is.

    Args:
        hidden_PD: output of the last norm.
        weight_VD: of the head.
        targets_P: int64, the right token at each position.
    """
    device = hidden_PD.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_PD, weight_VD = hidden_PD.to(dtype), weight_VD.to(dtype)
    loss: Tensor = _MeanCrossEntropy.apply(hidden_PD, weight_VD, targets_P)
    return loss


@torch.no_grad()
def cross_entropy(hidden_PD: Tensor, weight_VD: Tensor, targets_P: Tensor) -> Tensor:
    """Cross-entropy at each position (P), zero where the target is -100; without gradients."""
    chunks = zip(hidden_PD.split(_CHUNK), targets_P.split(_CHUNK), strict=True)
    return torch.cat(
        [F.cross_entropy(_wide(F.linear(h, weight_VD)), targets, reduction="none") for h, targets in chunks]
    )


@torch.no_grad()
def score(hidden_PD: Tensor, weight_VD: Tensor, targets_P: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy at each position (P), in float32 or wider, and whether the target has the largest logit.

    Positions whose target is -100 are not computed: zero, and False.
    """
    wide = torch.promote_types(hidden_PD.dtype, torch.float32)
    loss_P = torch.zeros(targets_P.shape, dtype=wide, device=targets_P.device)
    top_P = torch.zeros_like(targets_P, dtype=torch.bool)
    for at_C in (targets_P != IGNORED).nonzero().squeeze(1).split(_CHUNK):
        logits_CV, target_C = _wide(F.linear(hidden_PD[at_C], weight_VD)), targets_P[at_C]
        loss_P[at_C] = F.cross_entropy(logits_CV, target_C, reduction="none")
        top_P[at_C] = logits_CV.argmax(dim=1) == target_C
    return loss_P, top_P


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class _MeanCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_PD: Tensor, weight_VD: Tensor, targets_P: Tensor) -> Tensor:
        wide = torch.promote_types(hidden_PD.dtype, torch.float32)
        with_gradients = any(ctx.needs_input_grad)
        loss = hidden_PD.new_zeros((), dtype=wide)
        grad_hidden_PD = torch.empty_like(hidden_PD) if with_gradients else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if with_gradients else None
        for start in range(0, hidden_PD.shape[0], _CHUNK):
            chunk = slice(start, start + _CHUNK)
            hidden_CD, target_C1 = hidden_PD[chunk], targets_P[chunk, None]
            logits_CV = _wide(F.linear(hidden_CD, weight_VD))
            probability_CV = logits_CV.softmax(dim=1)
            # log-sum-exp by way of the largest probability, which is never below 1 / V.
            log_sum_C = logits_CV.amax(dim=1) - probability_CV.amax(dim=1).log()
            loss += (log_sum_C - logits_CV.gather(1, target_C1)[:, 0]).sum()
            if grad_hidden_PD is not None and grad_weight_VD is not None:
                # The gradient of the logits is the probabilities, less 1 at the target.
                grad_CV = probability_CV
                grad_CV.scatter_add_(1, target_C1, grad_CV.new_full((), -1.0).expand_as(target_C1))
                grad_CV = grad_CV.to(hidden_PD.dtype)
                grad_hidden_PD[chunk] = grad_CV @ weight_VD
                if grad_CV.dtype == wide:
                    torch.addmm(grad_weight_VD, grad_CV.t(), hidden_CD, out=grad_weight_VD)
                else:
                    grad_weight_VD += grad_CV.t() @ hidden_CD
        if with_gradients:
            ctx.save_for_backward(grad_hidden_PD, grad_weight_VD)
        return loss / hidden_PD.shape[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden_PD, grad_weight_VD = ctx.saved_tensors
        scale = grad_loss / grad_hidden_PD.shape[0]
        return grad_hidden_PD * scale, (grad_weight_VD * scale).to(grad_hidden_PD.dtype), None
