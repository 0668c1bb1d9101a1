"""The budget against models that are built."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mohge.budget import budget
from mohge.budget_table import render
from mohge.config.schema import (
    CallbacksConfig,
    DataConfig,
    ExpertsConfig,
    LatentAttentionConfig,
    LoggerConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PathsConfig,
    RouterConfig,
    TrainConfig,
    TrainerConfig,
)
from mohge.model.initialization import initialize
from mohge.model.transformer import TransformerLM, build_model
from mohge.moe.native import why_not

MODEL = ModelConfig(
    name="test",
    vocab_size=96,
    context=64,
    d_model=32,
    layers=2,
    heads=4,
    kv_heads=2,
    mla=LatentAttentionConfig(kv_rank=16, nope_dim=8, rope_dim=4, value_dim=12),
)
LATENT = replace(MODEL, attention="mla", tied_head=False)
UNEQUAL = replace(LATENT, mla=replace(MODEL.mla, value_dim=8))
"""Keys and values of different width, for which the CPU has no fused attention."""
POOL = ExpertsConfig(widths=(16, 32, 48, 64), per_group=4, shared=2, shared_width=16)
TWO_LEVEL = RouterConfig(kind="two_level", group_top_k=2, expert_top_k=3)
FLAT = RouterConfig(kind="top_k", expert_top_k=3)
DENSE = RouterConfig(kind="none")


def config(
    model: ModelConfig = MODEL,
    experts: ExpertsConfig = POOL,
    router: RouterConfig = TWO_LEVEL,
    *,
    sequences: int = 2,
    precision: str = "fp32",
) -> TrainConfig:
    return TrainConfig(
        model=model,
        arch_name="test",
        experts=experts,
        router=router,
        loss=LossConfig(),
        parallel=ParallelConfig(),
        data=DataConfig(
            target="none",
            name="python_stdlib",
            vocab_size=model.vocab_size,
            context=model.context,
            batch_sequences=sequences,
            cache_dir="none",
        ),
        optim=OptimConfig(lr=1e-3),
        trainer=TrainerConfig(precision=precision),
        callbacks=CallbacksConfig(),
        logger=LoggerConfig(name="none"),
        paths=PathsConfig(),
    )


def counted_by_owner(model: TransformerLM) -> dict[str, int]:
    """Parameters of the built model by the submodule that owns them."""
    counts = dict.fromkeys(
        ("embedding", "head", "attention", "router", "routed_experts", "shared_experts", "norms"), 0
    )
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if parts[0] in ("embedding", "head"):
            owner = parts[0]
        elif "attention" in parts:
            owner = "attention"
        elif "ffn" in parts:
            owner = {"router": "router", "experts": "routed_experts"}.get(parts[3], "shared_experts")
        else:
            owner = "norms"
        counts[owner] += parameter.numel()
    return counts


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    def even(low: int, high: int) -> int:
        return 2 * draw(st.integers(low, high))

    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    model = ModelConfig(
        name="random",
        vocab_size=draw(st.integers(1, 300)),
        context=draw(st.integers(1, 64)),
        d_model=4 * heads * draw(st.integers(1, 4)),
        layers=draw(st.integers(1, 4)),
        heads=heads,
        kv_heads=kv_heads,
        attention=draw(st.sampled_from(["gqa", "mla"])),
        mla=LatentAttentionConfig(
            kv_rank=draw(st.integers(1, 20)),
            nope_dim=draw(st.integers(1, 9)),
            rope_dim=even(1, 5),
            value_dim=draw(st.integers(1, 9)),
        ),
        tied_head=draw(st.booleans()),
        activation_checkpointing=draw(st.booleans()),
    )
    kind = draw(st.sampled_from(["two_level", "top_k", "none"]))
    shared = draw(st.integers(1 if kind == "none" else 0, 3))
    shared_width = draw(st.integers(1, 40))
    if kind == "none":
        return config(model, ExpertsConfig(shared=shared, shared_width=shared_width), DENSE)
    widths = tuple(sorted(draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))))
    per_group = draw(st.integers(1, 4))
    experts = ExpertsConfig(
        widths=widths, per_group=per_group, shared=shared, shared_width=shared_width, kernel="loop"
    )
    group_top_k = draw(st.integers(1, len(widths)))
    reachable = per_group * (group_top_k if kind == "two_level" else len(widths))
    router = RouterConfig(
        kind=kind,
        group_top_k=group_top_k if kind == "two_level" else None,
        expert_top_k=draw(st.integers(1, reachable)),
    )
    return config(model, experts, router)


@settings(max_examples=150, deadline=None)
@given(configs())
def test_parameters_equal_the_built_model(cfg):
    with torch.device("meta"):
        model = build_model(cfg)
    result = budget(cfg).as_dict()["parameters"]
    counts = counted_by_owner(model)
    total = sum(p.numel() for p in model.parameters())
    assert result == {**counts, "total": total, "without_head": total - counts["head"]}


@settings(max_examples=150, deadline=None)
@given(configs())
def test_active_parameters_equal_an_enumeration_of_choices(cfg):
    """Every pick of experts within every pick of groups, counted on the built model."""
    experts, router = cfg.experts, cfg.router
    with torch.device("meta"):
        model = build_model(cfg)
    total = sum(p.numel() for p in model.parameters())
    if router.kind == "none":
        choices = [0]
    else:
        size = [
            (group.gate_up.numel() + group.down.numel()) // experts.per_group
            for group in model.blocks[0].ffn.experts.groups
        ]
        total -= cfg.model.layers * experts.per_group * sum(size)
        picked_groups = itertools.combinations(range(len(size)), router.group_top_k or len(size))
        pools = [[g for g in groups for _ in range(experts.per_group)] for groups in picked_groups]
        # By counts per group, since experts of one width cost the same.
        picks = {pick for pool in pools for pick in combinations_of(tuple(pool), router.expert_top_k)}
        choices = [sum(size[g] for g in pick) for pick in picks]
    active = budget(cfg).active_parameters
    assert active.min == total + cfg.model.layers * min(choices)
    assert active.max == total + cfg.model.layers * max(choices)
    assert active.min <= active.expected <= active.max


def combinations_of(pool: tuple[int, ...], size: int) -> set[tuple[int, ...]]:
    """Distinct sub-multisets of a sorted pool."""
    reached: set[tuple[int, ...]] = {()}
    for item in pool:
        reached |= {(*pick, item) for pick in reached if len(pick) < size}
    return {pick for pick in reached if len(pick) == size}


def test_expected_active_parameters_are_the_mean_over_experts():
    cfg = config()
    always = sum(p.numel() for n, p in build_model(cfg).named_parameters() if ".experts." not in n)
    mean_expert = 3 * 32 * (16 + 32 + 48 + 64) / 4
    assert budget(cfg).active_parameters.expected == always + 2 * 3 * mean_expert


def tokens(cfg: TrainConfig, sequences: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(cfg.model.vocab_size, (sequences, cfg.data.context), generator=generator)


def built(cfg: TrainConfig) -> TransformerLM:
    model = build_model(cfg)
    initialize(model, 0)
    return model


@pytest.mark.parametrize("kernel", ["loop", "grouped", "fused"])
@pytest.mark.parametrize("router", [TWO_LEVEL, FLAT, DENSE])
@pytest.mark.parametrize("model", [MODEL, LATENT, UNEQUAL])
def test_forward_flops_equal_those_counted_by_torch(model, router, kernel):
    cfg = config(model, replace(POOL, kernel=kernel), router)
    batch = tokens(cfg, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = built(cfg)(batch)
    counted, plan = counter.get_total_flops(), budget(cfg)
    assert plan.flops_per_token.forward * batch.numel() == pytest.approx(counted, rel=0.02)

    # With the routing that came out in place of the uniform one, they are equal.
    always = plan.parameters.total - plan.parameters.routed_experts
    uniform = plan.active_parameters.expected - always
    widths_E = torch.tensor(POOL.widths).repeat_interleave(POOL.per_group)
    rows = sum(int(decision.expert_counts_E @ widths_E) for decision in output.decisions)
    routed = 2 * 3 * model.d_model * rows
    assert (plan.flops_per_token.forward - 2 * uniform) * batch.numel() + routed == counted


@pytest.mark.parametrize("model", [MODEL, LATENT])
def test_training_flops_equal_those_counted_by_torch(model):
    """On the plain attention kernel; a fused one computes the scores a second time, which is not counted."""

    def counted(model: ModelConfig) -> float:
        cfg = config(model, POOL, DENSE)
        batch = tokens(cfg, 2)
        network = built(cfg)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            network(batch).logits_BSV.sum().backward()
        return counter.get_total_flops() / batch.numel()

    recomputing = replace(model, activation_checkpointing=True)
    assert budget(config(model, POOL, DENSE)).flops_per_token.train == counted(model)
    # Torch stops recomputing at the last tensor it needs, which spares the last product of each region.
    plan = budget(config(recomputing, POOL, DENSE)).flops_per_token.train
    last_products = 2 * model.layers * (model.d_model * POOL.shared * POOL.shared_width)
    value_dim = model.mla.value_dim if model.attention == "mla" else model.d_model // model.heads
    last_products += 2 * model.layers * model.heads * value_dim * model.d_model
    assert counted(recomputing) == plan - last_products


def test_flops_are_those_of_the_training_context():
    short = config()
    long = replace(short, data=replace(short.data, context=2 * short.data.context))
    extra = budget(long).flops_per_token.forward - budget(short).flops_per_token.forward
    assert extra == 2 * MODEL.layers * MODEL.context * 2 * MODEL.d_model


def kept_bytes(cfg: TrainConfig) -> int:
    """Bytes that the forward pass keeps for the backward pass, weights apart."""
    model, batch = built(cfg), tokens(cfg, cfg.data.batch_sequences)
    storages: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # The tensor is held too, so that no later one gets the same address.
        storages[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=cfg.trainer.precision == "bf16"),
    ):
        model(batch, batch)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return sum(size for pointer, (size, _) in storages.items() if pointer not in weights)


@pytest.mark.parametrize("kernel", ["loop", "grouped", "fused", "native"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("router", [TWO_LEVEL, FLAT, DENSE])
@pytest.mark.parametrize("model", [MODEL, LATENT])
def test_activations_are_those_that_autograd_keeps(model, router, precision, kernel):
    if kernel == "native" and (reason := why_not("cpu", torch.float32, (model.d_model, *POOL.widths))):
        pytest.skip(reason)
    cfg = config(model, replace(POOL, kernel=kernel), router, sequences=8, precision=precision)
    measured = kept_bytes(cfg)
    assert budget(cfg).memory_bytes.activations == pytest.approx(measured, rel=0.1)

    recomputing = replace(cfg, model=replace(model, activation_checkpointing=True))
    kept = kept_bytes(recomputing)
    one_layer = (measured - kept) / model.layers
    # Beside what is kept, one region of one layer, and in bfloat16 the copies of weights.
    copies = 2 * budget(cfg).parameters.total if precision == "bf16" else 0
    assert 0.98 * kept < budget(recomputing).memory_bytes.activations < kept + one_layer + copies


def test_memory_is_weights_gradients_and_two_moments():
    memory = budget(config()).memory_bytes
    weights = 4 * sum(p.numel() for p in build_model(config()).parameters())
    assert (memory.weights, memory.gradients, memory.optimizer) == (weights, weights, 2 * weights)
    assert memory.total == 4 * weights + memory.activations


PAPER = ModelConfig(
    name="paper_3b",
    vocab_size=129280,
    context=4096,
    d_model=1024,
    layers=15,
    heads=16,
    kv_heads=16,
    attention="mla",
    tied_head=False,
)


@pytest.mark.parametrize(
    ("widths", "per_group", "router", "published"),
    [
        ((1024,), 64, RouterConfig(kind="top_k", expert_top_k=6), 3.3614e9),
        (
            tuple(range(384, 1281, 128)),
            8,
            RouterConfig(kind="two_level", group_top_k=4, expert_top_k=6),
            2.821e9,
        ),
    ],
)
def test_sizes_of_the_paper(widths, per_group, router, published):
    """arXiv 2604.23108: totals of the 3B models, the embedding counted once."""
    experts = ExpertsConfig(widths=widths, per_group=per_group, shared=2, shared_width=1024)
    counts = budget(config(PAPER, experts, router)).parameters
    assert counts.without_head == pytest.approx(published, rel=0.01)


def test_the_keys_of_the_json():
    """`mohge-plan format=json` prints this; scripts of users read it."""
    plan = json.loads(json.dumps(budget(config()).as_dict()))
    assert {section: set(values) for section, values in plan.items()} == {
        "parameters": {
            "total",
            "embedding",
            "head",
            "attention",
            "router",
            "routed_experts",
            "shared_experts",
            "norms",
            "without_head",
        },
        "active_parameters": {"expected", "min", "max"},
        "flops_per_token": {"forward", "train"},
        "memory_bytes": {"weights", "gradients", "optimizer", "activations", "total"},
    }
    assert all(type(value) is int for values in plan.values() for value in values.values())


def test_the_budget_needs_no_torch():
    code = "import sys, mohge.budget, mohge.budget_table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("router", [TWO_LEVEL, FLAT, DENSE])
def test_the_table_tells_the_numbers(router):
    cfg = config(replace(PAPER, name="[red]odd"), POOL, router)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(render(budget(cfg), cfg))
    text = capture.get()
    counts = budget(cfg).parameters
    assert "[red]odd" in text
    assert f"{counts.total / 1e6:.1f} M" in text
    assert f"{counts.without_head / 1e6:.1f} M" in text
    assert ("active parameters, least and most" in text) == (router.kind != "none")
    assert {TWO_LEVEL: "4 groups of 4, widths 16 to 64", FLAT: "4 groups of 4", DENSE: "none"}[router] in text
