"""Tables of a sweep in detail: domains, experts, ranks, losses, and each cell."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.benchmarks.figures import NONE, digits, rounded, with_error
from evaluation.benchmarks.sheet import Sheet
from evaluation.sweeps.analysis import Analysis
from evaluation.sweeps.cells import BUSIEST, DOMAIN, QUALITY, RANKS
from evaluation.sweeps.pairing import Estimate

_DEVIATION = "± is the deviation over seeds."


def domains(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm, a column for each domain of the held-out text."""
    found = _figures(analysis, names, DOMAIN)
    rows = []
    for name in names if found else ():
        beside = analysis.arms[name].beside_baseline
        cells = []
        for figure in found:
            mean = analysis.arms[name].figures.get(figure)
            less = beside.domains.get(figure.removeprefix(DOMAIN)) if beside else None
            told = f" ({rounded(less.mean, 3, signed=True)})" if less else ""
            cells.append(f"{rounded(mean.mean, 3)}{told}" if mean else NONE)
        rows.append([name, *cells])
    header = ["arm", *(figure.removeprefix(DOMAIN) for figure in found)]
    note = (
        "Bits per byte of each domain of the held-out text, less is better: means over seeds, and in "
        f"brackets the mean difference to {analysis.baseline}, paired by seed. Described, not tested."
    )
    return Sheet("domains", "Bits per byte by domain", note, header, rows, in_terminal=False)


def experts(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm with experts: how tokens used them in the last validation."""
    rows = []
    for name in names:
        arm = analysis.arms[name]
        if not arm.texts["widths"]:
            continue
        widths = arm.texts["widths"].split()
        shares = [arm.figures.get(f"share/{group}") for group in range(len(widths))]
        known = [(width, f"{100 * one.mean:.1f}%") for width, one in zip(widths, shares, strict=True) if one]
        if len(set(widths)) == 1:
            shown = f"{widths[0]}: {', '.join(share for _, share in known)}" if known else NONE
        else:
            shown = ", ".join(f"{width}: {share}" for width, share in known) or NONE
        figures = ("mean_width", "idle_experts", "max_violation", "load_variation")
        # Of one group there is nothing to choose.
        groups = _spread(analysis, name, "group_entropy") if len(widths) > 1 else NONE
        rows.append(
            [
                *(name, shown, *(_spread(analysis, name, figure) for figure in figures), groups),
                _spread(analysis, name, "expert_entropy"),
            ]
        )
    header = ["arm", "share of rows by width", "mean width", "idle experts", "MaxVio"]
    header += ["variation of load", "entropy of groups", "entropy of experts"]
    note = (
        "Of the last validation: shares of rows (a token at one of its experts) that the experts of each "
        "width, or, where widths are equal, of each group computed; their mean width, to be compared between "
        "arms with as many experts for a token; experts, over all layers, that no token chose; the largest "
        "load over the mean, less 1, in the worst layer; deviation of loads over their mean; entropy, 1 "
        f"where choices are even. {_DEVIATION}"
    )
    return Sheet("experts", "Experts", note, header, rows, frozenset({1}), in_terminal=False)


def ranks(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm with experts, a column for each placement: how even the work of ranks would be."""
    found = _figures(analysis, names, BUSIEST)
    rows = [
        [name, *(_spread(analysis, name, figure) for figure in found)]
        for name in names
        if any(figure in analysis.arms[name].figures for figure in found)
    ]
    header = ["arm", *(figure.removeprefix(BUSIEST) for figure in found)]
    note = (
        f"The routing of each training replayed on {RANKS} ranks, which hold as many experts each: FLOPs of "
        "the busiest rank over the mean of all, in each step of the last tenth, mean over steps; 1 is even. "
        f"Columns are placements of experts on ranks. {_DEVIATION}"
    )
    return Sheet("ranks", f"Busiest of {RANKS} ranks", note, header, rows, in_terminal=False)


def losses(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm: training loss, validation loss, perplexity and the auxiliary losses."""
    plain = {"train_loss": "training loss", "val_loss": "validation loss", "perplexity": "perplexity"}
    extra = _figures(analysis, names, "aux/")
    rows = [[name, *(_spread(analysis, name, figure) for figure in (*plain, *extra))] for name in names]
    header = ["arm", *plain.values(), *(figure.removeprefix("aux/") + " loss, raw" for figure in extra)]
    note = (
        "Cross-entropy in nats per token and auxiliary losses before their weights, over the last tenth of "
        f"the training; loss and perplexity of the last validation. {_DEVIATION}"
    )
    return Sheet("losses", "Losses", note, header, rows, in_terminal=False)


def by_seed(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm, a column for each seed: bits per byte."""
    found = {name: analysis.arms[name].figures.get(QUALITY) for name in names}
    seeds = sorted({seed for one in found.values() if one for seed in one.by_seed})
    rows = [
        [name, *(f"{one.by_seed[seed]:.4f}" if one and seed in one.by_seed else NONE for seed in seeds)]
        for name, one in found.items()
    ]
    note = "Bits per byte of the last validation of each cell, less is better."
    header = ["arm", *(f"seed {seed}" for seed in seeds)]
    return Sheet("cells", "Each seed", note, header, rows, in_terminal=False)


def deviations(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm but the baseline: how its difference to the baseline deviates between seeds."""
    rows = []
    for name in names:
        beside = analysis.arms[name].beside_baseline
        if beside is not None and beside.quality is not None and beside.quality.deviation is not None:
            rows.append([name, str(beside.quality.seeds), digits(beside.quality.deviation)])
    if analysis.power is not None:
        rows.append(["all arms together", "", digits(analysis.power.deviation)])
    note = (
        f"In bits per byte: deviation over seeds of the paired difference to {analysis.baseline}. Few seeds "
        "tell it roughly; arms far above the others are not equally noisy, as pooled tests take them to be. "
        "All of them have the noise of the baseline's cells in common: where most are above that of all arms "
        "together it may be the noisy one, and pooled tests then find too much, but of few seeds most are "
        "above or below by chance too."
    )
    return Sheet("deviations", "Deviations", note, ["arm", "seeds", "deviation"], rows, in_terminal=False)


def training(analysis: Analysis, names: Sequence[str]) -> Sheet:
    """A row for each arm: what was trained, for how long, and how fast."""
    rows = []
    for name in names:
        arm = analysis.arms[name]
        tokens, seconds = (arm.figures.get(figure) for figure in ("tokens", "seconds"))
        match = arm.figures.get("match_difference")
        matched = f"{arm.texts['match']}, {rounded(100 * match.mean, 2, signed=True)}%" if match else NONE
        rows.append(
            [
                *(name, arm.texts["arch"], arm.texts["widths"] or NONE, matched),
                f"{tokens.mean:,.0f}" if tokens else NONE,
                digits(seconds.mean / 60 if seconds else None),
                *(_spread(analysis, name, "tokens_per_second"), arm.texts["revision"] or NONE),
            ]
        )
    header = ["arm", "arch", "widths", "matched to", "training tokens", "minutes", "tokens per second"]
    note = (
        "Widths of the experts of each group; what widths are solved for, and what difference remains; "
        f"minutes of optimizer steps; git revision, with + if the tree had changes. {_DEVIATION}"
    )
    return Sheet(
        "training", "Training", note, [*header, "revision"], rows, frozenset({1, 2, 3, 7}), in_terminal=False
    )


def _figures(analysis: Analysis, names: Sequence[str], prefix: str) -> list[str]:
    every = dict.fromkeys(figure for name in names for figure in analysis.arms[name].figures)
    return [figure for figure in every if figure.startswith(prefix)]


def _spread(analysis: Analysis, name: str, figure: str) -> str:
    found: Estimate | None = analysis.arms[name].figures.get(figure)
    return NONE if found is None else with_error(found.mean, found.deviation)
