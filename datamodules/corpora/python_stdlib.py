"""The running interpreter's own library: code, docstrings and pydoc topics. Needs no download."""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import sysconfig
import tokenize
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from datamodules.corpora.base import Document
from datamodules.files import digest
from datamodules.manifests import Source
from datamodules.progress import bytes_bar
from mohge.errors import UserError

_RECIPE = 1
"""Raised whenever the same interpreter would give other documents."""
_SKIPPED_FOLDERS = frozenset(
    # Tests and installed packages are not the library; `encodings` and `pydoc_data` are tables.
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings", "pydoc_data"}
)
_LEAST_CHARACTERS = 200

_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class PythonStdlib:
    """Domains `code` (sources without docstrings), `docstrings` (one document per module), `topics`.

    The split key of code and docstrings is their module, so that no docstring of a held-out module is
    trained on. Implements `datamodules.corpora.base.Corpus`.
    """

    def __init__(self) -> None:
        self.root = Path(sysconfig.get_paths()["stdlib"])

    @cached_property
    def files(self) -> list[tuple[str, int]]:
        """Sources relative to the library's folder, sorted, with their sizes in bytes."""
        found = []
        for folder, subfolders, names in os.walk(self.root):
            subfolders[:] = sorted(set(subfolders) - _SKIPPED_FOLDERS)
            for name in names:
                if name.endswith(".py"):
                    path = Path(folder, name)
                    found.append((path.relative_to(self.root).as_posix(), path.stat().st_size))
        return sorted(found)

    def check(self) -> None:
        """Raise UserError if the interpreter came without its sources or topics."""
        if len(self.files) < 100 or importlib.util.find_spec("pydoc_data.topics") is None:
            raise UserError(
                f"data=python_stdlib needs the sources and pydoc topics of Python's library, which "
                f"{self.root} lacks: use a complete Python installation, or data=text_files data.path=FOLDER."
            )

    def identity(self) -> dict[str, object]:
        """The interpreter's full version, and the listing of its library: distributors patch it."""
        return {
            "recipe": _RECIPE,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "listing": digest(self.files),
        }

    def documents(self, *, progress: bool) -> Iterator[Document]:
        """Code and docstrings module by module, then the topics."""
        with bytes_bar(
            "reading Python's library", sum(size for _, size in self.files), enabled=progress
        ) as done:
            for name, size in self.files:
                yield from self._module(name)
                done(size)
        from pydoc_data.topics import topics

        for topic, text in sorted(topics.items()):
            yield Document(text.strip() + "\n", f"pydoc topic {topic}", "topics", f"topic {topic}")

    def sources(self) -> tuple[Source, ...]:
        """Python itself."""
        version = f"{platform.python_implementation()} {platform.python_version()}"
        return (Source(name="Python standard library", version=version, licence="PSF-2.0"),)

    def _module(self, name: str) -> Iterator[Document]:
        try:
            with tokenize.open(self.root / name) as file:
                source = file.read()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)
                tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError):
            return  # a few files hold invalid code on purpose, as templates or samples
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        documentation = "\n\n".join(_docstrings(module, tree))
        code = _without_docstrings(source, tree).strip()
        for domain, text in (("code", code), ("docstrings", documentation)):
            if len(text) >= _LEAST_CHARACTERS:
                yield Document(text + "\n", f"{domain} of {module}", domain, module)


def _docstrings(module: str, tree: ast.Module) -> Iterator[str]:
    """Each docstring below a line that names what it describes."""
    if text := ast.get_docstring(tree):
        yield f"module {module}\n\n{text}"
    for name, node in _definitions(module, tree):
        if text := ast.get_docstring(node):
            if isinstance(node, ast.ClassDef):
                yield f"class {name}\n\n{text}"
            else:
                yield f"{name}({ast.unparse(node.args)})\n\n{text}"


def _definitions(prefix: str, parent: ast.Module | _Definition) -> Iterator[tuple[str, _Definition]]:
    """Functions and classes with their dotted names, in the order of the source."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{node.name}"
            yield name, node
            yield from _definitions(name, node)


def _without_docstrings(source: str, tree: ast.Module) -> str:
    """The source with each docstring that has its lines to itself taken out, still valid code."""
    lines: list[str | None] = [
        *source.split("\n")
    ]  # not splitlines, which also cuts at form feeds, unlike Python's line numbers
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | _Definition) or not ast.get_docstring(node, clean=False):
            continue
        docstring = node.body[0]
        first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
        # Column offsets count UTF-8 bytes.
        opening, closing = lines[first], lines[last]
        assert opening is not None, "docstrings do not overlap"
        assert closing is not None, "docstrings do not overlap"
        before = opening.encode()[: docstring.col_offset].decode()
        after = closing.encode()[docstring.end_col_offset :].decode()
        if before.strip() or after.strip():
            continue
        alone = len(node.body) == 1 and not isinstance(node, ast.Module)
        # Kept in place as None, so that the numbers of later lines stay right.
        lines[first : last + 1] = [f"{before}..." if alone else None, *[None] * (last - first)]
    return "\n".join(line for line in lines if line is not None)
