"""Compiling the C kernel on first use, and keeping it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

_SOURCES = ("experts.c", "product.h")
_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-ffp-contract=fast", "-fPIC", "-shared")
_SECONDS = 120


class UnavailableError(Exception):
    """The kernel cannot be had on this machine; the message says why."""


class Library:
    """The compiled kernel.

    Attributes:
        lanes: floats in a vector of this processor; sizes must be multiples of it.
    """

    def __init__(self, library: ctypes.CDLL, parallel: int) -> None:
        self._experts = library.experts
        self._experts.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
        self._parallel = parallel
        self.lanes: int = library.lanes()

    def compute(self, layer: ctypes.Structure) -> None:
        """Run `experts` of experts.c on torch's threads.

        Raises:
            MemoryError: no memory for its work space.
        """
        if self._experts(ctypes.byref(layer), torch.get_num_threads(), self._parallel):
            raise MemoryError("no memory for the work space of the experts")


@cache
def library() -> Library | str:
    """The kernel, or in a few words why there is none; compiled once per machine, in a second or two."""
    try:
        return Library(ctypes.CDLL(str(_compiled())), _parallel_function())
    except UnavailableError as reason:
        return str(reason)
    except OSError as error:
        return f"its library does not load ({error})"


def _parallel_function() -> int:
    """Address of `GOMP_parallel` in torch's own OpenMP runtime: threads of a second one would compete."""
    folder = Path(torch.__file__).parent
    for path in [*folder.glob("lib/libgomp*.so*"), *folder.parent.glob("torch.libs/libgomp*.so*")]:
        function = ctypes.CDLL(str(path)).GOMP_parallel
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None
        return address
    raise UnavailableError("torch brings no GNU OpenMP runtime here")


def _compiled() -> Path:
    if sys.platform != "linux":
        raise UnavailableError(f"it is written for Linux, and this is {platform.system()}")
    compiler = shutil.which("gcc")
    if compiler is None:
        raise UnavailableError("there is no gcc")
    here = Path(__file__).parent
    facts = [*_FLAGS, _run([compiler, "--version"]), platform.machine(), str(torch.cpu.get_capabilities())]
    digest = hashlib.sha256("\n".join(facts).encode())
    for name in _SOURCES:
        digest.update((here / name).read_bytes())
    folder = _cache_folder()
    target = folder / f"experts-{digest.hexdigest()[:16]}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / target.name
            _run([compiler, *_FLAGS, str(here / _SOURCES[0]), "-o", str(made)])
            os.replace(made, target)  # another process may have made the same
    return target


def _cache_folder() -> Path:
    folder = Path(os.environ.get("MOHGE_CACHE") or "~/.cache/mohge").expanduser() / "native"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"{folder} cannot be made ({error.strerror})") from error
    return folder


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)
    except subprocess.CalledProcessError as error:
        sentence = next((line for line in error.stderr.splitlines() if "error" in line), error.stderr[-200:])
        raise UnavailableError(f"it does not compile ({sentence.strip()})") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]} does not run ({error})") from error
    return done.stdout
