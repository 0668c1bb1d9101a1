"""The HTML site is built without a warning, its links lead somewhere, and it needs no network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from links import is_outside, is_well_formed
from lxml import html

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("mohge", "datamodules", "callbacks", "evaluation")
Pages = dict[Path, html.HtmlElement]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "site"
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "site" / "build.py"), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> Pages:
    return read(site)


def read(folder: Path) -> Pages:
    return {path: html.parse(path).getroot() for path in folder.rglob("*.html")}


def names(page: html.HtmlElement) -> set[str]:
    return set(page.xpath("//@id")) | set(page.xpath("//a/@name"))


def dead_links(pages: Pages) -> list[str]:
    """Links of pages to files or anchors of the site that do not exist."""
    known = {path: names(page) for path, page in pages.items()}
    dead = []
    for path, page in pages.items():
        for link in set(page.xpath("//a/@href | //img/@src | //script/@src | //link/@href")):
            if is_outside(link):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not target.is_file() or (anchor and anchor not in known.get(target, {anchor})):
                dead.append(f"{path.name}: {link}")
    return sorted(dead)


def test_links_inside_the_site_lead_somewhere(pages: Pages):
    assert dead_links(pages) == []


def test_dead_links_are_found(tmp_path: Path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here">x</a><a href="b.html#gone">x</a><img src="c.png">'
    )
    (tmp_path / "b.html").write_text('<p id="here"><a href="a.html">x</a><a href="#gone">x</a></p>')
    assert dead_links(read(tmp_path)) == ["a.html: b.html#gone", "a.html: c.png", "b.html: #gone"]


def test_links_to_the_outside_are_addresses(pages: Pages):
    outside = {link for page in pages.values() for link in page.xpath("//a/@href") if is_outside(link)}
    assert len(outside) > 5
    assert [link for link in outside if not is_well_formed(link)] == []


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: Pages):
    shown = [
        link for page in pages.values() for link in page.xpath("//@src | //link[@rel!='canonical']/@href")
    ]
    assert [link for link in shown if is_outside(link) and not link.startswith("data:")] == []
    sheets = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert sheets
    assert not [text for text in sheets if "url(http" in text or "@import" in text]


def test_every_document_and_module_has_its_place(site: Path, pages: Pages):
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]:
        assert (site / path.parent.name / path.name).with_suffix(".html") in pages
    described = {name for page in pages.values() for name in names(page) if name.startswith("module-")}
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    expected = {
        "module-" + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in modules
        if not path.stem.startswith("_") or path.stem == "__init__"
    }
    assert described == expected


def test_docstrings_are_rendered(pages: Pages):
    reference = {path.stem: page for path, page in pages.items() if path.parent.name == "reference"}
    for page in reference.values():
        assert page.xpath("//*[contains(@class, 'problematic') or contains(@class, 'system-message')]") == []
        texts = [paragraph.text_content().strip() for paragraph in page.xpath("//dd/p")]
        assert not [text for text in texts if text.startswith(("Args:", "Raises:", "Returns:"))]
        assert not [sig for sig in page.xpath("//dt") if "FieldInfo" in sig.text_content()]
    (function,) = reference["mohge.moe"].xpath("//dt[@id='mohge.moe.routers.two_level_route']/..")
    lists = {
        name.text_content().strip(" :") for name in function.xpath(".//dl[contains(@class, 'field-list')]/dt")
    }
    assert lists == {"Parameters", "Raises"}
    (key,) = reference["mohge.config"].xpath("//dt[@id='mohge.config.schema.SuiteConfig.tasks']/..")
    assert (
        key.xpath("./dd")[0].text_content().startswith("Tasks or groups of lm-eval: those that mohge-prepare")
    )
