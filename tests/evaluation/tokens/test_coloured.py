"""The coloured text, in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, page
from playwright.sync_api import Page

from evaluation.tokens.coloured import coloured_page, coloured_text

WIDTHS = [16, 48, 112]


def token(text: str, *widths: float, loss: float | None = 1.25) -> dict[str, Any]:
    return {"text": text, "part": "word", "widths": list(widths), "loss": loss}


CODE = {
    "source": "code & more",
    "tokens": [
        token("<script>alert(1)</script>", 16, 112),
        token(" wide", 112, 112),
        token('"&', 16, 16, loss=None),
        token("\n\t", 64, 16),
        token("\x00", 16, 16),
    ],
}
PROSE = {
    "source": "prose",
    "tokens": [token(f" word{number}", 16, 16 + 32 * (number % 4)) for number in range(80)],
}


@pytest.fixture
def opened(tmp_path: Path) -> Path:
    """A page with the fragment twice, as a report of two runs has it."""
    html = coloured_text([CODE, PROSE], WIDTHS) + coloured_text([PROSE], WIDTHS)
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{html}", encoding="utf-8")
    return tmp_path / "page.html"


def show(window: Page, path: Path) -> list[str]:
    """Opens the page; what goes wrong in its scripts is added to the list."""
    errors: list[str] = []
    window.on("pageerror", lambda error: errors.append(str(error)))
    window.on("dialog", lambda dialog: errors.append(dialog.message))
    window.goto(path.as_uri())
    return errors


def look(window: Page, number: int, style: str) -> str:
    token = window.locator(".mt-text span").nth(number)
    value: str = token.evaluate(f"element => getComputedStyle(element).{style}")
    return value


def test_the_text_is_shown_as_it_is_and_runs_nothing(opened):
    with page() as window:
        errors = show(window, opened)
        shown = window.locator(".mt-text").first.inner_text()
        assert shown.replace("\n\n", "\n") == '<script>alert(1)</script> wide"&↵\n→\t\u2400'
        assert window.locator("h3").all_inner_texts() == ["code & more", "prose", "prose"]
        assert errors == []


def test_wider_is_lighter_and_has_a_thicker_line_by_which_it_is_read_without_colours(opened):
    with page() as window:
        show(window, opened)
        narrow, wide = 2, 1
        assert look(window, narrow, "borderBottomWidth") == "0px"
        assert look(window, wide, "borderBottomWidth") == "6px"
        assert look(window, narrow, "backgroundColor") == "rgb(162, 128, 170)"
        assert look(window, wide, "backgroundColor") == "rgb(254, 243, 146)"
        window.emulate_media(media="print")
        assert look(window, wide, "borderBottomWidth") == "6px"
        assert not window.locator("select").first.is_visible()
        assert window.locator(".mt-legend").first.is_visible()


def test_a_layer_is_chosen_for_one_fragment_alone(opened):
    with page() as window:
        show(window, opened)
        assert look(window, 0, "borderBottomWidth") == "3px", "the mean of 16 and 112 is in the middle"
        select = window.get_by_label("Width of the experts").first
        assert select.locator("option").all_inner_texts() == ["mean over layers", "layer 0", "layer 1"]
        legend = window.locator(".mt-legend").first
        assert legend.locator("span:visible").all_inner_texts()[0] == "16 to 30"

        second = window.locator(".mt").nth(1).locator(".mt-text span").first
        before = second.get_attribute("class")
        for choice, line in (("layer 0", "0px"), ("layer 1", "6px"), ("mean over layers", "3px")):
            select.select_option(choice)
            assert look(window, 0, "borderBottomWidth") == line
        assert second.get_attribute("class") == before
        second_legend = window.locator(".mt-legend").nth(1)
        window.get_by_label("Width of the experts").nth(1).select_option("layer 0")
        assert second_legend.locator("span:visible").all_inner_texts() == ["16"], "all have one width there"


def test_a_token_tells_its_figures_to_the_pointer_and_to_a_tap(opened):
    with page() as window:
        show(window, opened)
        told = window.locator(".mt-told").first
        window.locator(".mt-text span").nth(1).hover()
        assert told.inner_text() == "“ wide”: word; width by layer 112, 112; loss of the token after it 1.25"
        window.locator(".mt-text span").nth(2).click()
        assert told.inner_text() == '“"&”: word; width by layer 16, 16'
        assert [look(window, number, "outlineStyle") for number in (1, 2)] == ["none", "solid"]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_whole_page_fits_the_window(tmp_path, size):
    result = {
        **{"corpus": "a<b", "checkpoint": "step_00000002", "split": "validation", "tokens": 1234},
        **{"sequences": 5, "trained_tokens": 10, "findings": ["Rarer tokens go to <wider> groups."]},
        **{"texts": [CODE, PROSE], "widths": WIDTHS},
    }
    (tmp_path / "text.html").write_text(coloured_page(result), encoding="utf-8")
    with page(size) as window:
        errors = show(window, tmp_path / "text.html")
        window.screenshot(path=tmp_path / "text.png")
        assert (tmp_path / "text.png").stat().st_size > 10_000
        assert window.title() == "Who goes where: a<b, step_00000002"
        assert "Rarer tokens go to <wider> groups." in window.locator("body").inner_text()
        assert "1,234 held-out tokens" in window.locator("body").inner_text()
        assert window.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert errors == []
