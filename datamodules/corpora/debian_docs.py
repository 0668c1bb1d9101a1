"""Books, manuals and dictionaries that Debian packages: eight domains, about 150 MB of text."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from datamodules.corpora import debian_markup as markup
from datamodules.corpora.base import Document
from datamodules.corpora.debian_packages import Apt, Package, check_apt, unpack
from datamodules.manifests import Source
from datamodules.progress import bytes_bar
from datamodules.splits import unit_hash
from mohge.config.schema import DataConfig

_RECIPE = 1
"""Raised whenever the same packages would give other documents."""
_LEAST_CHARACTERS = 200
_ENTRIES_BYTES = 4000
"""Short dictionary entries are put together into documents of about this size."""
_DICTIONARY_SHARE = 0.2
"""Largest share of the dictionaries in all text: they would be nearly half of it."""


@dataclass(frozen=True)
class _Recipe:
    """Which files of a package are read. `package` is as in `Apt.candidates`."""

    domain: str
    package: str
    files: str
    """Regular expression that the whole path inside the package matches."""
    skip: str = r"^$"
    """Regular expression that no part of the path matches."""


_HTML = r".*\.x?html(\.gz)?"
_SOURCES = r".*/_sources/.*\.txt(\.gz)?"
_RECIPES = (
    _Recipe("prose", "anarchism", _HTML),
    _Recipe("scripture", "sword-text-kjv", r".*/ot\.bzs"),
    _Recipe("scripture", "sword-text-web", r".*/ot\.bzs"),
    _Recipe("manual_pages", "manpages", r".*/man/man.*\.gz"),
    _Recipe("manual_pages", "manpages-dev", r".*/man/man.*\.gz"),
    _Recipe("kernel", "linux-doc:linux-doc-*", r".*\.(rst|txt)(\.gz)?", skip=r"translations|/html/|_sources"),
    _Recipe(
        "code",
        "libpython3-stdlib:libpython3.*-stdlib",
        r".*/python3[^/]*/.*\.py",
        skip=r"/(encodings|pydoc_data|test)/",
    ),
    _Recipe("code", "perl:perl-modules-*", r".*\.p[lm]", skip=r"unicore|/Encode/|/CPAN/|Collate|Locale"),
    _Recipe("technical", "python3-doc:python3.*-doc", _SOURCES),
    _Recipe(
        "technical",
        "rust-doc",
        r".*/html/(book|reference|nomicon|cargo|rust-by-example|rustc|edition-guide)/.*\.html",
        skip=r"print\.html|book/(first|second|2018)-edition",
    ),
    _Recipe("technical", "postgresql-doc:postgresql-doc-*", r".*/html/.*\.html"),
    _Recipe("technical", "perl-doc", r".*\.pod(\.gz)?"),
    _Recipe("technical", "libreoffice-help-en-us", r".*/text/.*\.html"),
    _Recipe("technical", "debian-policy", r".*/policy[^/]*\.html/.*\.html"),
    _Recipe("technical", "debian-reference-en", r".*\.en\.html"),
    _Recipe("technical", "erlang-doc", _HTML, skip="index"),
    _Recipe("mathematics", "python-sympy-doc", _SOURCES),
    _Recipe("mathematics", "maxima-doc", r".*/html/.*\.html", skip=r"/(de|es|pt|ja|ru)(_|/|\.)"),
    _Recipe("mathematics", "octave-doc", _HTML, skip="doxy|liboctave"),
    _Recipe("mathematics", "gap-doc", _HTML, skip=r"_mj\."),
    _Recipe("mathematics", "r-doc-html", _HTML),
    # Last, since their share depends on the rest.
    _Recipe("dictionary", "dict-gcide", r".*/gcide\.dict\.dz"),
    _Recipe("dictionary", "dict-foldoc", r".*/foldoc\.dict\.dz"),
    _Recipe("dictionary", "dict-vera", r".*\.dict\.dz"),
    _Recipe("dictionary", "dict-devil", r".*\.dict\.dz"),
    _Recipe("dictionary", "wordnet-base", r".*/wordnet/data\.(noun|verb|adj|adv)"),
)


class DebianDocs:
    """Packages fetched by the machine's own apt. Implements `corpora.base.Corpus`.

    What the archive offers changes with its releases: the corpus is pinned by the checksum of its output,
    in the manifest, and not by package versions.
    """

    def __init__(self, cfg: DataConfig) -> None:
        self._folder = Path(cfg.cache_dir).expanduser() / "downloads" / "debian"
        self._sources: list[Source] = []

    def check(self) -> None:
        """Raise UserError unless apt and dpkg are on this machine."""
        check_apt()

    def identity(self) -> dict[str, object]:
        """The recipe: versions are known only to apt, and a prepared corpus stays as it is."""
        return {
            "recipe": _RECIPE,
            "packages": [astuple(recipe) for recipe in _RECIPES],
            "dictionary_share": _DICTIONARY_SHARE,
        }

    def documents(self, *, progress: bool) -> Iterator[Document]:
        """All domains, the dictionaries last and cut to their share; raises UserError as Apt does."""
        apt = Apt(self._folder / "apt")
        packages = apt.candidates(tuple(recipe.package for recipe in _RECIPES))
        debs = {}
        with bytes_bar("fetching", sum(package.size for package in packages), enabled=progress) as done:
            for package in packages:
                debs[package] = apt.download(package, self._folder, done)
        written = 0
        dictionary: list[Document] = []
        with bytes_bar("extracting", sum(package.size for package in packages), enabled=progress) as done:
            for recipe, package in zip(_RECIPES, packages, strict=True):
                for document in self._unpacked(recipe, package, debs[package]):
                    if recipe.domain == "dictionary":
                        dictionary.append(document)
                    else:
                        written += len(document.text.encode())
                        yield document
                done(package.size)
        yield from _share(dictionary, round(written * _DICTIONARY_SHARE / (1 - _DICTIONARY_SHARE)))

    def sources(self) -> tuple[Source, ...]:
        """The packages, with the licences that their copyright files name."""
        return tuple(self._sources)

    def _unpacked(self, recipe: _Recipe, package: Package, deb: Path) -> Iterator[Document]:
        root = self._folder / "unpacked" / package.name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        try:
            unpack(deb, root)
            copyright_file = root / "usr" / "share" / "doc" / package.name / "copyright"
            licence = _licence(copyright_file, self._folder / "copyright" / package.name)
            self._sources.append(
                Source(name=package.name, version=package.version, licence=licence, sha256=package.sha256)
            )
            for path in _files(root, recipe):
                for key, text in _read(root, path, recipe):
                    if len(text) >= _LEAST_CHARACTERS:
                        name = f"{package.name}/{path}"
                        source = f"{name}, {key}" if key else name
                        yield Document(text + "\n", source, recipe.domain, key or name)
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _files(root: Path, recipe: _Recipe) -> list[str]:
    """Paths inside the package, sorted; links are left out, since they repeat other files."""
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            inside = path.relative_to(root).as_posix()
            if (
                not path.is_symlink()
                and re.fullmatch(recipe.files, inside)
                and not re.search(recipe.skip, inside)
            ):
                found.append(inside)
    return sorted(found)


def _read(root: Path, inside: str, recipe: _Recipe) -> Iterator[tuple[str | None, str]]:
    """Texts of one file, each with its split key where that is not the file."""
    path = root / inside
    if recipe.domain == "scripture":
        # One key for all translations of a chapter: they say the same.
        yield from ((f"chapter {name}", text) for name, text in markup.sword_chapters(path.parent))
        return
    source = markup.read_text(path)
    if recipe.domain == "dictionary":
        entries = markup.wordnet_entries if recipe.package == "wordnet-base" else markup.dictionary_entries
        for number, text in enumerate(_together(entries(source))):
            yield f"{recipe.package} part {number}", text
        return
    yield None, _converter(inside)(source)


def _converter(path: str) -> Callable[[str], str]:
    name = path.removesuffix(".gz")
    if name.endswith("html"):
        return markup.html_to_text
    if name.endswith(".pod"):
        return markup.pod_to_text
    return markup.man_to_text if "/man/man" in name else markup.tidy


def _together(entries: Iterator[str]) -> Iterator[str]:
    """Entries joined by empty lines into documents of about _ENTRIES_BYTES."""
    document: list[str] = []
    size = 0
    for entry in entries:
        document.append(entry)
        size += len(entry)
        if size >= _ENTRIES_BYTES:
            yield "\n\n".join(document)
            document, size = [], 0
    if document:
        yield "\n\n".join(document)


def _share(documents: list[Document], budget: int) -> Iterator[Document]:
    """As many documents as `budget` bytes hold, chosen by the hash of their key."""
    for document in sorted(documents, key=lambda document: unit_hash("share", document.key)):
        budget -= len(document.text.encode())
        if budget < 0:
            return
        yield document


def _licence(copyright_file: Path, kept: Path) -> str:
    """Short name of the licence of the whole work if the copyright file gives one, else where to read it.

    The file is copied to `kept`: it is all that many packages say.
    """
    if not copyright_file.exists():  # a package that shares the documentation of another
        return "see the other packages of its source"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(copyright_file, kept)
    for paragraph in re.split(r"\n\s*\n", copyright_file.read_text("utf-8", "replace")):
        named = re.search(r"(?m)^License:[ \t]*(\S.*)$", paragraph)
        if named and re.search(r"(?m)^Files:\s*\*\s*$", paragraph):
            return named[1]
    return f"see downloads/debian/copyright/{kept.name} in the cache"
