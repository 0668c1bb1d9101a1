"""The plan of a mesh against the budget of one process, against FSDP itself, and worked out by hand."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.distributed as dist
from composing import composed
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch.testing._internal.distributed.fake_pg import FakeStore

from mohge.budget import budget
from mohge.config.load import typed
from mohge.config.schema import (
    ExpertsConfig,
    ModelConfig,
    ParallelConfig,
    Placement,
    RouterConfig,
    TrainConfig,
)
from mohge.errors import UserError
from mohge.model.transformer import build_model
from mohge.parallel.local import local_part
from mohge.parallel.mesh import build_mesh
from mohge.parallel.rank_plan import ParallelPlan, rank_plan
from mohge.parallel.rank_table import render_ranks
from mohge.parallel.sharding import shard_model

BASE = typed(TrainConfig, composed())
PLACEMENTS = st.sampled_from(get_args(Placement))


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    """Configurations, dense ones too, on meshes that fit them."""
    kind = draw(st.sampled_from(["two_level", "top_k", "none"]))
    replicate, shard = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    ep = 1 if kind == "none" else draw(st.integers(1, 4))
    heads = draw(st.integers(1, 3))
    model = ModelConfig(
        name="random",
        vocab_size=draw(st.integers(1, 300)),
        context=64,
        d_model=2 * heads * shard * draw(st.integers(1, 4)),
        layers=draw(st.integers(1, 4)),
        heads=heads,
        kv_heads=heads,
        tied_head=draw(st.booleans()),
        activation_checkpointing=draw(st.booleans()),
    )
    shared = draw(st.integers(1 if kind == "none" else 0, 3))
    experts = ExpertsConfig(shared=shared, shared_width=draw(st.integers(1, 40)), kernel="loop")
    router = RouterConfig(kind="none")
    if kind != "none":
        widths = sorted(draw(st.lists(st.integers(1, 9).map(lambda n: n * shard), min_size=1, max_size=5)))
        experts = replace(experts, widths=tuple(widths), per_group=ep * draw(st.integers(1, 3)))
        group_top_k = draw(st.integers(1, len(widths)))
        router = RouterConfig(
            kind=kind,
            group_top_k=group_top_k if kind == "two_level" else None,
            expert_top_k=draw(st.integers(1, group_top_k * experts.per_group)),
        )
    mesh = ParallelConfig(
        name="fsdp_ep",
        dp_replicate=replicate,
        dp_shard=shard,
        expert_parallel=ep,
        placement=draw(PLACEMENTS),
    )
    batch = replicate * shard * ep * draw(st.integers(1, 3))
    return replace(
        BASE,
        model=model,
        experts=experts,
        router=router,
        parallel=mesh,
        data=replace(BASE.data, context=draw(st.integers(1, 64)), batch_sequences=batch),
        trainer=replace(
            BASE.trainer,
            accumulate=draw(st.integers(1, 3)),
            precision=draw(st.sampled_from(["fp32", "bf16"])),
        ),
    )


@settings(max_examples=150, deadline=None)
@given(configs())
def test_ranks_add_up_to_the_budget(cfg: TrainConfig) -> None:
    plan, whole = rank_plan(cfg), budget(cfg)
    sizes, ranks = plan.sizes, plan.ranks
    counts, copies = whole.parameters, sizes.dp_replicate
    assert sum(rank.expert_parameters for rank in ranks) == copies * counts.routed_experts
    assert sum(rank.parameters for rank in ranks) == copies * counts.total
    for part in ("weights", "gradients", "optimizer"):
        held = sum(getattr(rank.memory, part) for rank in ranks)
        assert held == copies * getattr(whole.memory_bytes, part)

    # What a token's experts cost in the budget, times the tokens of a step.
    always = counts.total - counts.routed_experts
    mean = whole.active_parameters.expected - always
    passes = 8 if cfg.model.activation_checkpointing else 6
    flops = sum(rank.expert_flops for rank in ranks)
    assert flops == pytest.approx(passes * mean * cfg.tokens_per_step, abs=passes * cfg.tokens_per_step)


@settings(max_examples=150, deadline=None)
@given(configs())
def test_every_expert_is_on_one_ep_rank_of_every_shard(cfg: TrainConfig) -> None:
    plan = rank_plan(cfg)
    sizes, experts = plan.sizes, cfg.experts
    held = Counter(slot for rank in plan.ranks for slot in rank.experts)
    every = [(group, n) for group in range(experts.num_groups) for n in range(experts.per_group)]
    assert held == dict.fromkeys(every, sizes.dp_replicate * sizes.dp_shard)
    assert [rank.rank for rank in plan.ranks] == list(range(sizes.world))
    assert [rank.coordinates for rank in plan.ranks] == [
        (copy, shard, ep)
        for copy in range(sizes.dp_replicate)
        for shard in range(sizes.dp_shard)
        for ep in range(sizes.expert_parallel)
    ]
    for rank in plan.ranks:
        assert rank.widths == tuple(experts.widths[group] for group, _ in rank.experts)
        assert rank.experts == plan.ranks[rank.coordinates[2]].experts


@settings(max_examples=150, deadline=None)
@given(configs())
def test_under_all_size_ranks_are_equal(cfg: TrainConfig) -> None:
    cfg = replace(cfg, parallel=replace(cfg.parallel, placement="all_size"))
    ranks = rank_plan(cfg).ranks
    assert len({(rank.expert_parameters, rank.expert_flops, rank.sent) for rank in ranks}) == 1
    assert len({(rank.memory.activations, rank.memory.gathered) for rank in ranks}) == 1
    parameters = [rank.parameters for rank in ranks]
    assert max(parameters) - min(parameters) <= 1


@settings(max_examples=150, deadline=None)
@given(configs())
def test_activations_are_shared_like_the_batch(cfg: TrainConfig) -> None:
    """Under any placement, all ranks together keep what one process would, and the head's gradient each."""
    # With recomputation, the larger of two parts counts; in bfloat16, copies of weights that are not shared.
    cfg = replace(cfg, model=replace(cfg.model, activation_checkpointing=False))
    cfg = replace(cfg, trainer=replace(cfg.trainer, precision="fp32"))
    plan, whole = rank_plan(cfg), budget(cfg).memory_bytes.activations
    head = 4 * cfg.model.vocab_size * cfg.model.d_model
    kept = [rank.memory.activations - head for rank in plan.ranks]
    assert sum(kept) == pytest.approx(whole - head, abs=len(kept))


def one_step(*overrides: str) -> ParallelPlan:
    """The plan of a small model on a mesh (2, 2, 2), and K = 3 of 2 x 2 experts in each of 2 layers."""
    small = (
        "model=nano model.d_model=32 model.heads=2 model.kv_heads=2 model.layers=2 model.vocab_size=100 "
        "model.context=16 model.activation_checkpointing=false experts.widths=[16,48] experts.per_group=2 "
        "experts.shared=0 experts.shared_width=0 router.group_top_k=2 router.expert_top_k=3 "
        "data.batch_sequences=16 trainer.accumulate=3 parallel=fsdp_ep parallel.dp_replicate=2 "
        "parallel.dp_shard=2 parallel.expert_parallel=2"
    )
    return rank_plan(typed(TrainConfig, composed(*small.split(), *overrides)))


def test_numbers_worked_out_by_hand() -> None:
    plan = one_step()
    rank = plan.ranks[5]
    assert rank.coordinates == (1, 0, 1)
    assert (rank.experts, rank.widths) == (((0, 1), (1, 1)), (16, 48))
    experts = 2 * 3 * 32 * (16 + 48)  # of an ep rank, in both layers
    blocks = 2 * (4 * 32 * 32 + 32 * (2 + 4) + 2 * 32)  # attention, router, two norms
    root = 100 * 32 + 32
    assert rank.expert_parameters == experts // 2
    assert rank.parameters == experts // 2 + (blocks + root) // 4

    # 16 sequences of 16 tokens, 3 micro-batches; of each token's 3 experts, 1.5 are here or there.
    rows = 3 * (16 // 4) * 16 * 3 / 4  # of an ep group of 2 in 8 ranks, for each of 4 experts
    assert rank.expert_flops == 3 * 2 * 6 * 32 * (16 + 48) * rows

    block = (blocks + experts) // 2
    assert rank.memory.gathered == 4 * (2 * (root + block) - 3200)  # the head's gradient is an activation
    assert rank.memory.total == 16 * rank.parameters + rank.memory.gathered + rank.memory.activations

    token = 2 * 3 / 2 * (4 * 32 + 4 + 4 * 32)
    assert plan.all_to_all_per_token.forward == token
    assert plan.all_to_all_per_token.train == 2 * token
    sent = rank.sent
    assert sent.all_to_all_forward == sent.all_to_all_backward == 3 * 2 * 16 * token
    assert sent.all_gather_forward == sent.reduce_scatter
    assert sent.all_gather_forward == 3 * 4 * (3 / 4 * (blocks + root) + experts / 2)
    assert sent.all_gather_backward == 3 * 4 * (3 / 4 * blocks + experts / 2)
    assert sent.all_reduce == 3 * 4 * rank.parameters  # 2 (n - 1) / n = 1
    assert sent.total == 2 * sent.all_to_all_forward + sum(
        (sent.all_gather_forward, sent.all_gather_backward, sent.reduce_scatter, sent.all_reduce)
    )


def test_what_recomputation_and_bfloat16_send() -> None:
    row, layers_times_travelling = 2 * 32, 3
    token = one_step("model.activation_checkpointing=true", "trainer.precision=bf16").all_to_all_per_token
    assert token.forward == layers_times_travelling * (2 * row + 4)
    assert token.train == 3 * token.forward
    plain, again = one_step().ranks[0], one_step("model.activation_checkpointing=true").ranks[0]
    assert again.expert_flops * 3 == plain.expert_flops * 4
    assert again.sent.all_to_all_backward == 2 * plain.sent.all_to_all_backward
    assert again.sent.all_gather_backward == plain.sent.all_gather_backward


def test_a_kernel_that_gathers_rows_again_keeps_those_that_arrive() -> None:
    def kept(*overrides: str) -> int:
        return one_step("experts.kernel=fused", *overrides).ranks[0].memory.activations

    alone = ("parallel.dp_shard=4", "parallel.expert_parallel=1")
    tokens, layers, choices = 2 * 16, 2, 3
    assert kept() - kept(*alone) == tokens * layers * choices * 4 * 32


def test_contiguous_ranks_differ() -> None:
    plan = one_step("parallel.placement=contiguous")
    narrow, wide = plan.ranks[0], plan.ranks[1]
    assert (narrow.widths, wide.widths) == ((16, 16), (48, 48))
    assert 3 * narrow.expert_parameters == wide.expert_parameters
    assert 3 * narrow.expert_flops == wide.expert_flops
    assert plan.fullest == plan.busiest_sender == wide
    assert plan.as_dict()["traffic"]["sent_bytes_per_rank_and_step"]["total"] == wide.sent.total


def test_a_mesh_that_does_not_fit_is_refused() -> None:
    cfg = replace(BASE, parallel=replace(BASE.parallel, name="ep", expert_parallel=3))
    with pytest.raises(UserError, match=r"parallel\.expert_parallel=3 does not divide experts\.per_group"):
        rank_plan(cfg)


@pytest.mark.parametrize(
    ("mesh", "rank"), [((1, 2, 2), 0), ((1, 2, 2), 3), ((2, 2, 1), 2), ((2, 1, 4), 5), ((1, 8, 1), 7)]
)
def test_parameters_are_those_that_fsdp_leaves_to_the_rank(mesh: tuple[int, int, int], rank: int) -> None:
    names = ("dp_replicate", "dp_shard", "expert_parallel")
    sizes = [f"parallel.{name}={size}" for name, size in zip(names, mesh, strict=True)]
    cfg = typed(TrainConfig, composed("parallel=fsdp_ep", *sizes))
    plan = rank_plan(cfg)
    with torch.device("meta"):
        model = build_model(cfg)
    dist.init_process_group("fake", rank=rank, world_size=plan.sizes.world, store=FakeStore())
    try:
        shard_model(model, build_mesh(plan.sizes, "cpu"))
        held = {name: local_part(parameter).numel() for name, parameter in model.named_parameters()}
    finally:
        dist.destroy_process_group()
    experts = sum(number for name, number in held.items() if ".experts." in name)
    assert experts == plan.ranks[rank].expert_parameters
    # FSDP cuts along the first axis of each parameter, in whole rows.
    assert sum(held.values()) == pytest.approx(plan.ranks[rank].parameters, rel=0.01)


def test_the_keys_of_the_json() -> None:
    """`mohge-plan format=json` prints this; scripts of users read it."""
    plan = json.loads(json.dumps(one_step("parallel.placement=pairs").as_dict()))
    assert plan.keys() == {"sizes", "placement", "ranks", "traffic"}
    assert plan["sizes"] == {"dp_replicate": 2, "dp_shard": 2, "expert_parallel": 2, "world": 8}
    assert plan["placement"] == "pairs"
    assert plan["traffic"].keys() == {"all_to_all_bytes_per_token", "sent_bytes_per_rank_and_step"}
    assert plan["traffic"]["all_to_all_bytes_per_token"].keys() == {"forward", "train"}
    sent = {
        "all_to_all_forward",
        "all_to_all_backward",
        "all_gather_forward",
        "all_gather_backward",
        "reduce_scatter",
        "all_reduce",
        "total",
    }
    assert plan["traffic"]["sent_bytes_per_rank_and_step"].keys() == sent
    rank = plan["ranks"][3]
    assert rank["rank"] == 3
    assert rank["coordinates"] == [0, 1, 1]
    assert rank["experts"] == [[0, 1], [1, 1]]
    assert rank["widths"] == [16, 48]
    assert {"expert_parameters", "parameters", "expert_flops_per_step"} < rank.keys()
    assert rank["memory_bytes"].keys() == {
        "weights",
        "gradients",
        "optimizer",
        "gathered",
        "activations",
        "total",
    }
    assert rank["sent_bytes_per_step"].keys() == sent


def test_the_plan_needs_no_torch() -> None:
    code = "import sys, mohge.parallel.rank_table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def shown(*overrides: str) -> list[str]:
    """Lines of the tables on a terminal of 80 columns."""
    cfg = typed(TrainConfig, composed("model=paper_14b", "parallel=fsdp_ep", *overrides))
    console = Console(width=80)
    with console.capture() as capture:
        console.print(render_ranks(rank_plan(cfg), cfg))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    assert sum(line.startswith("  total ") for line in lines) == 2
    return lines


def test_few_ranks_have_a_row_each() -> None:
    lines = shown("trainer.devices=8", "parallel.dp_shard=2", "parallel.placement=pairs")
    rows = [line for line in lines if ": n = " in line]
    assert [row.split()[:2] for row in rows] == [
        [str(rank), f"0,{rank // 4},{rank % 4}"] for rank in range(8)
    ]
    assert "  640, 1536: n = 0-7  " in rows[0]
    assert "  768, 1408: n = 0-7  " in rows[5]
    assert "Training has placement all_size; pairs can be planned and replayed." in lines


def test_many_ranks_share_rows() -> None:
    many = ("trainer.devices=8", "trainer.nodes=8", "data.batch_sequences=64")
    (row,) = [line for line in shown(*many) if "all widths" in line]
    assert row.split()[:8] == ["0", "to", "7", "64", "all", "widths:", "1", "of"]
    rows = [line.split() for line in shown(*many, "parallel.placement=contiguous") if ": n = 0-7" in line]
    assert [row[:3] for row in rows] == [[str(ep), "8", f"{640 + 128 * ep}:"] for ep in range(8)]


def test_experts_of_several_widths_have_a_line_each() -> None:
    mesh = ("parallel.dp_shard=1", "parallel.expert_parallel=4", "parallel.placement=contiguous")
    lines = shown(*mesh, "experts.widths=[64,128,192]", "router.group_top_k=3")
    experts = [line[14:].split("   ")[0] for line in lines if ": n = " in line]
    assert experts[:3] == ["64: n = 0-5", "64: n = 6-7", "128: n = 0-3"]


def test_a_dense_model_has_no_experts_to_show() -> None:
    lines = shown("arch=dense", "parallel.expert_parallel=1", "trainer.devices=2")
    assert sum(" none " in line for line in lines) == 2
    assert not any("all-to-all" in line for line in lines)
