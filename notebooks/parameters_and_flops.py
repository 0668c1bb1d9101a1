# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: -jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where the parameters and FLOPs go
#
# MoHGE promises to save parameters and computation by experts of different widths. This walk-through counts
# both, for the MoHGE model and the standard MoE of one comparison: what the plan expects, what training
# really cost, and how the work spreads over ranks.
#
# It needs the two finished runs that `make train` leaves below `outputs/`. Set `MOHGE_RUNS` to look in
# another folder.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import EngFormatter

from evaluation.run_data import RunData, read_lines, read_run
from mohge.budget import budget
from mohge.budget_table import decimal
from mohge.config.schema import Placement, TrainConfig
from mohge.metrics import ActiveParameters, FlopsPerToken, RoutingCounts
from mohge.parallel.rank_plan import ParallelPlan, rank_plan
from mohge.parallel.replay import PLACEMENTS, replay_run
from notebooks.found import latest_runs

# %% [markdown]
# ## Two models
#
# `mohge.budget` computes the cost of a configuration by arithmetic alone, without building the model:
# `mohge-plan` prints the same. *Total* parameters must be kept in memory and trained. *Active* ones are
# those that one token passes through; as long as nothing is trained, the plan takes every expert to be
# chosen equally often.

# %%
runs = [
    read_run(arch, path) for arch, path in zip(("mohge", "moe"), latest_runs("mohge", "moe"), strict=True)
]
mohge, moe = runs
budgets = [budget(run.config) for run in runs]
rows = {
    "widths of experts": [str(list(run.config.experts.widths)) for run in runs],
    "experts per layer": [str(run.config.experts.num_experts) for run in runs],
    "experts per token": [str(run.config.router.expert_top_k) for run in runs],
    "parameters": [decimal(one.parameters.total) for one in budgets],
    "active, expected": [decimal(one.active_parameters.expected) for one in budgets],
    "FLOPs per token, forward": [decimal(one.flops_per_token.forward) for one in budgets],
    "FLOPs per token, training": [decimal(one.flops_per_token.train) for one in budgets],
}
print(f"{'':28}{'mohge':>20}{'moe':>20}")
for name, (first, second) in rows.items():
    print(f"{name:28}{first:>20}{second:>20}")

# %% [markdown]
# ## By component
#
# FLOPs are two per multiply-add. A forward pass takes two FLOPs per active parameter, and attention compares
# pairs of positions on top of that. The embedding is only looked up; where the head is tied to it, the head
# has no parameters of its own, yet is a product all the same.


# %%
def parameters_of(config: TrainConfig) -> dict[str, int]:
    counts = budget(config).parameters
    return {
        "embedding and head": counts.embedding + counts.head,
        "attention and norms": counts.attention + counts.norms,
        "router": counts.router,
        "shared experts": counts.shared_experts,
        "routed experts": counts.routed_experts,
    }


# %%
def forward_flops_of(config: TrainConfig) -> dict[str, int]:
    cost = budget(config)
    counts, active = cost.parameters, cost.active_parameters.expected
    parts = {
        "embedding and head": 2 * config.model.vocab_size * config.model.d_model,
        "router": 2 * counts.router,
        "shared experts": 2 * counts.shared_experts,
        "routed experts": 2 * (active - counts.total + counts.routed_experts),
    }
    return {**parts, "attention and norms": cost.flops_per_token.forward - sum(parts.values())}


# %%
colours = dict(
    zip(parameters_of(moe.config), ["#E69F00", "#56B4E9", "#000000", "#CC79A7", "#0072B2"], strict=True)
)
figure, panels = plt.subplots(1, 2, figsize=(12, 2.8), layout="constrained", sharey=True)
titles = {"parameters": parameters_of, "FLOPs per token, forward (expected)": forward_flops_of}
for panel, (title, parts_of) in zip(panels, titles.items(), strict=True):
    left = np.zeros(len(runs))
    parts = [parts_of(run.config) for run in runs]
    for name, colour in colours.items():
        size = np.array([one[name] for one in parts])
        panel.barh([run.name for run in runs], size, left=left, color=colour, edgecolor="white", label=name)
        left += size
    panel.set_xlabel(title)
    panel.xaxis.set_major_formatter(EngFormatter(sep=" "))
panels[0].invert_yaxis()
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
plt.show()

# %%
for name, unit in (("parameters", parameters_of), ("forward FLOPs per token", forward_flops_of)):
    ours, theirs = (unit(run.config) for run in runs)
    saved = 1 - sum(ours.values()) / sum(theirs.values())
    share = ours["routed experts"] / sum(ours.values())
    print(f"MoHGE takes {saved:.1%} fewer {name}; its routed experts are {share:.0%} of its {name}.")

# %% [markdown]
# ## What each width costs
#
# An expert of width W is a SwiGLU of three matrices of D × W, D being the width of the model. A *row*, one
# token at one of its experts, takes 6 × D × W FLOPs forward. So the cost of a token is decided by where the
# router sends it.

# %%
d_model = mohge.config.model.d_model
widths = mohge.config.experts.widths
(standard,) = moe.config.experts.widths
print("width   parameters of an expert  forward FLOPs of a row  beside a standard expert")
for width, name in (*((width, "") for width in widths), (standard, "moe")):
    print(f"{width:5} {name:4}{3 * d_model * width:>21,}{6 * d_model * width:>24,}{width / standard:>26.0%}")
mean = np.mean(widths)
print(f"\nMean width of MoHGE's experts: {mean:.0f}, or {mean / standard:.0%} of the standard.")

# %% [markdown]
# ## Expected and measured
#
# The plan's figure holds for equal loads. Training records how many rows each expert computed, and
# `mohge.metrics` turns them into what a token really cost. Below the line of the plan, the router prefers
# narrow experts; the grey band is the least and the most that any routing can cost.


# %%
def measured(
    run: RunData, metric_class: type[ActiveParameters | FlopsPerToken]
) -> tuple[list[int], list[float]]:
    """The metric at each logged step: tokens trained on, values."""
    experts, layers = run.config.experts, run.config.model.layers
    lines = read_lines(run.path / "routing_steps.jsonl", needs=("step", "tokens", "expert_counts"))
    values = []
    for line in lines:
        counts = RoutingCounts(layers, experts.num_groups, experts.per_group)
        counts.expert_LE += torch.tensor(line["expert_counts"])
        counts.tokens = int(counts.expert_LE[0].sum()) // run.config.router.expert_top_k
        metric = metric_class(run.config)
        metric.update(counts)
        values.append(float(metric.compute().overall))
    return [line["tokens"] for line in lines], values


# %%
at, active = measured(mohge, ActiveParameters)
plan = budgets[0].active_parameters
figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
axes.axhspan(plan.min, plan.max, color="lightgrey", alpha=0.5, label="least and most possible")
axes.axhline(plan.expected, color="#D55E00", linestyle="--", label="expected: equal loads")
axes.plot(at, active, color="#0072B2", marker=".", label="measured in training")
axes.axhline(budgets[1].active_parameters.expected, color="black", linestyle=":", label="standard MoE")
axes.set_xlabel("training tokens")
axes.set_ylabel("active parameters per token")
for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(EngFormatter(sep=" "))
axes.legend(bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %% [markdown]
# The last value of each line is what the run itself recorded.

# %%
for name, metric_class, expected in (
    ("active_parameters", ActiveParameters, plan.expected),
    ("flops_per_token", FlopsPerToken, budgets[0].flops_per_token.train),
):
    value = measured(mohge, metric_class)[1][-1]
    recorded = mohge.last(f"routing/{name}")
    assert recorded is not None
    assert abs(value / recorded - 1) < 1e-9
    print(f"{name}: expected {decimal(expected)}, measured {decimal(value)} ({value / expected - 1:+.1%}).")

# %% [markdown]
# ## Rank by rank: the plan
#
# On several ranks, each holds some experts of every layer. If ranks held one width each, the one with the
# widest would need most memory, and with equal loads it would have most to do. MoHGE's placement,
# `all_size`, gives every rank experts of every width. `rank_plan` is plain arithmetic: no ranks are started.
# It counts the FLOPs of the experts.


# %%
def on_ranks(config: TrainConfig, ranks: int, placement: Placement) -> ParallelPlan:
    """The plan of a configuration whose experts are spread over ranks."""
    mesh = replace(config.parallel, name="ep", expert_parallel=ranks, placement=placement)
    return rank_plan(replace(config, parallel=mesh, trainer=replace(config.trainer, devices=ranks)))


RANKS = 4
plans = {placement: on_ranks(mohge.config, RANKS, placement) for placement in PLACEMENTS}
for placement, on_mesh in plans.items():
    print(f"{placement}:")
    for rank in on_mesh.ranks:
        held = ", ".join(map(str, rank.widths))
        print(f"  rank {rank.rank} holds widths {held}: {rank.expert_flops / 1e6:,.0f} MFLOP in a step")

# %% [markdown]
# ## Rank by rank: the replay
#
# Real loads are not equal. `replay_run` takes the counts that the run recorded, here of its last fifth, and
# gives each expert's rows to the rank that would hold it. It answers for any number of ranks, from a run on
# one machine.

# %%
replay = replay_run(mohge.path, RANKS, 0.2)
figure, panels = plt.subplots(1, len(PLACEMENTS), figsize=(12, 3.5), layout="constrained", sharey=True)
for panel, placement in zip(panels, PLACEMENTS, strict=True):
    flops = np.array([rank.expert_flops for rank in plans[placement].ranks])
    shares = {"plan, equal loads": flops / flops.sum(), "replayed": replay.loads[placement].flops_share_R}
    for number, (name, share) in enumerate(shares.items()):
        where = np.arange(RANKS) + 0.4 * number - 0.2
        panel.bar(where, share, 0.38, color=["#56B4E9", "#0072B2"][number], label=name)
    panel.axhline(1 / RANKS, color="black", linestyle=":", label="even")
    panel.set_title(f"placement {placement}", fontsize="medium")
    panel.set_xticks(range(RANKS), [f"rank {rank}" for rank in range(RANKS)])
panels[0].set_ylabel("share of the experts' FLOPs")
panels[-1].legend(bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %% [markdown]
# Ranks wait for each other, so that the busiest decides. Its work over the mean is 1 where all work alike,
# and 4 where one of four does everything. Ranks that meet once in a step wait for the first figure, ranks
# that meet in every layer for the second.

# %%
print("busiest rank over the mean   in a step   in each layer")
for placement, load in replay.loads.items():
    print(f"{placement:27}{load.flops.per_step:11.2f}{load.flops.per_layer:16.2f}")

# %% [markdown]
# ## Where to go from here
#
# - `mohge-plan model=paper_3b arch=mohge_released` does the first half for a model that you need not train.
# - `mohge-plan replay=RUN_DIR ranks=8` does the replay for other numbers of ranks.
# - The notebook `reading_a_sweep` asks what the savings do to quality.
