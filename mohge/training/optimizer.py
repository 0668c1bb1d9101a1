"""AdamW and its learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from mohge.config.schema import OptimConfig


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Parameter groups: matrices decay; norms, biases and embeddings do not.

    A head tied to the embedding is the embedding's parameter, and so does not decay either. Parameters that
    are spread over different meshes are in different groups: one kernel cannot take both.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: dict[tuple[bool, object], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        decays = parameter.ndim >= 2 and id(parameter) not in embeddings
        groups.setdefault((not decays, getattr(parameter, "device_mesh", None)), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: item[0][0])
    return [
        {"params": parameters, "weight_decay": 0.0 if plain else weight_decay}
        for (plain, _), parameters in ordered
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over `decay_groups`, in one kernel per device rather than several per parameter."""
    groups = decay_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def fill_gradients(model: nn.Module) -> None:
    """Gives gradients of zero to the learned parameters that have none, as of a router that picks by chance.

    AdamW passes over a parameter without a gradient, and has no moments of it for a checkpoint to hold.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def whole_steps(fraction: float, max_steps: int) -> int:
    """A share of training in steps, rounded up; 0.07 of 100 is 7, whatever floating point makes of it."""
    return math.ceil(round(fraction * max_steps, 6))


def lr_factor(step: int, max_steps: int, config: OptimConfig) -> float:
    """Learning rate as a share of the peak.

    Args:
        step: optimizer steps already done, 0 to `max_steps`.
        max_steps: length of training.
        config: schedule; warm-up reaches the peak at the end of its share of the steps, and the last
            step (`max_steps` - 1) runs at `final_lr`.

    Returns:
        A number in [0, 1], 0 only where `final_lr` is.
    """
    warmup = whole_steps(config.warmup_fraction, max_steps)
    if step < warmup:
        return (step + 1) / warmup
    last = max(max_steps - 1, 1)
    if config.schedule == "wsd":
        decay = whole_steps(config.decay_fraction, max_steps)
        progress = max(0.0, 1 - (last - step) / decay) if decay else 0.0
        return 1 - (1 - config.final_lr) * min(progress, 1.0)
    progress = min((step - warmup) / max(last - warmup, 1), 1.0)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))
