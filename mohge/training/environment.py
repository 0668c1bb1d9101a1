"""Versions, platform and git revision: what a run's figures depend on besides its configuration."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = ("mohge", "torch", "lightning", "hydra-core", "mlflow", "tokenizers", "numpy")


def describe_environment() -> dict[str, Any]:
    """Plain facts about software, machine and source revision."""
    import torch  # late: commands that only plan do not need it

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any]:
    """Revision of the source tree, with whether it had changes; nulls for an installed wheel."""

    def git(*arguments: str) -> str | None:
        source = Path(__file__).parent
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=source, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    # A wheel in a virtual environment inside some other repository must not report that one's revision.
    tracked = git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    if not tracked:
        return {"revision": None, "dirty": None}
    return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
