"""A real browser, where the machine has one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

DESKTOP = (1280, 900)
"""Width and height of a window, in CSS pixels."""
PHONE = (390, 844)


@contextmanager
def page(size: tuple[int, int] = DESKTOP, *, network: bool = False) -> Iterator[Page]:
    """A page of headless Chromium; the test is skipped where there is none.

    Args:
        size: of the window.
        network: whether the page may ask for anything but files; if not, such a request fails the test.
    """
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        # Chromium has no sandbox for root, as which containers run.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": size[0], "height": size[1]})
        asked: list[str] = []
        if not network:
            opened.on("request", lambda request: asked.append(request.url))
        yield opened
        browser.close()
    outside = [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]
    assert not outside, f"the page asks the network: {outside}"
