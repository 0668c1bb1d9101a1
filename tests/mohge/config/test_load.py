from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from composing import composed
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from mohge.config.load import as_dict, did_you_mean, explain_hydra, group_choices, known_keys, typed
from mohge.config.plan_schema import PlanConfig
from mohge.config.schema import TrainConfig
from mohge.config.sweep_schema import SweepConfig
from mohge.errors import UserError

CONF = Path(__file__).parents[3] / "conf"


@pytest.mark.parametrize("model", group_choices("model"))
@pytest.mark.parametrize("arch", group_choices("arch"))
def test_every_model_and_arch_compose_to_a_valid_configuration(model, arch):
    config = typed(TrainConfig, composed(f"model={model}", f"arch={arch}"))
    assert config.model.name == model
    assert config.arch_name == arch
    assert config.data.vocab_size == config.model.vocab_size


def test_a_choice_on_the_command_line_wins_over_the_preset():
    config = typed(TrainConfig, composed("arch=mohge", "experts=tiny/moe", "router=tiny/top_k", "loss=none"))
    assert config.experts.widths == (128,)
    assert config.router.kind == "top_k"


def test_the_plain_form_reads_back_to_the_same_configuration():
    config = typed(TrainConfig, composed("arch=mohge_released", "trainer.max_steps=1e3"))
    assert config.trainer.max_steps == 1000
    plain = yaml.safe_load(yaml.safe_dump(as_dict(config)))
    assert typed(TrainConfig, plain) == config


def test_yaml_files_mention_every_key_of_the_schema():
    """A key that no file mentions could only be set with `+`."""
    tree = composed(config_name="plan")
    missing = [
        key
        for key in known_keys(PlanConfig)
        if not key.startswith("comparison.") and OmegaConf.select(tree, key, default="absent") == "absent"
    ]
    assert missing == []


def test_every_key_in_yaml_has_a_comment():
    uncommented = []
    for path in CONF.rglob("*.yaml"):
        if path.parent.name in ("experiment", "debug", "help"):
            continue  # recipes set keys that their own group explains; help is text
        section = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(" "):
                section = line
            if section.startswith(("defaults:", "hydra:")):
                continue
            key, _, value = line.partition(":")
            if value.strip() and not key.strip().startswith("#") and "#" not in line:
                uncommented.append(f"{path.relative_to(CONF)}: {line}")
    parents = ("callbacks", "parallel")  # one key under a commented parent
    assert [line for line in uncommented if not line.startswith(parents)] == []


def test_unknown_key_added_with_plus_is_refused():
    with pytest.raises(
        UserError, match=r"unknown key router\.group_topk; did you mean router\.group_top_k\?"
    ):
        typed(TrainConfig, composed("+router.group_topk=2"))


def test_wrong_type_names_key_value_and_what_is_right():
    with pytest.raises(UserError, match=r"^model\.d_model='wide' is not valid: it should be a whole number$"):
        typed(TrainConfig, composed("model.d_model=wide"))


@pytest.mark.parametrize(
    ("betas", "sentence"),
    [
        ("[0.9,0.95,0.99]", "it should be a list of at most 2 values"),
        ("[0.9]", r"optim\.betas\[1\] has no value: give a longer list"),
    ],
)
def test_a_list_of_another_length_is_told(betas, sentence):
    with pytest.raises(UserError, match=sentence):
        typed(TrainConfig, composed(f"optim.betas={betas}"))


def test_several_mistakes_are_counted():
    with pytest.raises(UserError, match=r"\(and 1 more\)$"):
        typed(TrainConfig, composed("model.d_model=wide", "optim.lr=-1"))


def test_null_where_a_value_is_needed():
    with pytest.raises(UserError, match=r"seed=None"):
        typed(TrainConfig, composed("seed=null"))


def test_only_training_is_offered_several_runs():
    error = ConfigCompositionException("Ambiguous value for argument 'seed=1,2'\n1. To use it as a list, …")
    sentence = "seed=1,2 names several values: write 'seed=[1,2]' for a list, or 'seed=\"1,2\"' for one text"
    assert explain_hydra(error, PlanConfig) == sentence
    assert explain_hydra(error, TrainConfig) == f"{sentence}, or use mohge-train -m for a run of each"


@pytest.mark.parametrize("key", ["optim.lr", "callbacks.routing.tier"])
def test_a_key_of_a_grid_is_added_with_its_dots(key):
    tree = composed(f"+sweep.grid.{key}=[1]", config_name="sweep")
    with pytest.raises(UserError, match=re.escape(f"write '+sweep.grid={{{key}:[VALUE,…]}}'")):
        typed(SweepConfig, tree)
    tree = composed(f"+sweep.grid={{{key}:[1]}}", config_name="sweep")
    assert typed(SweepConfig, tree).sweep.grid == {key: [1]}


def test_a_group_of_a_command_is_a_key_there():
    with pytest.raises(UserError, match=r"^unknown key sweep\.sed; did you mean sweep\.seeds\?"):
        typed(SweepConfig, composed("+sweep.sed=1", config_name="sweep"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("modle", "; did you mean model?"),
        ("group_top_k", "; did you mean router.group_top_k?"),
        ("trainer.maxsteps", "; did you mean trainer.max_steps?"),
        ("zzzz", ""),
    ],
)
def test_did_you_mean(word, expected):
    assert did_you_mean(word, known_keys(TrainConfig)) == expected
