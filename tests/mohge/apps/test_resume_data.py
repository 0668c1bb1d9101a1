"""A run that continues with its data in another place, and with another number of processes to read them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from refusals import contents
from tiny_runs import read_metrics, tiny_run, train_here, write_corpus

from mohge.apps.resume import continued_config
from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that was never stopped, beside its corpus."""
    folder = tmp_path_factory.mktemp("work")
    data = tiny_run(write_corpus(folder / "corpus"), folder / "cache")
    train_here(folder / "whole", *data, "trainer.max_steps=4", "trainer.checkpoint_every=2")
    return folder / "whole"


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """The same, as it was after two steps."""
    run = Path(shutil.copytree(whole, tmp_path / "stopped"))
    shutil.rmtree(run / "checkpoints" / "step_00000004")
    return run


def continued(run: Path, *overrides: str) -> TrainConfig:
    """What mohge-train makes of this command line."""
    command_line = [f"resume={run}", *overrides]
    return continued_config(typed(TrainConfig, composed(*command_line)), command_line)


def carry_on(run: Path, *overrides: str) -> list[dict[str, Any]]:
    from mohge.training.run import train  # here: it takes seconds to import

    train(continued(run, *overrides), RunFolder(run), list(overrides))
    return read_metrics(run)


def test_it_goes_on_bit_for_bit(whole: Path, stopped: Path, tmp_path: Path) -> None:
    place = tmp_path / "other"
    assert carry_on(stopped, "data.workers=1", f"paths.cache_dir={place}") == read_metrics(whole)
    assert any(place.rglob("manifest.json")), "its tokens were made anew there"
    stored = RunFolder(stopped).read_config()
    assert (stored["data"]["workers"], stored["data"]["cache_dir"]) == (1, str(place))


@pytest.mark.parametrize(
    ("overrides", "of_data", "of_paths"),
    [
        (["paths.cache_dir=/a"], "/a", "/a"),
        (["data.cache_dir=/b"], "/b", None),
        (["paths.cache_dir=/a", "data.cache_dir=/b"], "/b", "/a"),
        (["data.cache_dir=/b", "paths.cache_dir=/a"], "/b", "/a"),
    ],
)
def test_data_are_where_the_command_line_says(stopped: Path, overrides, of_data, of_paths) -> None:
    before = continued(stopped)
    config = continued(stopped, *overrides)
    assert (config.data.cache_dir, config.paths.cache_dir) == (of_data, of_paths or before.paths.cache_dir)


def test_other_text_at_the_new_place_is_refused_and_the_run_left_as_it_is(
    stopped: Path, tmp_path: Path
) -> None:
    config = RunFolder(stopped).read_config()
    corpus = Path(shutil.copytree(config["data"]["path"], tmp_path / "corpus"))
    (corpus / "prose" / "0.txt").write_text(
        "Other sentences than those that were here. " * 50, encoding="utf-8"
    )
    config["data"]["path"] = str(corpus)
    RunFolder(stopped).write_config(config)
    before = contents(stopped)
    with pytest.raises(UserError, match=r"was trained with data\.fingerprint=.* restore the data"):
        carry_on(stopped, f"paths.cache_dir={tmp_path / 'other'}")
    assert contents(stopped) == before
