"""bench=profile: shares, FLOPs and bytes of a step that add up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from composing import composed
from tiny_benches import PROFILE, bench_config, by_name
from tiny_runs import TINY_EXPERTS, TINY_MODEL, TINY_ROUTER, tiny_run, write_corpus
from torch.utils.flop_counter import FlopCounterMode

from mohge.bench.flops import step_flops
from mohge.bench.run import measure
from mohge.bench.training_step import TrainingStep
from mohge.config.load import typed
from mohge.config.schema import TrainConfig

CPU = torch.device("cpu")
MEMORY = ("weights", "optimizer state", "gradients", "activations and work space")


def test_rows_and_chart(tmp_path: Path):
    corpus = write_corpus(tmp_path / "corpus")
    overrides = (*tiny_run(corpus, tmp_path / "cache"), *PROFILE, "trainer.accumulate=2")
    chart = tmp_path / "pictures" / "step.png"
    result, rows = measure(bench_config(*overrides, f"bench.chart={chart}"), [])
    named = by_name(result["rows"], "part")

    parts = [row.part for row in rows if row.against == "step" and row.part not in ("step", "data wait")]
    assert {"attention", "router", "experts", "shared experts", "head and loss", "optimizer"} <= {*parts}
    assert sum(named[part]["ratio"] for part in parts) == pytest.approx(1, abs=0.2)  # medians of two steps
    for part in parts:
        share = named[part]["median_seconds"] / named["step"]["median_seconds"]
        assert share == pytest.approx(named[part]["ratio"])
        assert 0 <= named[part]["forward_seconds"] <= 1.5 * named[part]["median_seconds"]
    assert 0 < named["data wait"]["ratio"] < 10
    assert named["step"]["tokens_per_second"] == pytest.approx(2 * 4 * 32 / named["step"]["median_seconds"])

    peak = named["matmul_peak"]
    for part in ("step FLOP/s", "step FLOP/s, causal"):
        assert named[part]["ratio"] == pytest.approx(named[part]["gflops"] / peak["gflops"])
    assert named["step FLOP/s, causal"]["gflops"] < named["step FLOP/s"]["gflops"]

    total = named["peak_memory"]["peak_bytes"]
    assert sum(named[part]["peak_bytes"] for part in MEMORY) == total
    assert named["optimizer state"]["peak_bytes"] == pytest.approx(
        2 * named["weights"]["peak_bytes"], rel=0.01
    )
    assert named["activations and work space"]["ratio"] > 0
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_a_single_step_is_enough(tmp_path: Path):
    corpus = write_corpus(tmp_path / "corpus")
    single = ("bench.rounds=1", "bench.warmup=0", "bench.profiled_steps=1")
    result, _ = measure(bench_config(*tiny_run(corpus, tmp_path / "cache"), *PROFILE, *single), [])
    assert by_name(result["rows"], "part")["step FLOP/s"]["ratio"] > 0


@pytest.mark.parametrize("arch", ["mohge", "moe", "dense"])
def test_flops_of_a_step_are_those_that_torch_counts(arch: str):
    pool = {
        "mohge": (*TINY_EXPERTS, *TINY_ROUTER),
        "moe": ("experts.widths=[16]", "experts.per_group=4", "router.expert_top_k=2"),
        "dense": ("experts.shared_width=24",),
    }
    recipe = (f"arch={arch}", *TINY_MODEL, *pool[arch], "data.batch_sequences=3", "trainer.accumulate=2")
    config = typed(TrainConfig, composed(*recipe))
    config = dataclasses.replace(config, experts=dataclasses.replace(config.experts, kernel="loop"))
    step = TrainingStep(config, CPU)
    batch = torch.randint(300, (3, 33), generator=torch.Generator().manual_seed(1))
    with FlopCounterMode(display=False) as counter:
        step([batch, batch])
    assert step_flops(config, step.routed_flops, causal=False) == pytest.approx(
        counter.get_total_flops(), rel=0.02
    )
    pairs = (
        6 * 33 / 2 * 2 * 32
    )  # forward and backward, of 33 / 2 pairs on average, scores and values of width D
    masked = 6 * 32 * 2 * 32 - pairs
    difference = step_flops(config, 0.0, causal=False) - step_flops(config, 0.0, causal=True)
    assert difference == pytest.approx(masked * config.tokens_per_step)
