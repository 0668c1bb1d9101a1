"""Peak memory is counted to the byte."""

from __future__ import annotations

import pytest
import torch

from mohge.bench.memory import peak_bytes, step_peak_bytes

CPU = torch.device("cpu")
FLOAT = 4


def test_the_peak_of_known_allocations():
    def run() -> None:
        first = torch.empty(1000, 1000)
        second = torch.empty(500, 1000)
        del first
        third = torch.empty(600, 1000)  # 1.1 million numbers, less than the 1.5 before
        del second, third

    assert peak_bytes(run, CPU) == 1_500_000 * FLOAT


def test_what_was_there_before_does_not_count():
    held = torch.empty(1000, 1000)
    assert peak_bytes(lambda: held.mul_(2), CPU) < 100  # a number or two
    assert peak_bytes(lambda: held + held, CPU) == held.numel() * FLOAT


def test_memory_inside_operators_counts():
    """softmax of a half-precision sum in single precision holds a copy that no name refers to."""
    x = torch.zeros(256, 1024, dtype=torch.bfloat16)
    assert peak_bytes(lambda: x.float().softmax(dim=1).bfloat16(), CPU) == x.numel() * (FLOAT + FLOAT)


def test_gradients_and_saved_tensors_count():
    weight = torch.zeros(300, 300, requires_grad=True)
    # Forward: the exponential, kept, and its double. Backward: the gradient that becomes the weight's.
    peak = peak_bytes(lambda: (weight.exp() * 2).sum().backward(), CPU)
    assert 2 <= peak / (weight.numel() * FLOAT) < 3.1
    assert weight.grad is not None


def test_a_step_is_charged_with_the_gradients_of_the_step_before():
    weight = torch.zeros(100, 100, requires_grad=True)

    def drop() -> None:
        weight.grad = None

    def late() -> None:  # makes its loss before it drops them
        loss = (weight * 2).sum()
        drop()
        loss.backward()

    def early() -> None:
        drop()
        late()

    difference = step_peak_bytes(late, drop, CPU) - step_peak_bytes(early, drop, CPU)
    assert difference == pytest.approx(weight.numel() * FLOAT, rel=0.01)
