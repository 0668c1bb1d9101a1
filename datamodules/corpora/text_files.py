"""A user's own .txt, .md and .jsonl files."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from datamodules.corpora.base import Document, clean_domain
from datamodules.files import digest
from datamodules.manifests import Source
from datamodules.progress import bytes_bar
from mohge.config.schema import DataConfig
from mohge.errors import UserError

_RECIPE = 2
"""Raised whenever the same files would give other documents."""
_SUFFIXES = (".txt", ".md", ".jsonl")
_PIECE_BYTES = 1 << 20
"""Longer files are cut, so that no single text has to be tokenized in one go."""
_LONE_FILE_PIECES = 20
"""A file that is alone in its domain is cut into about this many pieces, so that some can be held out."""
_LEAST_PART = 1 << 10
"""Shorter lines are never cut."""
_ROOT_DOMAIN = "text"


class TextFiles:
    """One domain per sub-folder; files directly in the folder, or matched by a glob, are domain `text`.

    A .txt or .md file is a document, a .jsonl file one per line. Implements `corpora.base.Corpus`.
    """

    def __init__(self, cfg: DataConfig) -> None:
        self._cfg = cfg

    @cached_property
    def files(self) -> list[Path]:
        """The files to read, sorted; raises UserError if there are none."""
        if self._cfg.path is None:
            raise UserError(
                "data=text_files needs data.path=PATH: a file, folder or glob of .txt, .md or .jsonl."
            )
        name = f"data.path={self._cfg.path}"
        pattern = str(Path(self._cfg.path).expanduser())
        if Path(pattern).is_dir():
            found = [path for path in Path(pattern).rglob("*") if not _hidden(path.relative_to(pattern))]
        elif Path(pattern).exists():
            found = [Path(pattern)]
        elif glob.has_magic(pattern):
            found = [Path(path) for path in glob.glob(pattern, recursive=True)]
        else:
            raise UserError(
                f"{name} does not exist: give a file, folder or glob of .txt, .md or .jsonl files."
            )
        files = sorted(path for path in found if path.suffix.lower() in _SUFFIXES and path.is_file())
        if not files:
            raise UserError(
                f"{name} holds no .txt, .md or .jsonl file: give a folder, file or glob that does."
            )
        return files

    def check(self) -> None:
        """Raise UserError if there is no file, or the first bytes of one are binary."""
        for path in self.files:
            _refuse_binary(path)

    def identity(self) -> dict[str, object]:
        """Names, domains, sizes and times of the files, and the fields that are read."""
        states = [(self._name(path), self._domain(path), path.stat()) for path in self.files]
        return {
            "recipe": _RECIPE,
            "files": digest(
                [(name, domain, state.st_size, state.st_mtime_ns) for name, domain, state in states]
            ),
            "text_field": self._cfg.text_field,
            "domain_field": self._cfg.domain_field,
        }

    def documents(self, *, progress: bool) -> Iterator[Document]:
        """File by file; raises UserError for a file that is not UTF-8 text or not JSON lines."""
        population = Counter(self._domain(path) for path in self.files)
        sizes = {path: path.stat().st_size for path in self.files}
        with bytes_bar("reading files", sum(sizes.values()), enabled=progress) as done:
            for path in self.files:
                _refuse_binary(path)
                domain = self._domain(path)
                try:
                    if path.suffix.lower() == ".jsonl":
                        yield from self._lines(path, domain)
                    else:
                        alone = population[domain] == 1
                        limit = min(_PIECE_BYTES, sizes[path] // _LONE_FILE_PIECES) if alone else _PIECE_BYTES
                        for piece in _pieces(path, limit):
                            yield Document(piece, self._name(path), domain, self._name(path))
                except UnicodeDecodeError as error:
                    raise UserError(
                        f"{path} is not UTF-8 text ({error.reason}): convert it, for instance with "
                        "iconv -t UTF-8, or take it out of data.path."
                    ) from error
                except OSError as error:
                    raise UserError(
                        f"{path} cannot be read ({error.strerror}): correct data.path."
                    ) from error
                done(sizes[path])

    def sources(self) -> tuple[Source, ...]:
        """The path; the licence is the user's to know."""
        return (Source(name=str(self._cfg.path), version="", licence="the user's own files"),)

    @cached_property
    def _root(self) -> Path:
        """The deepest folder that holds all files."""
        given = Path(str(self._cfg.path)).expanduser()
        return given if given.is_dir() else Path(os.path.commonpath([path.parent for path in self.files]))

    def _name(self, path: Path) -> str:
        """The path below the root: a corpus that moves keeps its split and its order."""
        return path.relative_to(self._root).as_posix()

    def _domain(self, path: Path) -> str:
        first, *rest = path.relative_to(self._root).parts
        in_folder = rest and Path(str(self._cfg.path)).expanduser().is_dir()
        return clean_domain(first) if in_folder else _ROOT_DOMAIN

    def _lines(self, path: Path, domain: str) -> Iterator[Document]:
        field, domain_field = self._cfg.text_field, self._cfg.domain_field
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                place = f"{path}, line {number},"
                try:
                    record = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(
                        f"{place} is not JSON ({error.msg}): write one object per line."
                    ) from error
                if not isinstance(record, dict):
                    raise UserError(f"{place} is not a JSON object: write one object per line.")
                for needed, key in ((field, "data.text_field"), (domain_field, "data.domain_field")):
                    if needed is not None and not isinstance(record.get(needed), str):
                        fields = ", ".join(map(repr, record))
                        raise UserError(
                            f"{place} has no text in field {needed!r} (its fields are {fields}): "
                            f"set {key} to the field that holds it."
                        )
                named = clean_domain(record[domain_field]) if domain_field else domain
                name = f"{self._name(path)}:{number}"
                yield Document(record[field], name, named, name)


def _hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _refuse_binary(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(8192)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): correct data.path.") from error
    if b"\0" in start:
        raise UserError(
            f"{path} is binary or UTF-16, not UTF-8 text: convert it or take it out of data.path."
        )


def _pieces(path: Path, limit: int) -> Iterator[str]:
    """The file's text cut into pieces of at least `limit` bytes, at blank lines where they are near."""
    piece: list[str] = []
    size = 0
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            for part, part_bytes in _parts(line, max(limit, _LEAST_PART)):
                piece.append(part)
                size += part_bytes
                if size >= 2 * limit or (size >= limit and not part.strip()):
                    yield "".join(piece)
                    piece, size = [], 0
    if piece:
        yield "".join(piece)


def _parts(line: str, limit: int) -> Iterator[tuple[str, int]]:
    """A line and its bytes or, if it is longer than `limit` bytes, parts of at most about so many.

    They are cut at blanks, if there are any. Some files, such as text8, are one line.
    """
    size = len(line.encode())
    if size <= limit:
        yield line, size
        return
    step = max(len(line) * limit // size, 1)
    start = 0
    while start < len(line):
        end = start + step
        if end < len(line):
            end = line.rfind(" ", start, end) + 1 or end
        part = line[start:end]
        yield part, len(part.encode())
        start = end
