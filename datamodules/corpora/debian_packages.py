"""Fetching Debian packages without root and without touching the system's state.

Hosts and keys are those of the machine's own apt configuration. `apt-get download` needs no root; where
the system's package lists are missing or too old, a private copy of the lists is fetched into the cache.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datamodules.progress import Advance
from mohge.errors import UserError
from mohge.files import sha256_of

_URI_LINE = re.compile(r"^'[^']+' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")
_POLL_SECONDS = 0.2
_Result = subprocess.CompletedProcess[str]
_REMEDY = "check the network and run the command again, which continues where it stopped"


@dataclass(frozen=True)
class Package:
    """What apt knows about the candidate of one package."""

    name: str
    file: str
    """Name of the .deb, which carries the version."""
    size: int
    """Bytes of the .deb."""
    sha256: str

    @property
    def version(self) -> str:
        """The version, as in the file's name."""
        return self.file.split("_")[1].replace("%3a", ":")


def check_apt() -> None:
    """Raise UserError unless apt and dpkg are on this machine."""
    missing = [command for command in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(command) is None]
    if missing:
        raise UserError(
            f"data=debian_docs needs {' and '.join(missing)}, found on Debian-like systems only: use "
            "data=python_stdlib, data=text_files data.path=FOLDER or data=hf instead."
        )


@contextmanager
def _watched(path: Path, size: int, advance: Advance) -> Iterator[None]:
    """Advance by what arrives in `path`, which another process writes, and by `size` in all at the end."""
    stop = threading.Event()
    seen = 0

    def watch() -> None:
        nonlocal seen
        while not stop.wait(_POLL_SECONDS):
            now = min(size, path.stat().st_size if path.exists() else 0)
            if now > seen:
                advance(now - seen)
                seen = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()
    advance(size - seen)


class Apt:
    """apt of this machine, with everything it writes kept under `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._options: list[str] = ["-o", f"Dir::Cache={self._folder / 'cache'}"]
        if os.geteuid() == 0:
            # The unprivileged user that apt turns into as root cannot read a folder in someone's home.
            self._options += ["-o", "APT::Sandbox::User=root"]

    def candidates(self, names: tuple[str, ...]) -> list[Package]:
        """The candidates of all packages, in the order of `names`: a name, or STABLE:PATTERN for what the
        package STABLE depends on that matches PATTERN, since some names carry a version.

        Raises:
            UserError: the lists cannot be fetched, or do not know a package.
        """
        (self._folder / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        try:
            return self._candidates(names)
        except LookupError:
            self._fetch_lists()
        try:
            return self._candidates(names)
        except LookupError as error:
            raise UserError(
                f"data=debian_docs needs the package {error.args[0]}, which apt does not offer on this "
                "machine: add Debian's main archive to apt's sources, or choose another data=."
            ) from error

    def download(self, package: Package, folder: Path, advance: Advance) -> Path:
        """The checked .deb in `folder`; one that is there already is not fetched again.

        An interrupted fetch of many packages so continues with the one that was under way.

        Raises:
            UserError: the transfer failed or gave a file with another checksum.
        """
        path = folder / package.file
        if path.exists() and _matches(path, package):
            advance(package.size)
            return path
        partial = folder / "partial"
        partial.mkdir(parents=True, exist_ok=True)
        with _watched(partial / package.file, package.size, advance):
            result = self._run("apt-get", "download", package.name, cwd=partial)
        arrived = partial / package.file
        if result.returncode != 0 or not arrived.exists():
            raise UserError(f"package {package.name} did not arrive ({_reason(result)}): {_REMEDY}.")
        if not _matches(arrived, package):
            arrived.unlink()
            raise UserError(
                f"package {package.name} arrived with a wrong checksum and was removed: {_REMEDY}."
            )
        arrived.replace(path)
        return path

    def _candidates(self, names: tuple[str, ...]) -> list[Package]:
        """Raises LookupError, with the name, if apt does not know a package."""
        concrete = [self._concrete(name) for name in names]
        result = self._run("apt-get", "download", "--print-uris", *concrete)
        packages = {}
        for match in filter(None, map(_URI_LINE.match, result.stdout.splitlines())):
            name = match["file"].split("_")[0]
            packages[name] = Package(name, match["file"], int(match["size"]), match["sha256"])
        unknown = re.findall(r"Unable to locate package (\S+)", result.stderr)
        missing = unknown or [name for name in concrete if name not in packages]
        if missing:
            raise LookupError(missing[0])
        return [packages[name] for name in concrete]

    def _concrete(self, name: str) -> str:
        """The package that a name or STABLE:PATTERN stands for; raises LookupError."""
        stable, _, pattern = name.partition(":")
        if not pattern:
            return name
        result = self._run("apt-cache", "depends", "--important", stable)
        found = re.findall(r"^ *Depends: (\S+)$", result.stdout, re.MULTILINE)
        if not (matching := fnmatch.filter(found, pattern)):
            raise LookupError(name)
        return matching[0]

    def _fetch_lists(self) -> None:
        lists = self._folder / "lists"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        self._options += ["-o", f"Dir::State::Lists={lists}"]
        result = self._run("apt-get", "update", "-q")
        if result.returncode != 0:
            raise UserError(f"apt could not fetch its package lists ({_reason(result)}): {_REMEDY}.")

    def _run(self, command: str, *arguments: str, cwd: Path | None = None) -> _Result:
        return subprocess.run(
            [command, *self._options, *arguments],
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )


def unpack(deb: Path, folder: Path) -> None:
    """Extract a .deb's files into `folder`, running none of its scripts; raises UserError."""
    result = subprocess.run(
        ["dpkg-deb", "-x", str(deb), str(folder)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        raise UserError(f"{deb} cannot be unpacked ({_reason(result)}): delete it and run the command again.")


def _matches(path: Path, package: Package) -> bool:
    if path.stat().st_size != package.size:
        return False
    return sha256_of(path) == package.sha256


def _reason(result: _Result) -> str:
    """The last error of a command, on one line, without addresses."""
    lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "Err", "dpkg-deb: error"))]
    last = (lines or result.stderr.splitlines() or [f"exit status {result.returncode}"])[-1]
    return re.sub(r"\S+://\S+\s*", "", last).strip()
