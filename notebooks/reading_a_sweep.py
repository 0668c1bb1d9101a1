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
# # Reading a sweep
#
# Is MoHGE as good as the standard MoE for its cost? One run of each cannot tell: train the same model from
# another seed, and its loss differs too. This walk-through trains several short pairs of runs, and reads
# from them means, deviations, paired differences, and cost against quality.
#
# It needs the two finished runs that `make train` leaves below `outputs/`: it repeats them with other seeds
# on a tenth of the tokens, in a minute or two. Set `MOHGE_RUNS` to look in another folder.

# %%
import shlex
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter
from scipy import stats

from evaluation.run_data import read_run
from mohge.training.run_folder import RunFolder
from notebooks.found import MULTIRUN, latest_runs, runs_root

ARCHS = ("mohge", "moe")
COLOURS = {"mohge": "#0072B2", "moe": "#D55E00"}
MARKERS = {"mohge": "o", "moe": "s"}


# %% [markdown]
# ## The runs
#
# `-m` makes `mohge-train` run every combination of values, one after another. Here each job is a whole
# comparison: both models, on the same tokens in the same order. The seed decides the order and the first
# weights. What was typed for the comparison is typed again, and later settings win.

# %%
comparison = latest_runs(*ARCHS)[0].parent
sweep = runs_root() / MULTIRUN / f"reading_a_sweep_{comparison.name}"
tokens = read_run("mohge", comparison / "mohge").status["tokens"] // 10
SEEDS = (1, 2, 3, 4)
overrides = [
    *RunFolder(comparison).read_overrides(),
    f"trainer.max_tokens={tokens}",
    f"seed={','.join(map(str, SEEDS))}",
    "logger=none",
    "paths.run_dir=null",
    f"hydra.sweep.dir='{sweep}'",  # quoted, since Hydra reads commas and brackets
]
print(shlex.join(["mohge-train", "-m", *overrides]))

# %% [markdown]
# The runs are kept, so that this notebook trains once. An interrupted sweep is trained anew.

# %%
jobs = [RunFolder(sweep / str(number)) for number in range(len(SEEDS))]
if not all(job.read_status().get("state") == "finished" for job in jobs):
    command = [sys.executable, "-m", "mohge.apps.train", "-m", *overrides]
    # From where the comparison was started, if its overrides have relative folders.
    subprocess.run(command, cwd=runs_root().parent, stdout=subprocess.DEVNULL, check=True)

runs = {arch: [read_run(arch, job.path / arch) for job in jobs] for arch in ARCHS}
for of_arch in runs.values():
    assert tuple(run.config.seed for run in of_arch) == SEEDS
    assert all(run.status["state"] == "finished" for run in of_arch)
print(f"{len(SEEDS)} seeds of {' and '.join(ARCHS)}, {runs['moe'][0].status['tokens']:,} tokens each.")

# %% [markdown]
# ## A table with deviations
#
# Each figure is the mean over seeds ± the standard deviation of one run (n - 1 in the denominator): how far
# another seed would typically be off. Bits per byte measure the prediction of held-out text, whatever the
# tokenizer: less is better. FLOPs are as measured, since routing decides them.

# %%
METRICS = {
    "validation, bits per byte": ("val/bits_per_byte", 1, ".4f"),
    "last training loss, nats": ("train/loss", 1, ".3f"),
    "training MFLOPs per token": ("routing/flops_per_token", 1e-6, ".3f"),
    "tokens per second": ("speed/tokens_per_second", 1, ",.0f"),
    "largest load over mean, less 1": ("val/routing/max_violation", 1, ".2f"),
}


def values_of(arch: str, metric: str) -> np.ndarray:
    """The last value of each seed."""
    return np.array([run.last(metric) for run in runs[arch]])


print(f"{'':32}" + "".join(f"{arch:>22}" for arch in ARCHS))
for name, (metric, scale, form) in METRICS.items():
    cells = [scale * values_of(arch, metric) for arch in ARCHS]
    shown = [f"{cell.mean():{form}} ± {cell.std(ddof=1):{form}}" for cell in cells]
    print(f"{name:32}" + "".join(f"{cell:>22}" for cell in shown))

# %% [markdown]
# ## Paired differences
#
# Runs of one seed have read the same tokens in the same order, and part of what the seed does is common to
# both. So take the difference within each seed first, then its mean and interval. The interval is Student's
# t for the mean of few values; it takes them to be about normal.

# %%
quality = {arch: values_of(arch, "val/bits_per_byte") for arch in ARCHS}
difference = quality["mohge"] - quality["moe"]
mean, error = difference.mean(), difference.std(ddof=1) / np.sqrt(len(SEEDS))
reach = stats.t.ppf(0.975, len(SEEDS) - 1) * error
low, high = mean - reach, mean + reach
print(f"mohge less moe, of each seed: {' '.join(f'{value:+.4f}' for value in difference)} bits per byte")
print(f"Mean difference: {mean:+.4f} bits per byte, 95% interval {low:+.4f} to {high:+.4f}.")
if low <= 0 <= high:
    print("The interval holds 0: these runs do not tell which model is better.")
else:
    better = "mohge" if high < 0 else "moe"
    print(f"The interval leaves out 0: {better} is better here, at this size and after so few tokens.")

# %%
figure, (both, gap) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
for arch in ARCHS:
    both.plot(SEEDS, quality[arch], MARKERS[arch], color=COLOURS[arch], label=arch)
both.set_ylabel("validation (bits per byte)")
both.legend()
gap.axhline(0, color="grey", linewidth=1)
gap.axhspan(low, high, color="#56B4E9", alpha=0.3, label="95% interval of the mean")
gap.axhline(mean, color="black", linestyle="--", label="mean")
gap.plot(SEEDS, difference, "D", color="black", label="one seed")
gap.set_ylabel("mohge less moe (bits per byte)")
gap.legend()
for panel in (both, gap):
    panel.set_xlabel("seed")
    panel.set_xticks(SEEDS)
plt.show()

# %% [markdown]
# ## Cost against quality
#
# The lower left corner is best: less computation, better prediction. Small marks are runs; large ones are
# means, with one standard deviation each way. The axes do not start at zero.

# %%
figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
for arch in ARCHS:
    cost = values_of(arch, "routing/flops_per_token")
    axes.scatter(cost, quality[arch], s=18, alpha=0.6, color=COLOURS[arch], marker=MARKERS[arch])
    axes.errorbar(
        cost.mean(),
        quality[arch].mean(),
        xerr=cost.std(ddof=1),
        yerr=quality[arch].std(ddof=1),
        markersize=9,
        capsize=4,
        label=arch,
        color=COLOURS[arch],
        marker=MARKERS[arch],
    )
axes.set_xlabel("training FLOPs per token, measured")
axes.set_ylabel("validation (bits per byte)")
axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
axes.legend(title="mean ± deviation")
plt.show()

# %% [markdown]
# ## What one seed can tell
#
# Suppose that you had trained one run of each model, on seeds of their own, as people often do. Here are all
# pairs that you could have met. Had you paired the seeds, you would have met one of the differences above.

# %%
pairs = np.subtract.outer(quality["mohge"], quality["moe"]).ravel()
wrong = np.mean(np.sign(pairs) != np.sign(mean))
single = np.sqrt(sum(values.var(ddof=1) for values in quality.values()))
print(f"One run of each would show between {pairs.min():+.4f} and {pairs.max():+.4f} bits per byte;")
print(f"{wrong:.0%} of the pairs have the other sign than the mean of all.")
print(f"Deviation of a difference: {single:.4f} unpaired, {difference.std(ddof=1):.4f} paired by seed.")

# %% [markdown]
# How many seeds would it take? For the interval to reach no further than a difference to either side, about
# as many as below; a true difference of that size would then be seen in about half of such sweeps. It is a
# rough figure, since the deviation itself is known from few runs only.

# %%
spread = difference.std(ddof=1)
for matters in (0.05, 0.02, 0.01, 0.005):
    enough = next(n for n in range(2, 100_000) if stats.t.ppf(0.975, n - 1) * spread / np.sqrt(n) <= matters)
    print(f"For an interval of ±{matters:.3f} bits per byte: about {enough} seeds.")

# %% [markdown]
# **A warning.** One seed tells that a model trains; it does not tell which of two close models is better.
# Nor do many seeds tell what happens later: these runs have read a tenth of the quickstart's tokens, and
# models that differ early may meet, or cross, later. State the number of seeds, the tokens, and the interval
# with every comparison.
#
# ## Where to go from here
#
# - `mohge-train -m seed=1,2,3 arch=mohge,moe` makes such runs from the command line.
# - `mohge-report` shows many runs on one page, with cost against quality.
