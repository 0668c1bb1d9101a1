"""Text on standard output as it comes, coloured by width where a person looks."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.style import Style
from rich.text import Text

from evaluation.generation.rows import Generated, Piece
from evaluation.generation.widths import main_group

_BRIGHT = 0.45  # share of viridis from which black is easier to read on it than white


class Screen:
    """Where samples are printed, one after another: a sample that comes early waits for those before it.

    Args:
        samples: number of them.
        widths: of the groups, to colour tokens by; empty for plain text.
    """

    def __init__(self, samples: int, widths: Sequence[int]) -> None:
        self._samples, self._widths = samples, widths
        self._console = Console(soft_wrap=True, highlight=False)
        self._styles = [_style(group, len(widths)) for group in range(len(widths))]
        self._choices: Counter[int] = Counter()

    def show(self, prompt: str, pieces: Iterable[Piece], per_group: int) -> list[Generated]:
        """Print samples to their end, then a legend on standard error if tokens have colours.

        Args:
            prompt: stands before each sample.
            pieces: of all samples, in turns.
            per_group: experts of a group.

        Returns:
            The samples, in their order.
        """
        waiting: dict[int, list[Piece]] = {row: [] for row in range(self._samples)}
        whole: dict[int, Generated] = {}
        now = 0
        self._begin(now, prompt)
        try:
            for piece in pieces:
                waiting[piece.row].append(piece)
                while now < self._samples and waiting[now]:
                    each = waiting[now].pop(0)
                    if each.whole is None:
                        self._write(each, per_group)
                        continue
                    whole[now] = each.whole
                    for experts in () if each.whole.experts is None else each.whole.experts:
                        self._choices[main_group(experts, per_group, len(self._widths))] += 1
                    now += 1
                    self._end()
                    if now < self._samples:
                        self._begin(now, prompt)
        except KeyboardInterrupt:
            self._end()
            raise
        if self._widths:
            Console(stderr=True, highlight=False, soft_wrap=True).print(self._legend())
        return [whole[row] for row in range(self._samples)]

    def _begin(self, row: int, prompt: str) -> None:
        if self._samples > 1:
            self._print(f"{'' if row == 0 else chr(10)}--- sample {row + 1} of {self._samples}\n")
        self._print(prompt, Style(dim=True))

    def _write(self, piece: Piece, per_group: int) -> None:
        style = Style()
        if self._widths:
            assert piece.experts is not None
            group = main_group(piece.experts, per_group, len(self._widths))
            style = self._styles[group]
        self._print(piece.text, style)

    def _end(self) -> None:
        self._print("\n")

    def _print(self, text: str, style: Style | None = None) -> None:
        if self._console.is_terminal:
            shown = Text()
            # Control characters as pictures: text must not command a terminal.
            for part in "".join(map(_picture, text)).splitlines(keepends=True):
                shown.append(part.rstrip("\n"), style)
                # With a background it would colour the rest of a line.
                shown.append("\n" * part.endswith("\n"))
            self._console.print(shown, end="")
        else:
            sys.stdout.write(text)
        sys.stdout.flush()

    def _legend(self) -> Text:
        total = max(1, self._choices.total())
        legend = Text("widths that tokens were sent to most: ")
        for group, width in enumerate(self._widths):
            legend.append(f" {width} ", self._styles[group])
            legend.append(f" {self._choices[group] / total:.0%}  ")
        return legend


def _style(group: int, groups: int) -> Style:
    """Narrow is dark, wide is bright, as in all pictures of this package."""
    from matplotlib import colormaps  # here: it takes long to import, and plain text needs no colours
    from matplotlib.colors import to_hex

    share = group / max(1, groups - 1)
    return Style(color="black" if share > _BRIGHT else "white", bgcolor=to_hex(colormaps["viridis"](share)))


def _picture(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 32:
        return chr(0x2400 + code)
    return (
        "\N{SYMBOL FOR DELETE}"
        if code == 127
        else "\N{REPLACEMENT CHARACTER}"
        if 128 <= code < 160
        else character
    )
