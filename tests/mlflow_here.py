"""A real MLflow server on this machine, for tests."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from callbacks.tracking.ui import server_command


@contextmanager
def serving(store: Path, *options: str) -> Iterator[int]:
    """Serves a sqlite store, made if need be, as `make ui` does; yields the port.

    Args:
        store: the file.
        options: more of mlflow server.
    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    log = store.with_suffix(".log")
    with log.open("w") as output:
        server = subprocess.Popen(
            [*server_command(store, port), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
