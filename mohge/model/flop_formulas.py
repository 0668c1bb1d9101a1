"""FLOP formulas of operators that torch's FlopCounterMode does not count.

Torch 2.13 knows neither `grouped_mm` nor the fused attention of the CPU, and counts them as free. Its
registry of formulas is the extension point for that, the same that custom kernels use.

Shapes: M rows, K inner width, N columns of a product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import flop_registry, register_flop_formula


def grouped_mm_flop(
    a_shape: Sequence[int], b_shape: Sequence[int], *_: object, out_shape: object = None, **__: object
) -> int:
    """2 M K N; times the number of groups when neither operand is ragged (both are three-dimensional)."""
    groups = a_shape[0] if len(a_shape) == len(b_shape) == 3 else 1
    return 2 * groups * a_shape[-2] * a_shape[-1] * b_shape[-1]


def register_flop_formulas() -> None:
    """Add the formulas to torch's registry, unless this version of torch already has its own."""
    aten = torch.ops.aten
    if aten._grouped_mm not in flop_registry:
        register_flop_formula(aten._grouped_mm)(grouped_mm_flop)
    # Attention on the CPU takes the same arguments, in the same order, as its counterpart on a GPU.
    for unknown, known in (
        (aten._scaled_dot_product_flash_attention_for_cpu, aten._scaled_dot_product_flash_attention),
        (
            aten._scaled_dot_product_flash_attention_for_cpu_backward,
            aten._scaled_dot_product_flash_attention_backward,
        ),
    ):
        if unknown not in flop_registry:
            register_flop_formula(unknown, get_raw=True)(flop_registry[known])
