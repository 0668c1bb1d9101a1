"""Checks across keys, run before anything heavy is imported.

Each check raises `UserError` with one sentence that names the key, its value and the remedy. What works, and
yet is seldom meant, gets a remark instead.
"""

from __future__ import annotations

from collections.abc import Iterable

from mohge.config.schema import ExpertsConfig, ModelConfig, TrainConfig
from mohge.errors import UserError
from mohge.parallel.remedies import divisors
from mohge.parallel.sizes import mesh_sizes

MATCHED = 0.005
"""Relative difference up to which two costs are called equal."""


def check(config: TrainConfig) -> None:
    """Refuses combinations that cannot work.

    Raises:
        UserError: the first contradiction found.
    """
    if not config.is_run:
        return
    _check_attention(config.model)
    _check_experts(config.experts)
    _check_kernel(config)
    _check_router(config)
    _check_losses(config)
    _check_data(config)
    _check_trainer(config)
    _check_match(config)
    if config.has_mesh and config.resume is None:  # else it is checked with the keys that the run has stored
        mesh_sizes(config)


def remarks(config: TrainConfig) -> list[str]:
    """One sentence on each setting of a checked configuration that leaves a router without a teacher.

    A router of a class of its own is passed over: it may weight its experts in another way.
    """
    router, experts, loss = config.router, config.experts, config.loss
    if router.kind == "none" or router.target is not None:
        return []
    found = []
    blind = "the cross-entropy" + (" and the intra-group loss give" if loss.intra_weight else " gives")
    reachable = (router.group_top_k or experts.num_groups) * experts.per_group
    if router.expert_top_k == 1 and reachable > 1:
        others = ("balance_weight", "penalty_weight", "group_weight", "z_weight")
        bias = f", and router.bias_rate={router.bias_rate} moves its choice" if router.bias_rate else ""
        found.append(
            "router.expert_top_k=1 gives the one expert of a token the weight 1, whatever its probability, "
            f"so that {blind} the router no gradient: {_teachers(config, others)}{bias}; use at least 2, "
            "unless this is meant as a baseline"
        )
    if router.group_top_k == 1 and experts.num_groups > 1:
        found.append(
            "router.group_top_k=1 lets the weight of the one group of a token cancel out of those of its "
            f"experts, so that {blind} the choice of groups no gradient: "
            f"{_teachers(config, ('group_weight', 'z_weight'))}; use at least 2, unless this is meant as a "
            "baseline"
        )
    return found


def _teachers(config: TrainConfig, names: Iterable[str]) -> str:
    """Which of these keys of the losses are on: `only loss.z_weight gives one`."""
    on = [f"loss.{name}" for name in names if getattr(config.loss, name)]
    if not on:
        return "no other loss gives one"
    return f"only {' and '.join(on)} {'gives' if len(on) == 1 else 'give'} one"


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise UserError(sentence)


def _choices(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers)) or "another model.d_model first"


def _check_attention(model: ModelConfig) -> None:
    if model.attention == "mla":
        _require(
            model.mla.rope_dim % 2 == 0,
            f"model.mla.rope_dim={model.mla.rope_dim} is odd, and RoPE rotates pairs: use "
            f"{model.mla.rope_dim + 1}",
        )
        return
    possible = divisors(model.d_model)
    _require(
        model.d_model % model.heads == 0,
        f"model.heads={model.heads} does not divide model.d_model={model.d_model}: choose one of "
        f"{_choices(n for n in possible if n % model.kv_heads == 0 and model.d_model // n % 2 == 0)}",
    )
    _require(
        model.heads % model.kv_heads == 0,
        f"model.kv_heads={model.kv_heads} does not divide model.heads={model.heads}: choose one of "
        f"{_choices(divisors(model.heads))}",
    )
    head_dim = model.d_model // model.heads
    _require(
        head_dim % 2 == 0,
        f"model.heads={model.heads} gives heads of odd width {head_dim}, and RoPE rotates pairs: choose "
        f"model.heads so that model.d_model / model.heads is even",
    )


def _check_experts(experts: ExpertsConfig) -> None:
    widths = list(experts.widths)
    _require(
        experts.groups is None or experts.groups == len(widths),
        f"experts.groups={experts.groups} disagrees with experts.widths={widths}, which has {len(widths)}: "
        f"leave experts.groups out or set it to {len(widths)}",
    )
    _require(
        widths == sorted(widths),
        f"experts.widths={widths} is not in increasing order: write {sorted(widths)}",
    )
    _require(
        bool(widths) == bool(experts.per_group),
        f"experts.per_group={experts.per_group} with experts.widths={widths} makes no experts: "
        + ("give experts.per_group at least 1" if widths else "give experts.widths, or experts.per_group=0"),
    )
    _require(
        bool(experts.shared) == bool(experts.shared_width),
        f"experts.shared={experts.shared} with experts.shared_width={experts.shared_width} is half a shared "
        f"expert: set both or neither",
    )


def _check_kernel(config: TrainConfig) -> None:
    experts = config.experts
    if experts.kernel != "grouped":
        return
    step = 8 if config.trainer.precision == "bf16" else 4  # 16 bytes, which torch's grouped product demands
    odd = [width for width in experts.widths if width % step]
    _require(
        not odd,
        f"experts.widths={list(experts.widths)} with experts.kernel=grouped and trainer.precision="
        f"{config.trainer.precision}: {odd[0] if odd else 0} is not a multiple of {step}: round it, or use "
        f"experts.kernel=auto",
    )
    _require(
        not experts.widths or config.model.d_model % step == 0,
        f"model.d_model={config.model.d_model} with experts.kernel=grouped and trainer.precision="
        f"{config.trainer.precision} is not a multiple of {step}: round it, or use experts.kernel=auto",
    )


def _check_router(config: TrainConfig) -> None:
    router, experts = config.router, config.experts
    _require(
        router.bias_rate == 0 or router.kind == "top_k",
        f"router.bias_rate={router.bias_rate} needs router.kind=top_k, and it is {router.kind}: set it to 0 "
        "or use arch=loss_free",
    )
    if router.kind == "none":
        _require(
            router.target is None,
            f"router._target_={router.target} routes nothing with router.kind=none: leave it out, or use "
            "router.kind=top_k or two_level",
        )
        _require(
            not experts.widths,
            f"router.kind=none leaves the experts of experts.widths={list(experts.widths)} unused: choose "
            f"router.kind=top_k or two_level, or experts.widths=[] experts.per_group=0",
        )
        _require(
            experts.shared > 0,
            "router.kind=none with experts.shared=0 leaves layers without a feed-forward part: set "
            "experts.shared and experts.shared_width",
        )
        return
    _require(
        bool(experts.widths),
        f"router.kind={router.kind} has no experts to choose from: give experts.widths and "
        f"experts.per_group, or use arch=dense",
    )
    _require(
        router.expert_top_k > 0, "router.expert_top_k=0 picks no expert: use at least 1, or router.kind=none"
    )
    if router.kind == "top_k":
        _require(
            router.group_top_k is None,
            f"router.group_top_k={router.group_top_k} has no effect with router.kind=top_k: set it to "
            "null or "
            f"use router.kind=two_level",
        )
        _require(
            router.group_score == "softmax",
            f"router.group_score={router.group_score} has no effect with router.kind=top_k: leave it "
            f"out, or use router.kind=two_level",
        )
        reachable, scope = experts.num_experts, f"{experts.num_experts} experts"
    else:
        groups = experts.num_groups
        _require(
            router.group_top_k is not None and 1 <= router.group_top_k <= groups,
            f"router.group_top_k={router.group_top_k} is not possible with {groups} groups: choose 1 to "
            f"{groups}",
        )
        assert router.group_top_k is not None
        reachable = router.group_top_k * experts.per_group
        scope = f"{router.group_top_k} groups of {experts.per_group}"
    _require(
        router.expert_top_k <= reachable,
        f"router.expert_top_k={router.expert_top_k} is above what is reachable, {scope}: choose at most "
        f"{reachable}",
    )
    chosen_groups = router.group_top_k or experts.num_groups
    _require(
        router.selection == "joint" or router.expert_top_k % chosen_groups == 0,
        f"router.expert_top_k={router.expert_top_k} with router.selection=per_group is not equally many of "
        f"each of {chosen_groups} groups: use a multiple of {chosen_groups}, or router.selection=joint",
    )


def _check_losses(config: TrainConfig) -> None:
    loss, kind = config.loss, config.router.kind
    for name in ("group_weight", "intra_weight"):
        value = getattr(loss, name)
        _require(
            value == 0 or kind == "two_level",
            f"loss.{name}={value} needs router.kind=two_level, and it is {kind}: set it to 0 or use "
            "arch=mohge",
        )
    _require(
        loss.penalty_weight == 0 or kind == "top_k",
        f"loss.penalty_weight={loss.penalty_weight} needs router.kind=top_k, and it is {kind}: set it to 0 "
        "or use arch=hmoe",
    )
    for name in ("balance_weight", "z_weight"):
        value = getattr(loss, name)
        _require(
            value == 0 or kind != "none",
            f"loss.{name}={value} needs a router, and router.kind=none: set it to 0 or use loss=none",
        )


def _check_data(config: TrainConfig) -> None:
    data, model = config.data, config.model
    _require(
        data.context <= model.context,
        f"data.context={data.context} is longer than model.context={model.context}: use at most that",
    )
    _require(
        data.vocab_size <= model.vocab_size,
        f"data.vocab_size={data.vocab_size} is more than the model's model.vocab_size={model.vocab_size}: "
        f"use at most that",
    )
    if data.name in ("python_stdlib", "debian_docs", "benchmarks"):
        _require(
            data.path is None,
            f"data.path={data.path} has no effect with data={data.name}: leave it out, or use "
            f"data=text_files",
        )
    if data.name != "hf":
        _require(
            data.subset is None,
            f"data.subset={data.subset} has no effect with data={data.name}: leave it out, or use data=hf",
        )


def _check_trainer(config: TrainConfig) -> None:
    trainer = config.trainer
    _require(
        trainer.max_steps is not None or trainer.max_tokens is not None,
        "trainer.max_steps and trainer.max_tokens are both null: give one, for instance "
        "trainer.max_tokens=1e6",
    )
    optim = config.optim
    _require(
        optim.warmup_fraction + (optim.decay_fraction if optim.schedule == "wsd" else 0) <= 1,
        f"optim.warmup_fraction={optim.warmup_fraction} and optim.decay_fraction={optim.decay_fraction} "
        "add up to "
        f"more than 1: lower one",
    )


def _check_match(config: TrainConfig) -> None:
    match = config.match
    found = match.difference is None or (match.by is not None and abs(match.difference) <= MATCHED)
    _require(found, f"match.difference={match.difference} is found, not given: leave it out")
