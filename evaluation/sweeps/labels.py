"""Where the labels of points go, so that none covers another or a point.

Positions are pixels from the lower left corner of a panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_CHARACTER, _LINE = 5.9, 13
"""Width and height of a letter."""
_GAP = 9
"""Between a point and its label."""
_POINT = 5
"""Half the width of a point."""
_REACHES = range(0, 240, 4)
"""How far a label is moved up or down, least first."""


@dataclass(frozen=True)
class Label:
    """Left end and middle height of a label."""

    x: float
    y: float
    lead: float
    """The end that is nearer to the point, for a line to it."""


Box = tuple[float, float, float, float]


def place(points: Sequence[tuple[float, float]], texts: Sequence[str], size: tuple[int, int]) -> list[Label]:
    """A label for each point, the nearest free place to its right or left.

    Labels above each other are in the order of their points, placed from the middle one outwards, so that
    none is read as better than one that it is worse than.

    Args:
        points: of the panel.
        texts: of the labels.
        size: width and height of the panel.

    Returns:
        Labels in the order of the points; where no place is free, right beside the point.
    """
    taken: list[Box] = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    rising = sorted(range(len(points)), key=lambda index: (points[index][1], points[index][0]))
    middle = len(rising) // 2
    found: dict[int, Label] = {}
    boxes: dict[int, Box] = {}
    for index in [*rising[middle:], *reversed(rising[:middle])]:
        x, y = points[index]
        width = _CHARACTER * len(texts[index])
        choices = [
            Label(left, y + sign * reach, lead)
            for reach in _REACHES
            for left, lead in ((x + _GAP, x + _GAP), (x - _GAP - width, x - _GAP))
            for sign in ((1, -1) if reach else (1,))
        ]
        free = [
            label
            for label in choices
            if _inside(box := _box(label, width), size)
            and not any(_meet(box, other) for other in taken)
            and not any(
                _above(box, other) != (y >= points[placed][1])
                for placed, other in boxes.items()
                if box[0] < other[2] and other[0] < box[2]
            )
        ]
        found[index] = free[0] if free else choices[0]
        boxes[index] = _box(found[index], width)
        taken.append(boxes[index])
    return [found[index] for index in range(len(points))]


def _above(one: Box, other: Box) -> bool:
    return one[1] + one[3] > other[1] + other[3]


def _box(label: Label, width: float) -> Box:
    return label.x, label.y - _LINE / 2, label.x + width, label.y + _LINE / 2


def _inside(box: Box, size: tuple[int, int]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
