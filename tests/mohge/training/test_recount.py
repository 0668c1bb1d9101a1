"""Every token is accounted for: what a real run records equals a recount of its decisions, step by step."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from composing import composed
from ranks_here import run_ranks
from recount_targets import train_and_keep
from tiny_runs import tiny_run, write_corpus

from mohge.config.load import typed
from mohge.config.schema import TrainConfig

STEPS, ACCUMULATE, LAYERS, EXPERTS, GROUPS, TOKENS = 3, 2, 2, 4, 2, 4 * 32
MESHES = {
    1: (),
    2: ("parallel=ddp", "trainer.devices=2", "trainer.accelerator=cpu"),
    4: ("parallel=fsdp_ep", "parallel.expert_parallel=2", "trainer.devices=4", "trainer.accelerator=cpu"),
}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def recount(decisions: list[Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of experts and tokens of groups in each layer, one decision after another."""
    rows, groups = ([Counter() for _ in range(LAYERS)] for _ in range(2))
    for number, (ids_TK, mask_TG) in enumerate(decisions):
        rows[number % LAYERS].update(expert for token in ids_TK.tolist() for expert in token)
        chosen = [group for token in mask_TG.tolist() for group, selected in enumerate(token) if selected]
        groups[number % LAYERS].update(chosen)
    return (
        [[count[expert] for expert in range(EXPERTS)] for count in rows],
        [[count[group] for group in range(GROUPS)] for count in groups],
    )


@pytest.mark.parametrize("ranks", MESHES)
def test_records_equal_a_recount_of_every_decision(tmp_path, ranks):
    """With accumulation and recomputed activations, at expert, group and rank level."""
    corpus = write_corpus(tmp_path / "corpus")
    overrides = (
        *tiny_run(corpus, tmp_path / "cache"),
        *("callbacks=default", "callbacks.plots=null", "callbacks.progress=null", "model.layers=2"),
        *(f"trainer.max_steps={STEPS}", f"trainer.accumulate={ACCUMULATE}", "trainer.val_every=2"),
        *("model.activation_checkpointing=true", f"paths.run_dir={tmp_path / 'run'}", *MESHES[ranks]),
    )
    kept = run_ranks(train_and_keep, ranks, typed(TrainConfig, composed(*overrides)))
    run, per_step = tmp_path / "run", LAYERS * ACCUMULATE

    steps = lines(run / "routing_steps.jsonl")
    assert [line["step"] for line in steps] == [1, 2, 3]
    for index, line in enumerate(steps):
        made = [rank["training"][index * per_step : (index + 1) * per_step] for rank in kept]
        assert all(len(decisions) == per_step for decisions in made), "routers decide once"
        rows, _ = recount([decision for decisions in made for decision in decisions])
        assert line["expert_counts"] == rows
        assert [sum(layer) for layer in rows] == [TOKENS * ACCUMULATE * 2] * LAYERS

    for line, half in zip(lines(run / "routing.jsonl"), (0, 1), strict=True):
        made = []
        for rank in kept:
            middle = len(rank["validation"]) // 2
            made += rank["validation"][half * middle : (half + 1) * middle]
        rows, groups = recount(made)
        assert line["expert_counts"] == rows
        assert line["group_counts"] == groups

    if ranks > 1:
        loads = lines(run / "rank_load.jsonl")
        assert [line["step"] for line in loads] == [1, 2, 3]
        for line, recorded in zip(loads, steps, strict=True):
            assert sum(line["tokens"]) == TOKENS * ACCUMULATE
            assert sum(line["rows"]) == sum(map(sum, recorded["expert_counts"]))
