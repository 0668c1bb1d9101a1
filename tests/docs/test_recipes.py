"""docs/RECIPES.md quotes what mohge-plan computes, and its commands compose."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from hydra.core.global_hydra import GlobalHydra

from mohge.apps import plan
from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.config.sweep_schema import SweepConfig
from mohge.errors import UserError
from mohge.parallel.sizes import mesh_sizes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "RECIPES.md").read_text(encoding="utf-8")
GIB = 2**30
UTILISATION = 0.3
PEAK = {"H100": 989e12, "A100": 312e12}
INSIDE, OUTSIDE = 450e9, 50e9  # bytes per second, of an H100


def table(start: str) -> list[list[str]]:
    """Cells of the rows of the table whose heading begins like this."""
    lines = PAGE.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(start)) + 2
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


@cache
def planned(overrides: Sequence[str]) -> dict[str, Any]:
    """What `mohge-plan OVERRIDES format=json` prints."""
    printed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mohge-plan", *overrides, "format=json"])
        patch.setattr("builtins.print", lambda text, **_: printed.append(text))
        GlobalHydra.instance().clear()
        plan.main()
    result: dict[str, Any] = json.loads(printed[0])
    return result


def recipes() -> list[dict[str, str]]:
    """Overrides of recipes A to E, by key."""
    commands = re.findall(r"^    mohge-plan (arch=mohge .+)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 5
    return [dict(item.split("=", 1) for item in command.split()) for command in commands]


def plan_of(recipe: dict[str, str], **changes: str) -> dict[str, Any]:
    return planned(tuple(f"{key}={value}" for key, value in (recipe | changes).items()))


def gib(value: int) -> str:
    return f"{value / GIB:.1f}"


def cost(row: list[str]) -> list[str]:
    overrides = row[0].strip("`").split()
    found = planned((*overrides, "trainer.precision=bf16"))
    moe = planned((overrides[0], "arch=moe", "trainer.precision=bf16"))["parameters"]["total"]
    total = found["parameters"]["total"]
    return [
        row[0],
        f"{total / 1e9:.3f} B",
        "" if overrides[1:] == ["arch=moe"] else f"{total / moe - 1:+.1%}",
        f"{found['active_parameters']['expected'] / 1e9:.3f} B",
        f"{found['flops_per_token']['train'] / 1e9:.3f}",
        f"{12 * total / 1e9:.0f} GB",
    ]


def shape(name: str, recipe: dict[str, str]) -> list[str]:
    sizes = plan_of(recipe)["parallel"]["sizes"]
    axes = (sizes["dp_replicate"], sizes["dp_shard"], sizes["expert_parallel"])
    sequences = int(recipe["data.batch_sequences"]) // sizes["world"]
    again = "yes" if "model.activation_checkpointing" in recipe else "no"
    parts = recipe.get("trainer.accumulate", "1")
    return [name, recipe["model"], f"{sizes['world']}", f"{axes}", f"{sequences}", parts, again]


def memory(name: str, recipe: dict[str, str]) -> list[str]:
    def of(plan: dict[str, Any]) -> dict[str, int]:
        fullest: dict[str, int] = max(
            (rank["memory_bytes"] for rank in plan["parallel"]["ranks"]), key=lambda part: part["total"]
        )
        return fullest

    part, moe = of(plan_of(recipe)), of(plan_of(recipe, arch="moe"))
    kept = part["weights"] + part["gradients"] + part["optimizer"]
    values = (kept, part["gathered"], part["activations"], part["total"], moe["total"])
    return [name, *map(gib, values)]


def traffic(name: str, recipe: dict[str, str]) -> list[str]:
    sent = sent_by(recipe)
    kinds = ("all_to_all", "all_gather", "reduce_scatter", "all_reduce", "total")
    return [name, *(gib(sent[kind]) if sent[kind] else "0" for kind in kinds)]


def sent_by(recipe: dict[str, str], **changes: str) -> dict[str, int]:
    """Bytes that a rank sends in a step, both passes together."""
    sent = plan_of(recipe, **changes)["parallel"]["traffic"]["sent_bytes_per_rank_and_step"]
    both = {kind: sent[f"{kind}_forward"] + sent[f"{kind}_backward"] for kind in ("all_to_all", "all_gather")}
    return sent | both


def times(name: str, recipe: dict[str, str]) -> list[str]:
    found, sent = plan_of(recipe), sent_by(recipe)
    sizes = found["parallel"]["sizes"]
    flops, gpus = found["flops_per_token"]["train"], sizes["world"]
    cut = sizes["dp_shard"] * sizes["expert_parallel"]  # ranks that gather and scatter together
    links = sent["all_to_all"] / INSIDE + sent["all_reduce"] / OUTSIDE
    links += (sent["all_gather"] + sent["reduce_scatter"]) / (INSIDE if cut <= 8 else OUTSIDE)

    def seconds(tokens: float, gpu: str) -> float:
        return tokens * flops / (gpus * PEAK[gpu] * UTILISATION)

    spans = [seconds(512 * 4096, "H100"), links]
    for gpu in PEAK:
        spans += [seconds(20e9, gpu) / 3600, seconds(580e9, gpu) / 86400]
    return [name, f"{flops / 1e9:.3f}", *(f"{span:.1f}" for span in spans)]


def test_costs_are_those_of_the_plan():
    rows = table("| `mohge-plan`")
    assert len(rows) == 9
    assert rows == [cost(row) for row in rows]


@pytest.mark.parametrize(
    ("start", "row"),
    [
        ("| | model | GPUs", shape),
        ("| | weights, gradients", memory),
        ("| | all-to-all", traffic),
        ("| | GFLOPs", times),
    ],
)
def test_recipes_are_those_of_the_plan(start: str, row: Callable[[str, dict[str, str]], list[str]]):
    assert table(start) == [row(name, recipe) for name, recipe in zip("ABCDE", recipes(), strict=True)]


def test_each_recipe_takes_batches_of_512_sequences():
    for recipe in recipes():
        assert int(recipe["data.batch_sequences"]) * int(recipe.get("trainer.accumulate", "1")) == 512


def test_deepseek_sends_more():
    largest = recipes()[4]
    ratio = sent_by(largest, arch="deepseek", match="total")["total"] / sent_by(largest)["total"]
    assert f"up to {ratio:.1f} times as much" in PAGE


@pytest.mark.parametrize("arch", ["moe", "modse", "moge", "deepseek"])
def test_recipes_fit_other_pools_of_experts(arch: str):
    recipe = recipes()[4]
    assert plan_of(recipe, arch=arch)["parallel"]["sizes"] == plan_of(recipe)["parallel"]["sizes"]


def test_recipes_do_not_fit_a_dense_model():
    own = [f"{key}={value}" for key, value in (recipes()[4] | {"arch": "dense"}).items()]
    with pytest.raises(UserError, match="finds no experts to spread"):
        mesh_sizes(typed(TrainConfig, composed(*own)))


@pytest.mark.parametrize("program", ["torchrun", "mohge-sweep", "sbatch"])
def test_commands_that_train_compose_to_a_recipe(program: str):
    commands = re.findall(rf"^ +{program} (.+)$", PAGE, flags=re.MULTILINE)
    assert commands
    for command in commands:
        # The plan of a sweep is a file of the page: tested in test_recipe_runs.
        overrides = [item for item in shlex.split(command) if re.match(r"(?!sweep)[\w.]+=(?!\$)", item)]
        if program == "torchrun":
            overrides.append("trainer.devices=8")
        if program == "sbatch":  # what train.sbatch puts before them, and what SLURM says
            overrides = ["parallel=fsdp_ep", "trainer.precision=bf16", "trainer.nodes=8", *overrides]
            overrides = ["trainer.devices=8", *overrides]
        sweeps = program == "mohge-sweep"
        name, schema = ("sweep", SweepConfig) if sweeps else ("train", TrainConfig)
        config = typed(schema, composed(*overrides, config_name=name))
        sizes = mesh_sizes(config)
        alike = [
            plan_of(recipe)["parallel"]["sizes"]
            for recipe in recipes()
            if recipe["model"] == config.model.name
        ]
        assert dataclasses.asdict(sizes) | {"world": sizes.world} in alike
        assert config.tokens_per_step == 512 * 4096
