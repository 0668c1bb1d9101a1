"""Weights at the start of training."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mohge.model.transformer import TransformerLM

_RESIDUAL_PROJECTIONS = ("output", "down")
"""Matrices whose product is added to the residual stream."""


def parameter_seed(seed: int, name: str) -> int:
    """Seed of one parameter's weights: 63 bits of a hash of the run's seed and the parameter's name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@torch.no_grad()
def initialize(model: TransformerLM, seed: int) -> None:
    """Fill every parameter of `model` in place.

    RMSNorm weights become 1, and buffers (the bias of loss-free balancing) 0. Every other weight is drawn
    from a normal distribution with standard deviation `init_std`, which is divided by sqrt(2 * layers) for
    matrices whose product is added to the residual stream, since 2 * layers such products add up there
    (GPT-2).

    Each parameter has its own generator, seeded by its name, and is drawn in float32 on the CPU: its
    weights depend neither on the other parameters, nor on device, process or order of construction. So
    architectures compared at one seed start from the same attention and embedding, and so do models on
    any mesh: of a distributed parameter, each rank draws the whole, one at a time, and keeps its part.

    Args:
        model: A model whose parameters have storage; after construction on the meta device, call
            `model.to_empty(device=...)` first.
        seed: Seed of the run.

    Raises:
        ValueError: A parameter has no storage.
    """
    norm_weights = {module.weight for module in model.modules() if isinstance(module, nn.RMSNorm)}
    for buffer in model.buffers():
        buffer.zero_()
    std = model.config.init_std
    residual_std = std / math.sqrt(2 * model.config.layers)
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(f"{name} is on the meta device: call model.to_empty(device=...) first")
        if parameter in norm_weights:
            parameter.fill_(1.0)
        else:
            own_std = residual_std if _is_residual_projection(name) else std
            whole = _normal(parameter.shape, own_std, parameter_seed(seed, name))
            if isinstance(parameter, DTensor):  # every rank draws the same values, and keeps its part
                parts = parameter.placements
                whole = distribute_tensor(
                    whole.to(parameter.device), parameter.device_mesh, parts, src_data_rank=None
                )
            parameter.copy_(whole)


def _is_residual_projection(name: str) -> bool:
    """Whether the parameter is `….output.weight`, `….down.weight`, or an expert stack `….down`."""
    return name.removesuffix(".weight").rsplit(".", 1)[-1] in _RESIDUAL_PROJECTIONS


def _normal(shape: torch.Size, std: float, seed: int) -> Tensor:
    return torch.empty(shape).normal_(0.0, std, generator=torch.Generator().manual_seed(seed))
