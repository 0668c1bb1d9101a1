"""Rotary positions."""

import pytest
import torch

from mohge.model.rope import rotary_table, rotate

CPU = torch.device("cpu")


def table(length: int, width: int = 8):
    return rotary_table(length, width, 10000.0, dtype=torch.float64, device=CPU)


def test_rotation_is_multiplication_by_a_unit_complex_number():
    x = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    as_complex = torch.complex(x[..., :4], x[..., 4:])
    angles = torch.arange(7.0).double()[:, None] * 10000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    expected = as_complex * torch.polar(torch.ones_like(angles), angles)
    torch.testing.assert_close(rotate(x, table(7)), torch.cat((expected.real, expected.imag), dim=-1))


def test_scores_depend_on_the_distance_of_positions_alone():
    """The product of one query with one key, put at every pair of positions, is constant along diagonals."""
    length = 12
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).expand(-1, -1, -1, length, -1)
    scores = (rotate(q, table(length)) @ rotate(k, table(length)).transpose(-1, -2))[0, 0]
    for distance in range(-length + 1, length):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[0].unique().numel() == length, "the score must depend on the distance at all"


def test_position_zero_is_left_as_it_is():
    x = torch.randn(1, 1, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(rotate(x, table(5))[:, :, 0], x[:, :, 0], rtol=0, atol=0)


def test_bfloat16_is_rotated_in_float32():
    x = torch.randn(1, 2, 300, 8).bfloat16()
    exact = rotate(x.double(), table(300))
    single = rotary_table(300, 8, 10000.0, dtype=torch.float32, device=CPU)
    rotated = rotate(x, single)
    assert rotated.dtype == torch.bfloat16
    torch.testing.assert_close(rotated, exact.bfloat16(), rtol=2**-7, atol=1e-6)


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="even, not 7"):
        table(4, width=7)
