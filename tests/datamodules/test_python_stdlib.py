from __future__ import annotations

import ast
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.corpora.base import Document
from datamodules.corpora.python_stdlib import PythonStdlib, _without_docstrings
from mohge.errors import UserError

SOURCE = '''"""Module."""
import x  # é

class A:
    """Class
    of two lines."""
    def f(self): "inline"; return 1
    def g(self, a=1, *, b):
        """Only this."""
    async def h(self):
        """Deep."""  # comment stays with the line
        return 2
'''


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    corpus = PythonStdlib()
    corpus.check()
    corpus.files = [*corpus.files[::6], *(file for file in corpus.files if "argparse" in file[0])]
    return list(corpus.documents(progress=False))


def test_code_keeps_its_meaning_without_docstrings() -> None:
    code = _without_docstrings(SOURCE, ast.parse(SOURCE))
    ast.parse(code)
    assert "Module." not in code
    assert "of two lines" not in code
    assert "Only this" not in code
    assert 'def f(self): "inline"; return 1' in code
    assert "# comment stays" in code
    assert "        ..." in code


def test_domains_are_valid_and_of_a_useful_size(documents: list[Document]) -> None:
    sizes: dict[str, int] = {}
    for document in documents:
        sizes[document.domain] = sizes.get(document.domain, 0) + len(document.text.encode())
        if document.domain == "code":
            ast.parse(document.text)
    assert sizes["code"] > 700_000
    assert sizes["docstrings"] > 150_000
    assert sizes["topics"] > 300_000


def test_code_and_docstrings_of_a_module_share_their_key(documents: list[Document]) -> None:
    keys: dict[str, set[str]] = {}
    for document in documents:
        keys.setdefault(document.domain, set()).add(document.key)
    assert "argparse" in keys["code"] & keys["docstrings"]
    assert not keys["topics"] & keys["code"]
    argparse = next(d for d in documents if d.domain == "docstrings" and d.key == "argparse")
    assert "class argparse.ArgumentParser\n\n" in argparse.text


def test_the_key_depends_on_the_patch_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = PythonStdlib().identity()
    assert PythonStdlib().identity() == before
    monkeypatch.setattr(platform, "python_version", lambda: "3.11.99")
    assert PythonStdlib().identity() != before


def test_a_library_without_sources_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    corpus = PythonStdlib()
    monkeypatch.setattr(corpus, "root", tmp_path)
    with pytest.raises(UserError, match="needs the sources and pydoc topics"):
        corpus.check()


def test_checks_import_neither_torch_nor_lightning() -> None:
    code = "import datamodules.checks, datamodules.prepare, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "lightning", "datasets", "rich"} & set(loaded)
