"""A text coloured by the width of the experts that each token went to, as HTML without any other file.

Width is shown twice, so that neither a printer nor an eye needs colours: by the colour of the ground
(viridis, which also goes from dark to light) and by the thickness of the line under the token. A tap or the
pointer on a token tells its figures.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from html import escape
from typing import Any

_COLOURS = ("#a280aa", "#a29cc1", "#98b4c6", "#90c8c6", "#9adbbc", "#c8eba1", "#fef392")
"""Viridis in even steps, narrow to wide, mixed with as much white: black letters are read on all of it."""
_LEVELS = len(_COLOURS)

_STYLE = "\n".join(
    [
        ".mt{font:15px/1.2 system-ui,sans-serif;color:#1a1a1a}",
        ".mt *{box-sizing:border-box}",
        ".mt h3{font-size:1em;margin:1.4em 0 .4em}",
        ".mt .mt-bar{position:sticky;top:0;z-index:1;background:#fff;border-bottom:1px solid #bbb;"
        "padding:.5em 0}",
        ".mt select{font:inherit;max-width:100%}",
        ".mt .mt-legend{display:flex;flex-wrap:wrap;gap:.3em .5em;margin:.5em 0 .3em;padding:0;"
        "list-style:none;font-size:.85em}",
        ".mt .mt-told{min-height:2.4em;margin:.2em 0 0;font-size:.85em;color:#333;overflow-wrap:anywhere}",
        ".mt .mt-text{font:14px/2.1 ui-monospace,Menlo,Consolas,monospace;white-space:pre-wrap;"
        "overflow-wrap:anywhere;margin:0}",
        ".mt .mt-text span,.mt .mt-legend span{padding:.1em 0 0;border-bottom:0 solid #d55e00;"
        "border-right:1px solid #fff;-webkit-print-color-adjust:exact;print-color-adjust:exact}",
        ".mt .mt-legend span{display:inline-block;padding:.1em .5em 0}",
        ".mt .mt-legend span[hidden]{display:none}",
        ".mt .mt-text span{cursor:pointer}",
        ".mt .mt-text span.mt-on{outline:2px solid #000;outline-offset:1px}",
        *(
            f".mt .mt-{level}{{background:{colour};color:#000}}"
            f".mt .mt-text .mt-{level},.mt .mt-legend .mt-{level}{{border-bottom-width:{level}px}}"
            for level, colour in enumerate(_COLOURS)
        ),
        "@media print{.mt .mt-bar{position:static}.mt select,.mt .mt-told{display:none}}",
    ]
)

# Each token's class is `mt-LEVEL`; data-l has its level in every view, the mean over layers first.
_SCRIPT = """
(() => {
  const root = document.currentScript.parentElement;
  const views = JSON.parse(root.dataset.views);
  const told = root.querySelector(".mt-told");
  const tokens = root.querySelectorAll(".mt-text span");
  let on = null;
  root.querySelector("select").addEventListener("change", event => {
    const view = Number(event.target.value);
    tokens.forEach(token => { token.className = "mt-" + token.dataset.l[view]; });
    root.querySelectorAll(".mt-legend span").forEach((mark, level) => {
      mark.textContent = views[view][level] ?? "";
      mark.hidden = level >= views[view].length;
    });
    if (on) on.classList.add("mt-on");
  });
  const tell = event => {
    const token = event.target.closest(".mt-text span");
    if (!token) return;
    if (on) on.classList.remove("mt-on");
    on = token;
    on.classList.add("mt-on");
    told.textContent = token.title;
  };
  root.addEventListener("click", tell);
  root.addEventListener("mouseover", tell);
})();
"""


def coloured_text(texts: Sequence[dict[str, Any]], widths: Sequence[int]) -> str:
    """An HTML fragment that holds its style and script, and may stand in a page more than once.

    Args:
        texts: "texts" of tokens.json.
        widths: of the groups' experts.
    """
    layers = len(texts[0]["tokens"][0]["widths"])
    views = ["mean over layers", *(f"layer {layer}" for layer in range(layers))]
    scales = [
        _scale([_width(token, view) for text in texts for token in text["tokens"]])
        for view in range(layers + 1)
    ]
    labels = [_labels(*scale) for scale in scales]
    options = "".join(f'<option value="{view}">{name}</option>' for view, name in enumerate(views))
    marks = "".join(
        f'<li><span class="mt-{level}"{"" if level < len(labels[0]) else " hidden"}>'
        f"{labels[0][level] if level < len(labels[0]) else ''}</span></li>"
        for level in range(_LEVELS)
    )
    blocks = []
    for text in texts:
        spans = "".join(_span(token, scales) for token in text["tokens"])
        blocks.append(f'<h3>{escape(text["source"])}</h3><p class="mt-text">{spans}</p>')
    return (
        f"<section class=\"mt\" data-views='{escape(json.dumps(labels))}'><style>{_STYLE}</style>"
        "<p>The wider the experts of a token, the lighter its ground and the thicker the line below it. "
        f"Experts have width {_listed(widths)}; a token goes to several, and their mean counts.</p>"
        f'<div class="mt-bar"><label>Width of the experts, <select>{options}</select></label>'
        f'<ul class="mt-legend" aria-label="Legend: narrow to wide">{marks}</ul>'
        '<p class="mt-told" aria-live="polite">Point at a token, or tap it, for its figures.</p></div>'
        f"{''.join(blocks)}<script>{_SCRIPT}</script></section>"
    )


def coloured_page(result: dict[str, Any]) -> str:
    """A whole page with the coloured text of an analysis and what was found.

    Args:
        result: the content of tokens.json.
    """
    title = f"Who goes where: {result['corpus']}, {result['checkpoint']}"
    held_out = "held-out " if result["split"] == "validation" else ""
    found = "".join(f"<li>{escape(sentence)}</li>" for sentence in result["findings"])
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>body{{max-width:60em;margin:1em auto;padding:0 1em;"
        "font:15px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{result['tokens']:,} {held_out}tokens in {result['sequences']:,} "
        f"sequences, through a model trained on {result['trained_tokens']:,} tokens.</p><ul>{found}</ul>"
        f"{coloured_text(result['texts'], result['widths'])}</body></html>\n"
    )


def _width(token: dict[str, Any], view: int) -> float:
    widths: list[float] = token["widths"]
    return sum(widths) / len(widths) if view == 0 else widths[view - 1]


def _scale(values: list[float]) -> tuple[float, float]:
    """The narrowest and the widest of a view: a fixed scale would show the mean over layers in one colour."""
    return min(values), max(values)


def _level(value: float, scale: tuple[float, float]) -> int:
    low, high = scale
    return 0 if high == low else min(_LEVELS - 1, int((value - low) / (high - low) * _LEVELS))


def _labels(low: float, high: float) -> list[str]:
    """The range of widths of each level."""
    if high == low:
        return [f"{low:.0f}"]
    edges = [low + (high - low) * level / _LEVELS for level in range(_LEVELS + 1)]
    return [f"{start:.0f} to {end:.0f}" for start, end in itertools.pairwise(edges)]


def _listed(widths: Sequence[int]) -> str:
    *others, last = [str(width) for width in sorted(set(widths))]
    return f"{', '.join(others)} or {last}" if others else last


def _span(token: dict[str, Any], scales: Sequence[tuple[float, float]]) -> str:
    levels = [_level(_width(token, view), scale) for view, scale in enumerate(scales)]
    shown = _visible(token["text"])
    by_layer = ", ".join(f"{width:.0f}" for width in token["widths"])
    loss = "" if token["loss"] is None else f"; loss of the token after it {token['loss']:.2f}"
    title = f"“{shown.strip(chr(10))}”: {token['part']}; width by layer {by_layer}{loss}"
    return (
        f'<span class="mt-{levels[0]}" data-l="{"".join(map(str, levels))}" title="{escape(title)}">'
        f"{escape(shown)}</span>"
    )


def _visible(text: str) -> str:
    """Text whose line breaks, tabs and control characters can be seen; line breaks still break the line."""
    shown = text.replace("\r", "␍").replace("\n", "↵\n").replace("\t", "→\t")
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in shown)
