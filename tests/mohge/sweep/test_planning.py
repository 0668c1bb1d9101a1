"""A plan becomes cells, each named by what it does; what cannot work is refused before anything runs."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from composing import composed
from fabricated_runs import train_config
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from mohge.config.load import group_choices, known_keys, typed
from mohge.config.schema import TrainConfig
from mohge.config.sweep_schema import SweepConfig
from mohge.errors import UserError
from mohge.sweep import planning
from mohge.sweep.cells import (
    CELL_VARIABLE,
    Cell,
    Plan,
    beside_the_plan,
    cell_id,
    check_cell,
    identity,
    read_plan,
    write_plan,
)
from mohge.sweep.planning import folder_of, planned

SMALL: dict[str, Any] = {
    "name": "small",
    "overrides": ["model=nano", "trainer.max_steps=10"],
    "arms": {"moe": ["arch=moe"], "mohge": ["arch=mohge"]},
    "seeds": [1, 2],
    "baseline": "moe",
}

ONE = {**SMALL, "arms": {"moe": ["arch=moe"]}, "seeds": [1]}


@pytest.fixture(autouse=True)
def _composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arms of equal overrides, of all tests."""
    monkeypatch.setattr(planning, "compose", lambda name, overrides: _arm_tree(name, tuple(overrides)))


@functools.cache
def _arm_tree(name: str, overrides: tuple[str, ...]) -> DictConfig:
    return compose(name, overrides=list(overrides))


def plan_of(sweep: dict[str, Any], overrides: Sequence[str] = ()) -> Plan:
    """The plan of a sweep file with this content, called with these overrides."""
    tree = composed(config_name="sweep")
    tree.sweep = sweep
    with initialize_config_module("conf", version_base="1.3"):
        return planned(typed(SweepConfig, tree), list(overrides))


def ids(sweep: dict[str, Any], *overrides: str) -> dict[tuple[str, int], str]:
    return {(cell.arm, cell.seed): cell.id for cell in plan_of(sweep, overrides).cells}


@pytest.mark.parametrize("sweep", group_choices("sweep"))
def test_every_sweep_that_comes_with_the_package_can_be_planned(sweep, monkeypatch):
    """Of arms that differ in the preset or in a number, one is composed: that presets compose is known."""
    compose_arm = planning._composed
    kinds: dict[frozenset[str], TrainConfig] = {}

    def one_of_a_kind(arm: str, overrides: list[str]) -> TrainConfig:
        presets = [item.removeprefix("arch=") for item in overrides if item.startswith("arch=")]
        assert set(presets) <= set(group_choices("arch"))
        kind = frozenset(re.sub(r"^arch=.*|=[-+.e\d]+$", "", item) for item in overrides)
        if kind not in kinds:
            kinds[kind] = compose_arm(arm, overrides)
        return kinds[kind]

    monkeypatch.setattr(planning, "_composed", one_of_a_kind)
    config = typed(SweepConfig, composed(f"sweep={sweep}", config_name="sweep"))
    assert config.sweep.name == sweep
    with initialize_config_module("conf", version_base="1.3"):
        plan = planned(config, [f"sweep={sweep}"])
    assert len(plan.cells) == len(plan.arms) * len(plan.seeds)
    assert len(plan.runs) > 1


def test_yaml_files_mention_every_key():
    tree = composed(config_name="sweep")
    keys = (key for key in known_keys(SweepConfig) if not key.startswith("comparison."))
    assert [key for key in keys if OmegaConf.select(tree, key, default="absent") == "absent"] == []


def test_cells_are_listed_seed_by_seed_with_what_mohge_train_is_called_with():
    plan = plan_of(SMALL, ["optim.lr=1e-3", "workers=2", "paths.run_dir=x", "sweep=smoke"])
    assert [(cell.arm, cell.seed) for cell in plan.cells] == [
        ("moe", 1),
        ("mohge", 1),
        ("moe", 2),
        ("mohge", 2),
    ]
    shared = ["optim.lr=1e-3", "model=nano", "trainer.max_steps=10"]
    assert plan.overrides == shared
    assert plan.cells[1].overrides == [*shared, "arch=mohge", "seed=1"]
    assert plan.cells[1].name == "nano-mohge-seed1"
    assert plan.cells[1].steps == 10
    assert len({cell.id for cell in plan.cells}) == 4
    assert all(len(cell.id) == 16 and set(cell.id) <= set("0123456789abcdef") for cell in plan.cells)


def test_a_grid_makes_an_arm_of_every_combination():
    grid = {"optim.lr": [0.001, 3e-5], "optim.schedule": ["cosine", "wsd"], "trainer.clip": [None]}
    arms = {"mohge": ["arch=mohge"]}
    plan = plan_of({**SMALL, "arms": arms, "grid": grid, "baseline": "mohge lr=0.001 schedule=wsd clip=null"})
    assert len(plan.arms) == 4
    assert plan.arms["mohge lr=3e-05 schedule=wsd clip=null"] == {
        "overrides": ["arch=mohge", "optim.lr=3e-05", "optim.schedule=wsd", "trainer.clip=null"],
        "factors": {"optim.lr": "3e-05", "optim.schedule": "wsd", "trainer.clip": "null"},
        "of": "mohge",
    }
    assert len({cell.id for cell in plan.cells}) == 8


def test_keys_of_one_last_part_are_written_in_full():
    grid = {"loss.group_weight": [0.1], "callbacks.routing": [None], "model.tied_head": [True]}
    plan = plan_of(
        {
            **SMALL,
            "arms": {"a": []},
            "grid": grid,
            "baseline": "a group_weight=0.1 routing=null tied_head=true",
        }
    )
    assert list(plan.arms) == [plan.baseline]
    grid = {"data.context": [64], "model.context": [64]}
    sweep = {**SMALL, "arms": {"a": []}, "grid": grid, "baseline": "a data.context=64 model.context=64"}
    assert list(plan_of(sweep).arms) == ["a data.context=64 model.context=64"]


def test_the_command_line_replaces_what_the_plan_sets_for_every_cell():
    plan = plan_of(ONE, ["trainer.max_tokens=8192", "model.layers=2"])
    assert plan.overrides == ["trainer.max_tokens=8192", "model.layers=2", "model=nano"]
    assert {cell.steps for cell in plan.cells} == {2}  # of 16 sequences of 256 tokens


def test_an_id_tells_what_a_run_does_not_where_it_is_or_what_it_is_called():
    known = ids(ONE)
    places = ("paths.output_dir=elsewhere", "paths.cache_dir=cache", "logger=csv", "callbacks.progress=null")
    assert ids({**ONE, "arms": {"moe": ["arch=moe", "arch_name=mine"]}}, *places) == known
    assert ids(ONE, "trainer.max_steps=11") != known


def test_keys_that_a_later_version_adds_change_no_id():
    """What is at its class's default does not count, and every key that is added has one."""
    config = train_config("arch=loss_free", "router.bias_rate=0", "loss.scope=global_batch", "callbacks=none")
    found = identity(config)
    assert found["router"] == {"kind": "top_k", "expert_top_k": config.router.expert_top_k}
    assert found["loss"] == {"scope": "global_batch"}
    assert found["callbacks"] == {}


def test_arms_of_equal_configurations_share_their_runs():
    arms = {**SMALL["arms"], "again": ["arch=mohge", "loss.group_start=0.5"]}
    plan = plan_of({**SMALL, "arms": arms})
    by_arm = {(cell.arm, cell.seed): cell.id for cell in plan.cells}
    assert by_arm["again", 1] == by_arm["mohge", 1] != by_arm["mohge", 2]
    assert [cell.arm for cell in plan.runs] == ["moe", "mohge"] * 2


def test_matched_widths_make_other_cells_and_the_wish_alone_does_not():
    arms = {
        "moe": ["arch=moe"],
        "shrunk": ["arch=moe", "match=total"],
        "itself": ["arch=mohge", "match=total"],
    }
    arms["mohge"] = ["arch=mohge"]
    found = ids({**SMALL, "arms": arms, "seeds": [1]})
    assert found["moe", 1] != found["shrunk", 1]
    assert found["itself", 1] == found["mohge", 1]


@pytest.mark.parametrize(
    ("change", "overrides", "sentence"),
    [
        ({}, ["seed=3"], "seed=3 contradicts the sweep, whose cells have sweep.seeds"),
        ({}, ["arch=moe"], "arch=moe contradicts arm moe, which sets the same"),
        ({}, ["experiment=quickstart"], "arm moe is a comparison of several runs"),
        ({}, ["loss.group_weight=1"], "arm moe: loss.group_weight=1.0 needs router.kind=two_level"),
        ({"arms": {"moe": ["arch=moa"]}}, [], "arm moe: arch=moa is not a choice: choose one of"),
        ({"arms": {"moe": ["optim.lrr=1"]}}, [], "arm moe: unknown key optim.lrr; did you mean optim.lr?"),
        (
            {"arms": {"moe": ["data.path=x"]}},
            [],
            "arm moe: data.path=x has no effect with data=python_stdlib",
        ),
        ({"overrides": ["paths.run_dir=x"]}, [], "paths.run_dir=x cannot be set for a cell"),
        ({"overrides": ["arch=moe"]}, [], "arch=moe contradicts arm moe"),
        (
            {"overrides": ["logger=csv"]},
            [],
            "logger=csv is also the sweep's own: give it on",
        ),
        ({"arms": {"moe": ["paths.output_dir=x"]}}, [], "paths.output_dir=x is also the sweep's own"),
        (
            {"grid": {"arch": ["moe"]}, "baseline": "moe arch=moe"},
            [],
            "arch=moe of arm moe contradicts sweep.grid",
        ),
        ({"grid": {"seed": [1]}, "baseline": "moe seed=1"}, [], "seed=1 contradicts the sweep"),
        (
            {"grid": {"optim.lr": [1e-3, 0.001]}, "baseline": "moe lr=0.001"},
            [],
            "sweep.grid.optim.lr has 0.001 twice",
        ),
        ({"seeds": [1, 1]}, [], "sweep.seeds has 1 twice"),
        ({"baseline": "dense"}, [], "sweep.baseline=dense is not among the arms: choose one of moe"),
        ({"contrasts": {"x": [["moe", "hmoe"]]}}, [], "sweep.contrasts.x names hmoe, which is no arm"),
        ({"arms": {}}, [], "sweep.arms"),
        ({"name": "../up"}, [], "sweep.name"),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(change, overrides, sentence):
    with pytest.raises(UserError) as refused:
        plan_of({**ONE, **change}, overrides)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "given"),
    [
        (["model=paper_1b"], ["data.context=2048"]),  # too long for the size that a sweep has unasked
        (["arch=loss_free"], ["router.bias_rate=0.002"]),
        (["arch=hmoe"], ["loss.penalty_weight=0.5"]),
    ],
)
def test_keys_are_checked_with_the_arms_and_not_with_what_nothing_trains(overrides, given):
    tree = composed(*given, config_name="sweep")
    tree.sweep = {**ONE, "overrides": [], "arms": {"moe": overrides}}
    with initialize_config_module("conf", version_base="1.3"):
        (cell,) = planned(typed(SweepConfig, tree), given).cells
    assert cell.overrides == [*given, *overrides, "seed=1"]


def test_a_process_trains_the_cell_that_was_planned_or_nothing(monkeypatch):
    """The presets may change between the plan and the cell's turn."""
    config = train_config("arch=moe")
    check_cell(config)
    monkeypatch.setenv(CELL_VARIABLE, cell_id(config))
    check_cell(config)
    changed = dataclasses.replace(config, optim=dataclasses.replace(config.optim, lr=1e-4))
    with pytest.raises(UserError, match=r"the presets have changed since the sweep was planned.*again"):
        check_cell(changed)
    with pytest.raises(UserError, match=r"cells/x holds a run of another configuration.*move it away"):
        check_cell(dataclasses.replace(changed, resume="cells/x"))


def test_the_folder_is_named_by_the_sweep_or_given(tmp_path):
    tree = composed(config_name="sweep")
    tree.paths.output_dir = str(tmp_path)
    assert folder_of(typed(SweepConfig, tree)) == tmp_path / "sweeps" / "smoke"
    tree.paths.run_dir = f"{tmp_path}/mine"
    assert folder_of(typed(SweepConfig, tree)) == tmp_path / "mine"


def test_the_plan_is_kept_in_the_folder(tmp_path):
    plan = plan_of({**ONE, "contrasts": {"sizes": [["moe", "moe"]]}})
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    plain = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert plain["format"] == "mohge-sweep-1"
    assert plain["contrasts"] == {"sizes": [["moe", "moe"]]}
    assert plain["cells"][0].keys() >= {"id", "arm", "seed", "overrides"}


def plan_with(*cells: tuple[str, str, int]) -> Plan:
    return Plan("a", "x", [1], [], {}, {}, [Cell(id * 16, arm, seed, "", 1, []) for id, arm, seed in cells])


def test_runs_that_the_plan_before_had_are_named_and_its_file_is_kept(tmp_path):
    long = plan_with(("0", "x", 1), ("1", "y", 1), ("1", "same", 1), ("2", "y", 2), ("3", "z", 1))
    short = plan_with(("0", "x", 1), ("4", "x", 2))
    for name in ("0", "1", "2", "5"):  # z has not begun, and what the last was nobody knows any more
        (tmp_path / "cells" / (name * 16)).mkdir(parents=True)
        (tmp_path / "cells" / f"{name * 16}.log").touch()
    (tmp_path / "cells" / ("1" * 16) / "status.json").write_text('{"state": "finished"}')
    write_plan(tmp_path, long)
    assert beside_the_plan(tmp_path, long).startswith(
        f"1 more runs in {tmp_path}/cells are not in this plan, 0 of"
    )
    before = (tmp_path / "sweep.json").read_bytes()
    for plan in (short, short, plan_with(("0", "x", 1), ("4", "x", 2), ("6", "x", 3))):
        write_plan(tmp_path, plan)
        assert (tmp_path / "sweep.before.json").read_bytes() == before
        assert read_plan(tmp_path) == plan
        assert beside_the_plan(tmp_path, plan) == (
            f"3 more runs in {tmp_path}/cells are not in this plan, 1 of them finished: they stay as they "
            "are (y seeds 1, 2; 5555555555555555)"
        )
    assert beside_the_plan(tmp_path / "empty", short) == ""


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    plan = Plan("a", "x", [1], [], {}, {}, [])
    other, run, damaged, empty, bare = (
        tmp_path / name for name in ("other", "run", "damaged", "empty", "bare")
    )
    write_plan(other, Plan("b", "x", [1], [], {}, {}, []))
    for folder, name, text in (
        (run, "config.yaml", "{"),
        (damaged, "sweep.json", "{"),
        (empty, "sweep.json", "[]"),
        (bare, "sweep.json", "null"),
    ):
        folder.mkdir()
        (folder / name).write_text(text)
    for folder, sentence in (
        (other, "holds the sweep b"),
        (run, "holds a run"),
        *((folder, r"sweep\.json is damaged: delete it") for folder in (damaged, empty, bare)),
    ):
        with pytest.raises(UserError, match=sentence):
            write_plan(folder, plan)
    with pytest.raises(UserError, match=r"sweep\.json is missing"):
        read_plan(tmp_path / "nothing")
