"""Pictures of one run or of several side by side.

`callbacks.PlotsCallback` draws with these functions too, against the rule that callbacks and evaluation do
not import each other: a run's own pictures and a comparison's must look and mean the same.

Colours are Okabe and Ito's for runs, viridis for widths, and blue-white-red for loads: none rests on a
difference between red and green, and lines differ in style too. Figures are made without pyplot, which
keeps global state and picks a display.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from evaluation.run_data import RunData
from mohge.files import atomic_path

_RUN_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")


def draw_all(runs: Sequence[RunData], folder: Path) -> list[Path]:
    """Draw every picture that the runs have something to show in, and return their paths.

    Raises:
        UserError: the disk refuses.
    """
    drawn = {"loss_curves.png": loss_curves(runs)}
    grouped = [run for run in runs if run.config.experts.num_groups > 1]
    if any(run.series("routing/rows_share/group_0")[0] for run in grouped):
        drawn["group_shares.png"] = group_shares(grouped)
    routed = [run for run in runs if run.routing]
    if routed:
        drawn["expert_load.png"] = expert_load(routed)
    if len(runs) == 1 and routed and "coactivation" in routed[0].routing[-1]:
        drawn["coactivation.png"] = coactivation(routed[0])
    paths = []
    for name, figure in drawn.items():
        with atomic_path(folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
        paths.append(folder / name)
    return paths


def loss_curves(runs: Sequence[RunData]) -> Figure:
    """Training cross-entropy and validation bits per byte over training tokens."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    training, validation = figure.subplots(1, 2)
    for index, run in enumerate(runs):
        colour, style = _RUN_COLOURS[index % len(_RUN_COLOURS)], _STYLES[index % len(_STYLES)]
        training.plot(*run.series("train/loss"), style, color=colour, linewidth=1.2, label=run.name)
        bits = run.series("val/bits_per_byte")
        validation.plot(*bits, style, color=colour, marker="o", markersize=4, label=run.name)
    training.set_ylabel("training cross-entropy (nats per token)")
    validation.set_ylabel("validation (bits per byte)")
    for axes in (training, validation):
        axes.set_xlabel("training tokens")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.legend(handlelength=3)
        _tidy(axes)
    return figure


def group_shares(runs: Sequence[RunData]) -> Figure:
    """Share of routed rows computed by each width group over steps, one panel per run with several groups."""
    rows, columns = math.ceil(len(runs) / 2), min(len(runs), 2)
    figure = Figure(figsize=(6.5 * columns, 4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, run in zip(panels, runs, strict=False):
        _group_share_panel(axes, run)
    for axes in panels[len(runs) :]:
        axes.set_axis_off()
    return figure


def _group_share_panel(axes: Axes, run: RunData) -> None:
    widths = run.config.experts.widths
    colours = colormaps["viridis"](np.linspace(0, 0.85, len(widths)))
    for group in reversed(range(len(widths))):
        steps, shares = run.series(f"routing/rows_share/group_{group}", over="step")
        style = _STYLES[group % len(_STYLES)]
        axes.plot(steps, shares, style, color=colours[group], linewidth=1.8, label=f"width {widths[group]}")
    even = 1 / len(widths)
    axes.axhline(even, color="grey", linewidth=3, alpha=0.4, zorder=0, label=f"even share ({even:.1%})")
    axes.set_title(run.name)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("share of token-expert pairs (training)")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1), handlelength=3)
    _tidy(axes)


def expert_load(runs: Sequence[RunData]) -> Figure:
    """Load of each expert in the last validation, layers x experts ordered by width, one panel per run."""
    loads = [np.asarray(run.routing[-1]["expert_counts"], dtype=float) for run in runs]
    loads = [load_LE / load_LE.mean(axis=1, keepdims=True) for load_LE in loads]
    norm = TwoSlopeNorm(vcenter=1, vmin=0, vmax=max(2.0, *(load_LE.max() for load_LE in loads)))
    heights = [1.1 + 0.28 * len(load_LE) for load_LE in loads]
    figure = Figure(figsize=(10, sum(heights) + 0.9), layout="constrained")
    panels = figure.subplots(len(runs), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, run, load_LE in zip(panels, runs, loads, strict=True):
        image = axes.imshow(load_LE, norm=norm, cmap="RdBu_r", aspect="auto", interpolation="nearest")
        dead_layers, dead_experts = np.nonzero(load_LE == 0)
        axes.plot(dead_experts, dead_layers, "x", color="white", markersize=5)
        _expert_axis(axes, run)
    bar = figure.colorbar(image, ax=list(panels), location="bottom", fraction=0.05, aspect=60)
    bar.set_label("load (1 = mean of the layer, x = no token)")
    return figure


def coactivation(run: RunData) -> Figure:
    """How much oftener than by chance two experts share a token, in the last validation, a panel per layer.

    Chance is what their loads alone would give if tokens chose them independently.
    """
    counts_LEE = np.asarray(run.routing[-1]["coactivation"], dtype=float)
    layers, columns = len(counts_LEE), min(len(counts_LEE), 4)
    figure = Figure(
        figsize=(3.4 * columns + 0.6, 3.3 * math.ceil(layers / columns) + 0.8), layout="constrained"
    )
    panels = figure.subplots(math.ceil(layers / columns), columns, squeeze=False).ravel()
    norm = TwoSlopeNorm(vcenter=1, vmin=0, vmax=3)
    for layer, (axes, counts_EE) in enumerate(zip(panels, counts_LEE, strict=False)):
        load_E = counts_EE.diagonal()
        tokens = load_E.sum() / run.config.router.expert_top_k
        chance_EE = np.outer(load_E, load_E) / tokens
        ratio_EE = np.divide(counts_EE, chance_EE, out=np.full_like(counts_EE, np.nan), where=chance_EE > 0)
        np.fill_diagonal(ratio_EE, np.nan)
        image = axes.imshow(ratio_EE, norm=norm, cmap="RdBu_r", interpolation="nearest")
        axes.set_facecolor("lightgrey")
        axes.set_title(f"layer {layer}")
        _pair_axes(axes, run)
    for axes in panels[layers:]:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=list(panels), location="bottom", fraction=0.05, aspect=60, extend="max")
    bar.set_label(
        "tokens that chose both experts (1 = as often as by chance, grey = the same or an idle one)"
    )
    return figure


def _pair_axes(axes: Axes, run: RunData) -> None:
    """Marks the widths of experts, which both axes have in the same order."""
    experts = run.config.experts
    for boundary in range(experts.per_group, experts.num_experts, experts.per_group):
        axes.axvline(boundary - 0.5, color="black", linewidth=1)
        axes.axhline(boundary - 0.5, color="black", linewidth=1)
    centres = [experts.per_group * (group + 0.5) - 0.5 for group in range(experts.num_groups)]
    axes.set_xticks(centres, list(map(str, experts.widths)))
    axes.set_yticks(centres, list(map(str, experts.widths)))
    axes.tick_params(length=0)
    axes.set_xlabel("width of expert")


def _expert_axis(axes: Axes, run: RunData) -> None:
    experts, layers = run.config.experts, run.config.model.layers
    for boundary in range(experts.per_group, experts.num_experts, experts.per_group):
        axes.axvline(boundary - 0.5, color="black", linewidth=1)
    centres = [experts.per_group * (group + 0.5) - 0.5 for group in range(experts.num_groups)]
    axes.set_xticks(centres, [f"width {width}" for width in experts.widths])
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel(f"experts, {experts.per_group} of each width" if experts.num_groups > 1 else "experts")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(layers, 10)))
    axes.set_ylabel("layer")
    axes.set_title(f"{run.name}: load in validation at step {run.routing[-1]['step']}")


def _tidy(axes: Axes) -> None:
    axes.grid(True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
