"""Several runs in one command: the arms of a comparison, trained one after another on the same data."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra import compose
from rich.console import Console

from mohge.apps.folders import sole_user
from mohge.apps.resume import continued_config, in_folder, override_key, with_changes
from mohge.config.load import as_dict, typed
from mohge.config.matching import matched
from mohge.config.paths import absolute_paths
from mohge.config.run_names import as_arm
from mohge.config.schema import TrainConfig
from mohge.config.targets import build, check_data, check_router
from mohge.errors import Interrupted, UserError
from mohge.training.run_folder import RunFolder

Train = Callable[[TrainConfig, list[str]], dict[str, Any]]


def train_arms(config: TrainConfig, overrides: list[str], folder: Path, train: Train) -> None:
    """Trains each arm that is not finished yet, then compares them.

    Args:
        config: of the comparison; `resume` is set when it continues.
        overrides: the command line's.
        folder: of the comparison; each arm's run is a sub-folder.
        train: trains one run.

    Raises:
        UserError: the command line contradicts an arm. Nothing has been trained or written then.
    """
    comparison = config.comparison
    assert comparison is not None
    parent = RunFolder(folder)
    if config.resume is None:
        changes: list[str] = []
        arms = {name: _new_arm(config, overrides, name, folder) for name in comparison.arms}
    else:
        changes = _changes(parent, overrides)
        arms = {name: _continued_arm(config, changes, name, folder) for name in comparison.arms}
    for arm in arms.values():
        check_data(arm.data)
        check_router(arm.router)
    parent.write_config(as_dict(config))
    if config.resume is None:
        parent.write_json("overrides.json", overrides)
    else:
        parent.add_resume({"overrides": overrides})
    parent.update_status(state="running", arms=list(arms))
    console = Console(soft_wrap=True, highlight=False)
    tokens = 0
    for name, arm in arms.items():
        status = RunFolder(folder / name).read_status()
        ended = status.get("step") == arm.steps or (status.get("stopped_early") and not changes)
        if status.get("state") == "finished" and ended:
            console.print(f"{name}: finished before")
            tokens = status["tokens"]
            continue
        console.rule(name, align="left")
        with _told_of_the_whole(parent), sole_user(folder / name):
            tokens = train(arm, overrides + comparison.arms[name])["tokens"]
    folders = {name: folder / name for name in arms}
    with _told_of_the_whole(parent):
        build("comparison", comparison.target, folders, comparison.baseline, folder)
        if (group_results := config.logger.group_results) is not None:
            build("logger", group_results, config.logger, in_folder(config, folder), field="group_results")
    parent.update_status(state="finished")
    console.print(f"Run folders: {folder}/{{{','.join(arms)}}}")
    console.print(f"Train longer: mohge-train resume={folder} trainer.max_tokens={2 * tokens}")


@contextlib.contextmanager
def _told_of_the_whole(parent: RunFolder) -> Iterator[None]:
    """Notes how the comparison ended when an arm does, and names the folder that continues all of it."""
    try:
        yield
    except Interrupted as error:
        parent.update_status(state="interrupted")
        sentence = f"{error}; the whole comparison continues with mohge-train resume={parent.path}"
        raise Interrupted(sentence, error.signal) from error
    except BaseException:
        parent.update_status(state="failed")
        raise


def _new_arm(config: TrainConfig, overrides: list[str], name: str, folder: Path) -> TrainConfig:
    """The command line's configuration with the arm's overrides."""
    assert config.comparison is not None
    arm_overrides = config.comparison.arms[name]
    taken = {override_key(item) for item in arm_overrides}
    for item in overrides:
        key = override_key(item)
        if key in taken:
            raise UserError(f"{item} contradicts the arms of this experiment, which set {key}: leave it out")
    arm = matched(typed(TrainConfig, compose("train", overrides=[*overrides, *arm_overrides])))
    arm = as_arm(dataclasses.replace(absolute_paths(arm), comparison=None), name, folder)
    return in_folder(arm, folder / name)


def _continued_arm(config: TrainConfig, changes: list[str], name: str, folder: Path) -> TrainConfig:
    """An arm that was begun, from its own folder; one that was not, from the comparison's command line."""
    stored = RunFolder(folder / name)
    if stored.exists:
        return continued_config(dataclasses.replace(config, resume=str(stored.path)), changes)
    arm = _new_arm(config, RunFolder(folder).read_overrides(), name, folder)
    arm = with_changes(as_dict(arm), as_dict(config), changes)
    # The command line's relative paths began where the comparison was started, not where it continues.
    places = {key: getattr(config.data, key) for key in ("path", "tokenizer", "cache_dir")}
    logger = dataclasses.replace(arm.logger, tracking_uri=config.logger.tracking_uri)
    arm = dataclasses.replace(
        arm, data=dataclasses.replace(arm.data, **places), logger=logger, paths=config.paths
    )
    return in_folder(arm, folder / name)


def _changes(parent: RunFolder, overrides: list[str]) -> list[str]:
    """What this command line and those that continued the comparison before have set beside `resume`."""
    given = [item for past in parent.read_resumes() for item in past["overrides"]] + overrides
    return [item for item in given if override_key(item) != "resume"]
