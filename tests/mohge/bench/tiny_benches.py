"""Overrides that make each benchmark take a second."""

from __future__ import annotations

from typing import Any

from composing import composed
from tiny_runs import TINY_EXPERTS, TINY_MODEL, TINY_ROUTER

from mohge.config.bench_schema import BenchConfig
from mohge.config.load import typed

QUICK = ("bench.rounds=2", "bench.warmup=1")
SHAPE = "{d_model:16,widths:[16,32],per_group:2,tokens:20,top_k:3}"
EXPERTS = ("bench=experts", *QUICK, f"+bench.shapes.mine={SHAPE}", "bench.only=[mine]")
_MODEL = ("bench.d_model=16", "bench.heads=2", "bench.kv_heads=1", "bench.vocab_size=50")
STEP = (
    *("bench=step", *QUICK, *_MODEL, "bench.layers=1", "bench.context=16", "bench.batch_sequences=2"),
    *("bench.experts=4", "bench.width=16", "bench.widths=[8,24]", "bench.top_k=2", "bench.group_top_k=1"),
)
GROWTH = (
    *("bench=growth", *QUICK, *_MODEL, "bench.widths=[8,24]", "bench.top_k=2", "bench.group_top_k=1"),
    *("bench.experts=[4,8]", "bench.tokens=[32,64]", "bench.sequence=[16,32]", "bench.layers=[1,2]"),
    "bench.batch_tokens=64",
)
PARALLEL = ("bench=parallel", *QUICK, *TINY_MODEL, *TINY_EXPERTS, *TINY_ROUTER, "data.batch_sequences=4")
_TINY = (*TINY_MODEL, "experts.widths=[16]", "experts.per_group=4", "router.expert_top_k=2")
GENERATION = (
    *("bench=generation", *QUICK, *_TINY, "bench.batch=2", "bench.prompt=5", "bench.new_tokens=6"),
    *("bench.contexts=[4,40]", "bench.steps=3"),
)
LIKELIHOOD = (
    *("bench=likelihood", *QUICK, *_TINY, "bench.batch=4", "bench.questions=3", "bench.choices=2"),
    *("bench.context_tokens=[20,40]", "bench.choice_tokens=[1,4]"),
)
PROFILE = ("bench=profile", *QUICK, "bench.profiled_steps=2", "bench.matmul_sizes=[16,32]")


def bench_config(*overrides: str) -> BenchConfig:
    """The typed configuration of mohge-bench."""
    return typed(BenchConfig, composed(*overrides, config_name="bench"))


def by_name(rows: list[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    """Rows by one of their figures, which must differ."""
    named = {row[key]: row for row in rows}
    assert len(named) == len(rows)
    return named
