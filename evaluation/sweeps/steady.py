"""Figures that are the same on every processor, whose last bits may differ."""

from __future__ import annotations

from typing import Any

_DIGITS, _PLACES = 10, 11
_DRAWN = 7


def steady(value: float) -> float:
    """A result without its last bits: ten digits, and nothing below 1e-11, where a sum of zero may end.

    Later roundings of it are then the same everywhere: bits of noise do not decide between two neighbours.
    """
    return float(f"{round(value, _PLACES):.{_DIGITS}g}")


def drawn(value: Any) -> Any:
    """Part of a chart's specification, or a value of its table, with seven digits for every number."""
    if isinstance(value, dict):
        return {key: drawn(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(drawn(item) for item in value)
    return float(f"{steady(value):.{_DRAWN}g}") if isinstance(value, float) else value
