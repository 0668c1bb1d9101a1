"""Every recipe composes, and trains when it is made small enough."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from hydra import initialize_config_module
from tiny_runs import TINY_MODEL, read_metrics, tiny_data, train_here, write_corpus

from mohge.apps.arms import train_arms
from mohge.config.load import group_choices, typed
from mohge.config.schema import TrainConfig
from mohge.training.run_folder import RunFolder

RECIPES = [f"{group}={choice}" for group in ("experiment", "debug") for choice in group_choices(group)]
PRESETS = [f"arch={choice}" for choice in group_choices("arch")]
COMPARISONS = [recipe for recipe in RECIPES if composed(recipe).comparison is not None]
PLOTS = {"loss_curves.png", "group_shares.png", "expert_load.png", "coactivation.png"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that make any recipe small; what else it says stays."""
    folder = tmp_path_factory.mktemp("data")
    steps = (
        "trainer.max_steps=4",
        "trainer.val_every=2",
        "trainer.checkpoint_every=2",
        "trainer.log_every=1",
    )
    data = tiny_data(write_corpus(folder / "corpus"), folder / "cache")
    sizes = (*TINY_MODEL, "model.mla.kv_rank=16", "model.mla.nope_dim=8", "model.mla.rope_dim=8")
    store = f"logger.tracking_uri=sqlite:///{folder}/mlflow.db"
    return [*sizes, "model.mla.value_dim=8", *data, *steps, store]


def small_pool(*recipe: str) -> list[str]:
    """Overrides that shrink the experts of a recipe, and keep how many there are."""
    experts = typed(TrainConfig, composed(*recipe, "data=python_stdlib")).experts
    widths = [8 * (group + 1) for group in range(experts.num_groups)]
    return [f"experts.widths={widths}".replace(" ", ""), f"experts.shared_width={8 if experts.shared else 0}"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_composes_to_a_valid_configuration(recipe):
    extra = [] if composed(recipe).data.name == "python_stdlib" else ["data.path=a_data_set"]
    config = typed(TrainConfig, composed(recipe, *extra))
    arms = config.comparison.arms if config.comparison else {"only": []}
    for overrides in arms.values():
        typed(TrainConfig, composed(recipe, *extra, *overrides))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted({*RECIPES, *PRESETS} - {*COMPARISONS}))
def test_every_recipe_and_preset_trains(tiny, tmp_path, recipe):
    records = train_here(tmp_path, recipe, *tiny, *small_pool(recipe), "trainer.accumulate=2")
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert records[-1]["val/bits_per_byte"] > 0
    assert records[-1]["speed/tokens_per_second"] > 0
    status = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    assert status["state"] == "finished"
    assert status["mlflow_run_id"]
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"loss_curves.png"} <= plots <= PLOTS  # the others need experts, or several groups of them


@pytest.mark.slow
@pytest.mark.parametrize("recipe", COMPARISONS)
def test_a_comparison_trains_its_arms_and_says_how_they_differ(tiny, tmp_path, capsys, recipe):
    # The pools keep their nano sizes: each arm has its own, and the command line must not change them.
    overrides = [recipe, "model=nano", *tiny]
    config = typed(TrainConfig, composed(*overrides))
    with initialize_config_module("conf", version_base="1.3"):
        train_arms(config, overrides, tmp_path, _train)
    assert config.comparison is not None
    arms = list(config.comparison.arms)

    result: dict[str, Any] = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert result["baseline"] == "moe"
    assert list(result["runs"]) == arms
    assert {path.name for path in tmp_path.glob("*.png")} == PLOTS - {"coactivation.png"}
    text = capsys.readouterr().out
    for arm in arms:
        assert arm in text
        assert len(read_metrics(tmp_path / arm)) == 4
        assert RunFolder(tmp_path / arm).read_status()["state"] == "finished"
    assert RunFolder(tmp_path).read_status()["state"] == "finished"
    assert "parameters than moe" in text
    corpora = [json.loads((tmp_path / arm / "data.json").read_text(encoding="utf-8")) for arm in arms]
    assert len({corpus["fingerprint"] for corpus in corpora}) == 1, "the arms read the same tokens"


def _train(config: TrainConfig, overrides: list[str]) -> dict[str, Any]:
    from mohge.training.run import train

    assert config.paths.run_dir is not None
    return train(config, RunFolder(Path(config.paths.run_dir)), overrides)
