"""How figures are rounded, in one place: to two significant digits of their error."""

from __future__ import annotations

import math

NONE = "\N{EN DASH}"
_DIGITS = 2
_ERRORS = 3.92
"""Standard errors between the ends of a 95% interval, about."""
_LEAST_P = 1e-4


def with_error(value: float | None, error: float | None, *, percent: bool = False) -> str:
    """`53.1 ± 1.2`; without an error, four digits of the value alone.

    Args:
        value: to show.
        error: standard error or deviation; None where there is none.
        percent: whether both are shares to be shown in percent.
    """
    if value is None:
        return NONE
    factor = 100 if percent else 1
    if not error:
        alone = _plain(factor * value)
        return alone if error is None else f"{alone} ± 0"
    places = _places(factor * error)
    return f"{rounded(factor * value, places)} ± {rounded(factor * error, places)}"


def with_interval(
    value: float | None, low: float | None, high: float | None, *, percent: bool = False, signed: bool = False
) -> str:
    """`53.1 (50.8 to 55.4)`; signed, for differences, `+1.2 (−0.4 to +2.8)`; the value alone without ends.

    Args:
        value: to show.
        low: end of its interval, or None.
        high: the other.
        percent: whether all are shares to be shown in percent, or their differences in points.
        signed: whether positive figures get a sign.
    """
    if value is None:
        return NONE
    factor = 100 if percent else 1
    if low is None or high is None:
        return _plain(factor * value, signed)
    places = _places(factor * (high - low) / _ERRORS) if high > low else 1
    shown, *ends = (rounded(factor * one, places, signed) for one in (value, low, high))
    return f"{shown} ({ends[0]} to {ends[1]})"


def probability(p: float | None) -> str:
    """A p-value of two digits, or that it is below 0.0001."""
    if p is None:
        return NONE
    return f"{p:#.2g}" if p >= _LEAST_P else f"<{_LEAST_P:.4f}"


def digits(value: float | None) -> str:
    """Three significant digits of a figure that has no error."""
    if value is None:
        return NONE
    return rounded(value, 2 - math.floor(math.log10(abs(value)))) if value else "0"


def _places(error: float) -> int:
    """Decimals at which an error has two significant digits; negative where it has more before the point."""
    exponent = math.floor(math.log10(error))
    exponent = math.floor(math.log10(round(error, _DIGITS - 1 - exponent)))  # 0.0996 is 0.10
    return _DIGITS - 1 - exponent


def rounded(value: float, places: int, signed: bool = False) -> str:
    """`1.23`, `−1.23`; signed, for differences, `+1.23`; never a negative zero."""
    number = round(value, places) + 0.0  # no negative zero
    sign = "+" if signed and number > 0 else ""
    return sign + _minus(f"{number:,.{max(places, 0)}f}")


def _plain(value: float, signed: bool = False) -> str:
    sign = "+" if signed and value > 0 else ""
    return sign + _minus(f"{value:,.4g}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
