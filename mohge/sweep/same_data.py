"""Whether the cells of a sweep learned from the same data: a corpus that is prepared anew may be another."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mohge.errors import UserError
from mohge.sweep.cells import CELLS, Plan
from mohge.training.run_folder import RunFolder

_NOT_READ = ("cache_dir", "workers")
"""Settings of data that do not change what is read."""
_NAMED = 3
"""Sources, at most, that the sentence names."""


def read_settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Of the configuration of data, what decides which tokens are read, in which order."""
    return {key: value for key, value in data.items() if key not in _NOT_READ}


def different_data(folder: Path, plan: Plan) -> str | None:
    """A sentence if cells with equal settings of data read different tokens, which no report compares.

    Args:
        folder: of the sweep.
        plan: its cells; those that have not begun are left out.
    """
    runs = [(cell, RunFolder(folder / CELLS / cell.id)) for cell in plan.runs]
    read = [(cell, run, facts) for cell, run in runs if (facts := _facts(run)) is not None]
    if len({facts["fingerprint"] for _, _, facts in read}) < 2:
        return None  # before any configuration is read, which takes far longer
    found: dict[str, dict[str, list[tuple[str, dict[str, Any]]]]] = defaultdict(lambda: defaultdict(list))
    for cell, run, facts in read:
        settings = _settings(run)
        if settings is not None:
            found[settings][facts["fingerprint"]].append((f"{cell.arm} seed {cell.seed}", facts))
    for versions in found.values():
        if len(versions) > 1:
            most, fewer, *_ = sorted(versions.values(), key=len, reverse=True)
            return (
                f"{_named(most)} and {_named(fewer)} read different data with the same settings"
                f"{_differing(most[0][1], fewer[0][1])}: reports do not compare them. Prepare the corpus as "
                "it was (data.json in the folder of each names its sources), or train the others anew"
            )
    return None


def _facts(run: RunFolder) -> dict[str, Any] | None:
    """What the run read; None if it has not begun, or is damaged, which its state tells."""
    try:
        facts: dict[str, Any] = json.loads((run.path / "data.json").read_text(encoding="utf-8"))
        facts["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return facts


def _settings(run: RunFolder) -> str | None:
    try:
        return json.dumps(read_settings(run.read_config()["data"]))
    except (LookupError, TypeError, UserError):
        return None


def _named(cells: list[tuple[str, dict[str, Any]]]) -> str:
    return cells[0][0] + (f" (as {len(cells) - 1} more)" if len(cells) > 1 else "")


def _differing(facts: dict[str, Any], others: dict[str, Any]) -> str:
    """Which sources differ, such as ` (other versions of perl-doc, linux-doc)`."""
    versions, other_versions = (
        {source["name"]: (source["version"], source.get("sha256")) for source in one.get("sources", [])}
        for one in (facts, others)
    )
    names = [name for name in versions if versions[name] != other_versions.get(name)]
    names += [name for name in other_versions if name not in versions]
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f" (other versions of {', '.join(names[:_NAMED])}{more})"
