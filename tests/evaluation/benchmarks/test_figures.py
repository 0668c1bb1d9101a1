"""Figures have the digits that their errors leave, here by hand."""

import pytest

from evaluation.benchmarks.figures import digits, probability, with_error, with_interval


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (0.53123, 0.0116, "53.1 ± 1.2"),
        (0.53123, 0.00996, "53.1 ± 1.0"),
        (0.53123, 0.000996, "53.12 ± 0.10"),
        (0.53123, 0.12, "53 ± 12"),
        (0.0, 0.0, "0 ± 0"),
        (0.53129, None, "53.13"),
        (None, None, "–"),  # noqa: RUF001
    ],
)
def test_two_digits_of_the_error_in_percent(value, error, shown):
    assert with_error(value, error, percent=True) == shown


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (1.80449, 0.0162, "1.804 ± 0.016"),
        (123456.7, 2345.6, "123,500 ± 2,300"),
        (-0.04, 0.31, "\N{MINUS SIGN}0.04 ± 0.31"),
    ],
)
def test_two_digits_of_the_error(value, error, shown):
    assert with_error(value, error) == shown


def test_intervals_have_the_digits_of_a_quarter_of_their_width():
    """From -0.4 to 2.8 points: 3.2/3.92 = 0.82, so two decimals; from -4 to 28: 8.2, one."""
    minus = "\N{MINUS SIGN}"
    shown = with_interval(0.012, -0.004, 0.028, percent=True, signed=True)
    assert shown == f"+1.20 ({minus}0.40 to +2.80)"
    assert with_interval(12.34, -4, 28, signed=True) == f"+12.3 ({minus}4.0 to +28.0)"
    assert with_interval(0.5, 0.45, 0.55, percent=True) == "50.0 (45.0 to 55.0)"
    assert with_interval(0.0, 0.0, 0.0, percent=True, signed=True) == "0.0 (0.0 to 0.0)"
    assert with_interval(-0.02, None, None, percent=True, signed=True) == f"{minus}2"


def test_rounding_leaves_no_negative_zero():
    assert with_interval(-0.00001, -0.5, 0.5, signed=True).startswith("0.00 ")


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.02, "0.020"), (0.0123, "0.012"), (1.0, "1.0"), (0.0001, "0.00010"), (9e-5, "<0.0001"), (None, "–")],  # noqa: RUF001
)
def test_probabilities(p, shown):
    assert probability(p) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(25.0, "25.0"), (100 / 3, "33.3"), (12345.6, "12,300"), (500, "500")]
)
def test_three_digits_without_an_error(value, shown):
    assert digits(value) == shown
