"""Packages made with dpkg-deb, behind an apt that is a script in the tests' own PATH."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from corpus_samples import Configure, words

from datamodules.checks import check
from datamodules.corpora import debian_docs
from datamodules.corpora.debian_docs import _Recipe
from datamodules.prepare import prepare
from datamodules.store import open_store
from mohge.errors import UserError

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="makes packages with dpkg-deb")

# Serves the archive described by archive.json beside it; writes down each download.
_APT = """#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
archive = json.loads((here / "archive.json").read_text())
words = [w for w in sys.argv[1:] if w != "-o" and "::" not in w]
if pathlib.Path(sys.argv[0]).name == "apt-cache":
    for name in words[2:] if words[1] == "--important" else words[1:]:
        print(name)
        for needed in archive["depends"].get(name, []):
            print("  Depends: " + needed)
elif words[0] == "update":
    (here / "updated").touch()
    if archive["broken_lists"]:
        print("E: Failed to fetch http://host.example/dists  Could not resolve", file=sys.stderr)
        sys.exit(100)
elif "--print-uris" in words:
    for name in words[2:]:
        if name not in archive["packages"]:
            print("E: Unable to locate package " + name, file=sys.stderr)
            sys.exit(100)
        entry = archive["packages"][name]
        file = entry["file"]
        print(f"'http://host.example/{file}' {file} {entry['size']} SHA256:{entry['sha256']}")
else:
    entry = archive["packages"][words[1]]
    data = (here / "pool" / entry["file"]).read_bytes()
    with (here / "log").open("a") as log:
        log.write(words[1] + "\\n")
    if words[1] == archive["interrupted"]:
        pathlib.Path(entry["file"]).write_bytes(data[:100])
        print("E: Failed to fetch http://host.example/x  Connection timed out", file=sys.stderr)
        sys.exit(100)
    pathlib.Path(entry["file"]).write_bytes(data)
"""

_RECIPES = (
    _Recipe("prose", "book", r".*\.html"),
    _Recipe("manual_pages", "pages:pages-*", r".*/man/man.*\.gz"),
    _Recipe("scripture", "sword", r".*/ot\.bzs"),
    _Recipe("dictionary", "dict", r".*\.dict\.dz"),
)


class Archive:
    """A small Debian archive and the commands that reach it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "pool").mkdir(parents=True)
        self.state: dict[str, object] = {
            "packages": {},
            "depends": {},
            "interrupted": None,
            "broken_lists": False,
        }
        for command in ("apt-get", "apt-cache"):
            (root / command).write_text(_APT.replace("{python}", sys.executable))
            (root / command).chmod(0o755)

    def add(self, name: str, files: dict[str, bytes], copyright_text: str) -> None:
        tree = self.root / "build" / name
        content = {**files, f"usr/share/doc/{name}/copyright": copyright_text.encode()}
        control = {"Package": name, "Version": "1.0-2", "Architecture": "all", "Description": "x"}
        control["Maintainer"] = "T <t@example.org>"
        content["DEBIAN/control"] = "".join(f"{key}: {value}\n" for key, value in control.items()).encode()
        for path, data in content.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)
        deb = self.root / "pool" / f"{name}_1.0-2_all.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-b", str(tree), str(deb)], check=True, capture_output=True
        )
        data = deb.read_bytes()
        entry = {"file": deb.name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        self.state["packages"][name] = entry  # type: ignore[index]
        self.save()

    def save(self, **changes: object) -> None:
        self.state |= changes
        (self.root / "archive.json").write_text(json.dumps(self.state))

    def fetched(self) -> list[str]:
        log = self.root / "log"
        return log.read_text().split() if log.exists() else []


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setattr(debian_docs, "_RECIPES", _RECIPES)
    made = Archive(tmp_path / "archive")
    monkeypatch.setenv("PATH", f"{made.root}{os.pathsep}{os.environ['PATH']}")
    licence = "Format: x\n\nFiles: *\nCopyright: someone\nLicense: GPL-2+\n\nFiles: debian/*\nLicense: MIT\n"
    chapters = {
        f"usr/share/book/{number}.html": f"<body><nav>menu</nav><p>{words(number, 600)}</p></body>".encode()
        for number in range(8)
    }
    made.add("book", chapters, licence)
    pages = {
        f"usr/share/man/man3/p{number}.3.gz": gzip.compress(
            f".SH NAME\n{words(50 + number, 600)}\n.BR open (2)\n".encode()
        )
        for number in range(6)
    }
    made.add("pages-2.0", pages, "Format: x\n\nFiles: *\nLicense: BSD\n")
    bible = "".join(
        f'<chapter osisID="Gen.{number}"/><w lemma="x">{words(90 + number, 200)}</w><note>unread</note>'
        for number in range(5)
    ).encode()
    block = zlib.compress(bible)
    made.add(
        "sword", {"m/ot.bzs": struct.pack("<III", 0, len(block), len(bible)), "m/ot.bzz": block}, "free text"
    )
    entries = "\n".join(f"Word{number}\n   {words(200 + number, 60)}" for number in range(200))
    made.add("dict", {"usr/share/dictd/a.dict.dz": gzip.compress(entries.encode())}, licence)
    made.save(depends={"pages": ["libc6", "pages-2.0"]})
    return made


@needs_dpkg
def test_packages_become_domains_with_sources_and_licences(configure: Configure, archive: Archive) -> None:
    cfg = configure(name="debian_docs")
    check(cfg)
    store = open_store(prepare(cfg, progress=False), "remedy")
    corpus = store.manifest.corpus
    assert store.manifest.domains == ("dictionary", "manual_pages", "prose", "scripture")
    assert corpus.documents["prose"] == 8
    assert corpus.documents["manual_pages"] == 6
    assert corpus.documents["scripture"] == 5
    share = corpus.bytes["dictionary"] / sum(corpus.bytes.values())
    assert 0.1 < share <= 0.21
    facts = {source.name: (source.version, source.licence) for source in corpus.sources}
    assert facts["book"] == ("1.0-2", "GPL-2+")
    assert facts["pages-2.0"] == ("1.0-2", "BSD")
    assert facts["sword"][1] == "see downloads/debian/copyright/sword in the cache"
    assert (Path(cfg.cache_dir) / "downloads" / "debian" / "copyright" / "sword").read_text() == "free text"
    documents = next(Path(cfg.cache_dir).glob("corpora/*/documents.jsonl")).read_text("utf-8")
    assert "menu" not in documents
    assert "unread" not in documents
    assert "open(2)" in documents
    assert not (archive.root / "updated").exists(), "lists that know the packages are left alone"
    assert not list(Path(cfg.cache_dir).glob("downloads/debian/unpacked/*"))


@needs_dpkg
def test_an_interrupted_download_is_told_and_continued(configure: Configure, archive: Archive) -> None:
    cfg = configure(name="debian_docs")
    archive.save(interrupted="sword")
    with pytest.raises(
        UserError, match=r"package sword did not arrive \(E: Failed to fetch Connection timed out\)"
    ) as caught:
        prepare(cfg, progress=False)
    assert "host.example" not in str(caught.value)
    assert not list(Path(cfg.cache_dir).glob("corpora/debian_docs-*/"))
    archive.save(interrupted=None)
    prepare(cfg, progress=False)
    assert archive.fetched() == ["book", "pages-2.0", "sword", "sword", "dict"]


@needs_dpkg
def test_a_wrong_checksum_is_refused_and_the_file_removed(configure: Configure, archive: Archive) -> None:
    cfg = configure(name="debian_docs")
    path = archive.root / "pool" / "book_1.0-2_all.deb"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match="package book arrived with a wrong checksum"):
        prepare(cfg, progress=False)
    assert not list(Path(cfg.cache_dir).rglob("*.deb"))


@needs_dpkg
def test_a_cached_package_that_was_altered_is_fetched_again(configure: Configure, archive: Archive) -> None:
    cfg = configure(name="debian_docs")
    prepare(cfg, progress=False)
    shutil.rmtree(Path(cfg.cache_dir) / "corpora")
    (Path(cfg.cache_dir) / "downloads" / "debian" / "book_1.0-2_all.deb").write_bytes(b"broken")
    prepare(cfg, progress=False)
    assert archive.fetched().count("book") == 2
    assert archive.fetched().count("dict") == 1


@needs_dpkg
def test_missing_packages_bring_new_lists_and_then_an_error(
    configure: Configure, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = configure(name="debian_docs")
    monkeypatch.setattr(debian_docs, "_RECIPES", (*_RECIPES, _Recipe("prose", "absent", ".*")))
    with pytest.raises(UserError, match="needs the package absent, which apt does not offer"):
        prepare(cfg, progress=False)
    assert (archive.root / "updated").exists()
    archive.save(broken_lists=True)
    with pytest.raises(
        UserError, match=r"apt could not fetch its package lists \(E: Failed to fetch Could not"
    ):
        prepare(cfg, progress=False)


def test_a_machine_without_apt_is_told_before_anything_is_made(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    cfg = configure(name="debian_docs")
    with pytest.raises(
        UserError, match="needs apt-get and apt-cache and dpkg-deb, found on Debian-like systems"
    ):
        check(cfg)
    assert not Path(cfg.cache_dir).exists()
