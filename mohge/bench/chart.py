"""The parts of a training step as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mohge.bench.rows import Row
from mohge.files import atomic_path

_FORWARD, _BACKWARD = "#0072B2", "#E69F00"  # Okabe and Ito's: told apart by everybody, and in grey


def draw_parts(step: Row, parts: Sequence[Row], path: str) -> None:
    """Draw a bar for each part of a step, forward and backward, in the order of the rows from the top.

    Args:
        step: the whole step.
        parts: its parts, timed.
        path: of the picture.

    Raises:
        UserError: the disk refuses.
    """
    assert step.timing is not None
    names = [row.part or "" for row in parts]
    whole = [row.timing.median * 1e3 if row.timing else 0.0 for row in parts]
    forward = [
        total if row.forward_seconds is None else row.forward_seconds * 1e3
        for row, total in zip(parts, whole, strict=True)
    ]
    backward = [total - first for total, first in zip(whole, forward, strict=True)]

    figure = Figure(figsize=(9, 1.2 + 0.36 * len(parts)), layout="constrained")
    axes = figure.subplots()
    axes.barh(names, forward, color=_FORWARD, label="forward, or all of it")
    bars = axes.barh(names, backward, left=forward, color=_BACKWARD, label="backward")
    axes.bar_label(bars, [f"{row.ratio:.1%}" for row in parts], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds")
    axes.set_title(
        f"A training step of {step.timing.median * 1e3:.0f} ms: {step.shape}, {step.dtype}", loc="left"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    with atomic_path(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
