"""What MLflow is told of a run beside its metrics: name, tags to filter by, a note, parameters, datasets."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mohge.config.schema import TrainConfig
from mohge.parallel.sizes import mesh_sizes

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

NOTE = "mlflow.note.content"
PARENT = "mlflow.parentRunId"

_LONGEST_PARAMETER = 250  # characters of a value that every MLflow server accepts
_LONGEST_TAG = 5000  # likewise
_LONGEST_DIGEST = 36  # likewise


def common_tags() -> dict[str, str]:
    """Tags that MLflow itself shows: who began the run, with what."""
    return {"mlflow.user": _user(), "mlflow.source.name": "mohge-train", "mlflow.source.type": "LOCAL"}


def config_tags(train: TrainConfig) -> dict[str, str]:
    """Tags to filter and group by, as `tags.arch = 'mohge' and tags.widths = '48,80,112,144'`."""
    experts, mesh = train.experts, mesh_sizes(train)
    return {
        "arch": train.arch_name,
        "model": train.model.name,
        "router": train.router.kind,
        "widths": ",".join(map(str, experts.widths)) or "none",
        "experts": f"{experts.num_groups}x{experts.per_group}",
        "parallel": f"{train.parallel.name} {mesh.dp_replicate}x{mesh.dp_shard}x{mesh.expert_parallel}",
        "ranks": str(mesh.world),
        "data": train.data.name if train.data.path is None else f"{train.data.name} {train.data.path}",
        "seed": str(train.seed),
    }


def environment_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    """Tags of environment.json: which code ran."""
    git = environment["git"]
    tags = {"mohge": str(environment["versions"]["mohge"])}
    if git["revision"] is not None:
        tags |= {
            "git": git["revision"][:10],
            "git_dirty": "yes" if git["dirty"] else "no",
            "mlflow.source.git.commit": git["revision"],
            "mlflow.source.git.dirty": str(git["dirty"]).lower(),
        }
    return tags


def run_note(train: TrainConfig, overrides: list[str]) -> str:
    """Markdown: what this run is, where its folder is, and what to type next."""
    experts, folder = train.experts, train.paths.run_dir
    widths = ", ".join(map(str, experts.widths))
    pool = "no routed experts"
    if experts.num_experts:
        pool = f"{experts.per_group} experts of each width ({widths})"
    lines = [
        f"**{train.arch_name}**, {pool}; size {train.model.name}, on {train.data.name}, seed {train.seed}.",
        f"- Folder: `{folder}`",
        f"- Overrides: `{' '.join(overrides) or 'none'}`",
        f"- A report with charts: `mohge-report runs={folder}`",
        f"- Continue it: `mohge-train resume={folder}`",
    ]
    return "\n".join(lines)


def dataset_inputs(data: Mapping[str, Any]) -> list[DatasetInput]:
    """The corpus of data.json as MLflow datasets, one for each part; the digest is its fingerprint."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for part, name in (("train", data["corpus"]), ("validation", f"{data['corpus']} held out")):
        profile = {
            "tokens": data[f"{part}_tokens"],
            "licences": data["licences"],
            "domains": {domain: counts[part] for domain, counts in data["domains"].items()},
        }
        dataset = Dataset(
            name=name,
            digest=data["fingerprint"][:_LONGEST_DIGEST],
            source_type="local",
            source=json.dumps({"uri": data["folder"]}),
            profile=json.dumps(profile),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", part)]))
    return inputs


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """A nested configuration under dotted names, shortened where MLflow would refuse the length."""
    return {name: shorten(value, _LONGEST_PARAMETER) for name, value in _flatten(config).items()}


def tag_value(value: str) -> str:
    """A value that MLflow takes as a tag."""
    return shorten(value, _LONGEST_TAG)


def shorten(value: Any, longest: int) -> str:
    """Text of at most so many characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def read_json(path: Path) -> Any:
    """What a JSON file of the run's folder holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user that has no name
        return "unknown"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
