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
# # The anatomy of routing
#
# How does one token find its experts, and what did the whole run do? This walk-through takes the latest
# trained MoHGE model, follows a line of text through one layer, and then reads what the run itself has
# recorded.
#
# It needs one finished run of `arch=mohge`, such as `make train` leaves below `outputs/`. Set `MOHGE_RUNS`
# to look in another folder.

# %%
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm

from evaluation.plots import expert_load
from evaluation.run_data import read_lines, read_object, read_run
from evaluation.tokens import analyse
from evaluation.tokens.parts import token_texts
from evaluation.tokens.source import open_own
from mohge.metrics import DeadExperts, ExpertEntropy, GroupEntropy, MaxViolation, RoutingCounts
from mohge.training.checkpoint_choice import choose_checkpoint
from mohge.training.export import corpus_of, load_checkpoint_model
from notebooks.found import latest_runs

# %% [markdown]
# ## A trained model
#
# A run's folder stands for its newest intact checkpoint. The model is loaded in float32, on the CPU.

# %%
(folder,) = latest_runs("mohge")
checkpoint = choose_checkpoint(str(folder))
config, model, state = load_checkpoint_model(checkpoint)
experts, router, layers = config.experts, config.router, config.model.layers
print(f"{folder.parent.name}/{folder.name}: step {state['global_step']}, {layers} layers")
print(f"{experts.num_groups} groups of {experts.per_group} experts, of widths {list(experts.widths)}")
print(f"Each token selects {router.group_top_k} groups, and {router.expert_top_k} experts of these groups.")

# %% [markdown]
# ## A short text
#
# The text is cut by the run's own tokenizer, and goes through the model once. The model returns a
# `RoutingDecision` for each layer: all that its router has found, for every token.
#
# Below, T is the number of tokens, G of groups, E of experts, and K of experts per token.

# %%
TEXT = "for year in range(1990, 2025):\n    total += 3.14 * len(years)"

corpus = open_own(checkpoint, config, corpus_of(config, state), progress=False)
ids = torch.tensor(corpus.encode(TEXT)[: config.data.context])
with torch.no_grad():
    decisions = model.eval()(ids[None]).decisions
written = token_texts(corpus.tokenizer, config.model.vocab_size)
tokens = [written[number].replace(" ", "␣").replace("\n", "↵") for number in ids.tolist()]
print(f"{len(tokens)} tokens: {' '.join(tokens)}")

# %% [markdown]
# ## One layer, step by step
#
# Follow one line of the picture from left to right.
#
# 1. The group router gives each width group a *logit*.
# 2. The groups with the largest logits are *selected*. Their scores, divided by their sum, are their
#    weights.
# 3. Within each group, the expert router's logits become probabilities. Times the weight of the group, they
#    are the *joint probability* of each expert. It is zero in groups that were not selected (grey).
# 4. The K most probable experts are chosen, and their probabilities, divided by their sum, are the *weights*
#    of what they answer.
#
# Expert ids are group-major: the first experts are the narrowest ones. White lines divide the groups, and
# layers are counted from 0.

# %%
LAYER, SHOWN = layers // 2, 16
decision = decisions[LAYER]


def heat_map(axes: Axes, values: np.ndarray, title: str, label: str, **look: Any) -> None:
    """Tokens downwards, groups or experts across; what was not chosen is grey."""
    axes.set_facecolor("lightgrey")
    image = axes.imshow(values, aspect="auto", interpolation="nearest", **look)
    each = values.shape[1] // experts.num_groups
    for border in range(each, values.shape[1], each):
        axes.axvline(border - 0.5, color="white", linewidth=1.5)
    middles = [each * (group + 0.5) - 0.5 for group in range(experts.num_groups)]
    axes.set_xticks(middles, [str(width) for width in experts.widths])
    axes.set_xlabel("expert width of the group")
    axes.set_title(title, fontsize="medium")
    plt.colorbar(image, ax=axes, location="bottom", label=label, pad=0.02)


# %%
def chosen_only(values: torch.Tensor, chosen: torch.Tensor) -> np.ndarray:
    """Values, empty where nothing was chosen."""
    return np.ma.masked_where(~chosen.numpy(), values.numpy())


in_group_TE = decision.group_mask_TG.repeat_interleave(experts.per_group, dim=1)
spread, plain = {"norm": CenteredNorm(), "cmap": "PuOr"}, {"vmin": 0, "cmap": "viridis"}
panels = {
    "1 group logits": (decision.group_logits_TG.numpy(), "logit", spread),
    "2 selected groups": (chosen_only(decision.group_weights_TG, decision.group_mask_TG), "weight", plain),
    "3 joint probability": (chosen_only(decision.joint_probability_TE, in_group_TE), "probability", plain),
    "4 chosen experts": (chosen_only(decision.expert_weights_TE, decision.expert_mask_TE), "weight", plain),
}

# %%
figure = plt.figure(figsize=(13, 6), layout="constrained")
axes = figure.subplots(1, len(panels), sharey=True, width_ratios=[1, 1, 2, 2])
for panel, (title, (values, label, look)) in zip(axes, panels.items(), strict=True):
    heat_map(panel, values[:SHOWN], title, label, **look)
axes[0].set_yticks(range(len(tokens[:SHOWN])), tokens[:SHOWN], family="monospace")
axes[0].set_ylabel("token")
figure.suptitle(f"Layer {LAYER}: from a token to the weights of its experts")
plt.show()

# %% [markdown]
# ## The same for one token, in figures
#
# The token with the most uneven weights, and the experts it went to.

# %%
clear = int(decision.weights_TK[:, 0].argmax())
print(f"Token {tokens[clear]!r} in layer {LAYER}:")
for expert, share in zip(
    decision.expert_ids_TK[clear].tolist(), decision.weights_TK[clear].tolist(), strict=True
):
    place, number = divmod(expert, experts.per_group)
    print(f"  expert {expert:2d} (number {number} of width {experts.widths[place]:3d}): weight {share:.3f}")

# %% [markdown]
# ## Every token is accounted for
#
# Two truths hold in every layer and every step of training, and a run that breaks them stops: the weights of
# a token's experts sum to 1, and the counts of the experts sum to tokens × K. A *row* is one token at one of
# its experts.

# %%
counts = RoutingCounts(layers, experts.num_groups, experts.per_group)
counts.add(decisions)
counts.check(router.group_top_k)

sums = torch.stack([one.weights_TK.sum(dim=1) for one in decisions])
print(f"Weights of a token sum to 1 in every layer: at most {float((sums - 1).abs().max()):.0e} off.")
rows = counts.expert_LE.sum(dim=1).tolist()
print(f"Rows of each layer: {rows}; tokens x K = {len(tokens)} x {router.expert_top_k} = {counts.rows}.")
assert rows == [len(tokens) * router.expert_top_k] * layers

# %% [markdown]
# ## What the run has recorded
#
# One line of text says little. The run has counted every row of every step: `routing_steps.jsonl` has the
# counts of each logged step of training, `routing.jsonl` those of each validation. The picture shows the
# last validation. Blue experts got less than their share, red ones more.

# %%
run = read_run(f"{config.model.name} {config.arch_name}", folder)
display(expert_load([run]))

# %% [markdown]
# The metrics of `mohge.metrics` turn counts into figures, one of each layer and one over all layers
# (docs/ROUTING.md explains them). Here they are computed anew from the recorded counts of the last
# validation, and agree with what the run wrote into `metrics.jsonl` as `val/routing/…`.

# %%
last = run.routing[-1]
seen = RoutingCounts(layers, experts.num_groups, experts.per_group)
seen.expert_LE += torch.tensor(last["expert_counts"])
seen.group_LG += torch.tensor(last["group_counts"])
seen.rows = int(seen.expert_LE[0].sum())
seen.tokens = seen.rows // router.expert_top_k

shape = (layers, experts.num_groups, experts.per_group)
metrics = {
    "max_violation": MaxViolation(*shape),
    "max_violation_in_groups": MaxViolation(*shape, within_groups=True),
    "expert_entropy": ExpertEntropy(*shape),
    "group_entropy": GroupEntropy(*shape),
    "dead_experts": DeadExperts(*shape),
}

# %%
print(f"{'':24}{'recorded':>9}{'overall':>9}   each layer")
for name, metric in metrics.items():
    metric.update(seen)
    value = metric.compute()
    recorded = run.last(f"val/routing/{name}")
    assert recorded is not None
    by_layer = " ".join(f"{number:6.2f}" for number in value.layers.tolist())
    print(f"{name:24}{recorded:9.3f}{float(value.overall):9.3f}   {by_layer}")
    assert abs(recorded - float(value.overall)) < 1e-6

# %% [markdown]
# ## Which experts are idle?
#
# An expert may rest for a step and work in the next. Idle is one that got nothing in all logged steps of the
# last tenth of the run.

# %%
logged = read_lines(folder / "routing_steps.jsonl", needs=("step", "expert_counts"))
late = [row["expert_counts"] for row in logged if row["step"] > 0.9 * logged[-1]["step"]]
total_LE = np.sum(late, axis=0)
share_LE = total_LE / total_LE.mean(axis=1, keepdims=True)
idle = [f"layer {layer} expert {expert}" for layer, expert in np.argwhere(total_LE == 0).tolist()]
least, which = divmod(int(share_LE.argmin()), experts.num_experts)
print(f"Idle experts: {', '.join(idle) or 'none'} (of {total_LE.size}, in {len(late)} logged steps).")
print(
    f"Least used: expert {which} of layer {least}, width {experts.widths[which // experts.per_group]}, "
    f"with {share_LE.min():.0%} of the mean load of its layer."
)

# %% [markdown]
# ## Which group handles numbers?
#
# `mohge-tokens` sends held-out text through a checkpoint and joins each token with its experts; the run's
# folder keeps the answer below `tokens/`. If it is not there yet, it is made now, in some ten seconds. The
# sentences that it ends with have 95% intervals: they tell how well the text pins the figures down, not what
# another seed would learn.

# %%
output = folder / "tokens" / checkpoint.name
if output.exists():
    found = read_object(output / "tokens.json")
else:
    found = analyse(checkpoint, tokens=65536, output=output, progress=False)
print(f"{found['tokens']:,} held-out tokens of {found['corpus']}.")
for sentence in found["findings"]:
    print(sentence)

# %% [markdown]
# The parts of text side by side: each bar is all rows of that part, divided among the width groups. Compare
# it with the bar of all tokens.

# %%
bars = {"all tokens": [group["share"] for group in found["difficulty"][-1]["groups"]]}
bars |= {f"{part['part']} ({part['tokens']:,})": part["shares"] for part in found["parts"]}
colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, experts.num_groups))
left = np.zeros(len(bars))
plt.figure(figsize=(9, 0.7 + 0.45 * len(bars)), layout="constrained")
for place, width in enumerate(experts.widths):
    share = np.array([shares[place] for shares in bars.values()])
    plt.barh(list(bars), share, left=left, color=colours[place], edgecolor="white", label=f"width {width}")
    left += share
plt.gca().invert_yaxis()
plt.xlim(0, 1)
plt.xlabel("share of rows, over all layers")
plt.legend(bbox_to_anchor=(1, 1), loc="upper left")
plt.show()

# %%
(numbers,) = [part for part in found["parts"] if part["part"] == "number"] or [None]
if numbers is None:
    print("No token of this text is a number.")
else:
    usual = found["difficulty"][-1]["groups"]
    above = [share - group["share"] for share, group in zip(numbers["shares"], usual, strict=True)]
    most, rise = (experts.widths[int(np.argmax(values))] for values in (numbers["shares"], above))
    print(f"Numbers go most often to width {most}: {max(numbers['shares']):.0%} of their rows.")
    print(f"Most above its share of all tokens is width {rise}: {100 * max(above):+.0f} percentage points.")

# %% [markdown]
# ## Where to go from here
#
# - `mohge-tokens checkpoint=RUN_DIR` prints all tables, and `text.html` in its folder colours the text by
#   width.
# - `mohge-report` shows the same of one or many runs on one page.
# - The notebook `parameters_and_flops` asks what all this costs.
