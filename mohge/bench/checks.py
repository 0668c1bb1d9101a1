"""Checks across the keys of a benchmark, run before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mohge.config.bench_schema import (
    BenchKindConfig,
    ExpertsBenchConfig,
    GrowthBenchConfig,
    LikelihoodBenchConfig,
    ParallelBenchConfig,
    StepBenchConfig,
)
from mohge.config.load import did_you_mean
from mohge.errors import UserError


def check_bench(bench: BenchKindConfig) -> None:
    """Refuses what cannot be measured.

    Raises:
        UserError: one sentence that names the key, its value and the remedy.
    """
    for name in _lists(bench):
        values = getattr(bench, name)
        _require(values is None or len(values) > 0, f"bench.{name}=[] names nothing: give at least one")
    if isinstance(bench, ExpertsBenchConfig):
        _check_experts(bench)
    elif isinstance(bench, StepBenchConfig):
        _check_step(bench)
    elif isinstance(bench, GrowthBenchConfig):
        _check_growth(bench)
    elif isinstance(bench, ParallelBenchConfig):
        _check_parallel(bench)
    elif isinstance(bench, LikelihoodBenchConfig):
        _check_likelihood(bench)


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise UserError(sentence)


def _lists(bench: BenchKindConfig) -> list[str]:
    return [name for name, value in vars(bench).items() if isinstance(value, tuple)]


def _check_experts(bench: ExpertsBenchConfig) -> None:
    _require(bool(bench.shapes), "bench.shapes={} names no shape: give at least one")
    for name in bench.only or ():
        _require(
            name in bench.shapes,
            f"bench.only=[{name}] is not a shape: choose from {', '.join(bench.shapes)}"
            f"{did_you_mean(name, bench.shapes)}",
        )
    for name, shape in bench.shapes.items():
        key = f"bench.shapes.{name}"
        _require(bool(shape.widths), f"{key}.widths=[] makes no experts: give at least one width")
        _check_top_k(f"{key}.top_k", shape.top_k, len(shape.widths) * shape.per_group)


def _check_step(bench: StepBenchConfig) -> None:
    _check_heads(bench)
    _check_groups(bench.widths, bench.group_top_k)
    _check_divides("bench.experts", [bench.experts], len(bench.widths), "the groups of bench.widths")
    _check_top_k("bench.top_k", bench.top_k, bench.group_top_k * bench.experts // len(bench.widths))
    mean = sum(bench.widths) / len(bench.widths)
    _require(
        mean == bench.width,
        f"bench.width={bench.width} is not the mean of bench.widths={list(bench.widths)}, which is {mean:g}: "
        "models of equal work need that",
    )


def _check_growth(bench: GrowthBenchConfig) -> None:
    _check_heads(bench)
    _check_groups(bench.widths, bench.group_top_k)
    _check_divides("bench.experts", bench.experts, len(bench.widths), "the groups of bench.widths")
    _check_top_k("bench.top_k", bench.top_k, bench.group_top_k * min(bench.experts) // len(bench.widths))
    for length in bench.sequence:
        _require(
            bench.batch_tokens % length == 0,
            f"bench.sequence={length} does not divide bench.batch_tokens={bench.batch_tokens}: choose a "
            "divisor",
        )


def _check_parallel(bench: ParallelBenchConfig) -> None:
    meshes = [list(mesh) for mesh in bench.meshes]
    for mesh in meshes:
        _require(
            len(mesh) == 3,
            f"bench.meshes has {mesh}, which is no mesh: give [dp_replicate, dp_shard, expert_parallel]",
        )
        _require(meshes.count(mesh) == 1, f"bench.meshes={meshes} has {mesh} twice: give it once")
    ranks = sorted({math.prod(mesh) for mesh in meshes})
    _require(
        len(ranks) == 1 and ranks[0] > 1,
        f"bench.meshes={meshes} has products {', '.join(map(str, ranks))}: give meshes of one number of "
        "ranks, at least 2",
    )


def _check_likelihood(bench: LikelihoodBenchConfig) -> None:
    for key, (least, most) in (
        ("bench.context_tokens", bench.context_tokens),
        ("bench.choice_tokens", bench.choice_tokens),
    ):
        _require(least <= most, f"{key}=[{least},{most}] has the larger first: write [{most},{least}]")


def _check_top_k(key: str, top_k: int, reachable: int) -> None:
    _require(top_k <= reachable, f"{key}={top_k} is above the {reachable} experts that a token can reach")


def _check_groups(widths: Sequence[int], group_top_k: int) -> None:
    _require(
        list(widths) == sorted(widths),
        f"bench.widths={list(widths)} is not in increasing order: write {sorted(widths)}",
    )
    _require(
        group_top_k <= len(widths),
        f"bench.group_top_k={group_top_k} is above the {len(widths)} groups of bench.widths",
    )


def _check_divides(key: str, values: Sequence[int], by: int, what: str) -> None:
    for value in values:
        _require(value % by == 0, f"{key}={value} does not divide into {what}: choose a multiple of {by}")


def _check_heads(bench: StepBenchConfig | GrowthBenchConfig) -> None:
    _require(
        bench.d_model % (2 * bench.heads) == 0,
        f"bench.heads={bench.heads} does not divide bench.d_model={bench.d_model} into heads of even width: "
        "choose another number",
    )
    _require(
        bench.heads % bench.kv_heads == 0,
        f"bench.kv_heads={bench.kv_heads} does not divide bench.heads={bench.heads}: choose a divisor",
    )
