"""The parent of runs that belong together: the arms of a comparison, the jobs of a multirun or sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from callbacks.tracking.facts import NOTE, PARENT, common_tags, read_json, tag_value
from callbacks.tracking.store import store_uri, with_store
from mohge.config.schema import LoggerConfig, TrainConfig
from mohge.errors import UserError, first_line
from mohge.files import locked, write_json_atomically

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

COLOUR = "mlflow.runColor"

_FILE = "mlflow.json"
_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_RESULTS = ("comparison.json", "config.yaml", "overrides.json", "sweep.json", "*.png")


def parent_run(client: MlflowClient, experiment: str, folder: Path, output_dir: Path) -> str:
    """Id of the MLflow run of a group's folder, made by whichever of its runs begins first.

    Args:
        client: of the store.
        experiment: id of the experiment that it is made in.
        folder: of the group; `mlflow.json` in it names the run.
        output_dir: what the run's name leaves out of the folder's.
    """
    with locked(folder / ".mlflow.lock", f"beginning {folder}"):
        known = _known(client, folder)
        if known is not None:
            client.update_run(known, status="RUNNING")
            return known
        inside = folder.is_relative_to(output_dir)
        name = folder.relative_to(output_dir).as_posix() if inside else folder.name
        tags = {**common_tags(), "group": tag_value(str(folder)), NOTE: _note(folder)}
        run_id = str(client.create_run(experiment, run_name=name, tags=tags).info.run_id)
        write_json_atomically(folder / _FILE, {"run_id": run_id})
        return run_id


def next_colour(client: MlflowClient, experiment: str, parent: str) -> str:
    """A colour for the curves of a group's next run: Okabe and Ito's, which all readers can tell apart."""
    siblings = client.search_runs([experiment], _children_of(parent))
    return _OKABE_ITO[len(siblings) % len(_OKABE_ITO)]


def settle_parent(client: MlflowClient, run_id: str) -> None:
    """Gives a parent the status of its runs together: running while one is, failed or killed if one is."""
    run = client.get_run(run_id)
    open_or_bad = client.search_runs(
        [run.info.experiment_id], f"{_children_of(run_id)} and attributes.status != 'FINISHED'"
    )
    states = {child.info.status for child in open_or_bad}
    status = next((state for state in ("RUNNING", "FAILED", "KILLED") if state in states), "FINISHED")
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status)


def log_group_results(cfg: LoggerConfig, train: TrainConfig) -> None:
    """Gives the parent run what was made of its finished runs: table, pictures, configuration.

    A store that fails now is told as a warning: the files are in the group's folder.

    Args:
        cfg: names the store.
        train: configuration of the comparison, with its folder.
    """
    assert train.paths.run_dir is not None
    folder = Path(train.paths.run_dir)

    def log_results(client: MlflowClient) -> None:
        run_id = _known(client, folder)
        if run_id is None:
            return
        for pattern in _RESULTS:
            for path in sorted(folder.glob(pattern)):
                client.log_artifact(run_id, str(path))
        table = _table(read_json(folder / "comparison.json"))
        client.set_tag(run_id, NOTE, tag_value(f"{table}\n\n{_note(folder)}"))
        settle_parent(client, run_id)

    try:
        with_store(store_uri(cfg, train), log_results)
    except UserError as error:
        rank_zero_warn(f"MLflow did not take the results: {first_line(error)}; {folder} has them")


def is_active(client: MlflowClient, run_id: str) -> bool:
    """Whether the store holds the run, and nobody has deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return bool(run.info.lifecycle_stage == "active")


def _children_of(run_id: str) -> str:
    return f"tags.`{PARENT}` = '{run_id}'"


def _known(client: MlflowClient, folder: Path) -> str | None:
    """Id of the group's run, unless there is none, or the store holds it no longer."""
    path = folder / _FILE
    if not path.exists():
        return None
    run_id = str(read_json(path)["run_id"])
    return run_id if is_active(client, run_id) else None


def _note(folder: Path) -> str:
    """Markdown: where the group is, and what to type next."""
    return f"- Folder: `{folder}`\n- A report on all its runs: `mohge-report runs={folder}`"


def _table(comparison: dict[str, Any]) -> str:
    """comparison.json as a Markdown table."""
    lines = ["| | validation bits per byte | parameters | tokens per second |", "|---|---:|---:|---:|"]
    for name, run in comparison["runs"].items():
        bits, speed = run["validation"]["bits_per_byte"], run["tokens_per_second"]
        cells = [
            f"{name} (baseline)" if name == comparison["baseline"] else name,
            "" if bits is None else f"{bits:.4f}",
            f"{run['parameters']['total']:,}",
            "" if speed is None else f"{speed:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
