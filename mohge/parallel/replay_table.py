"""A replay as tables for people: how even each placement is, and the share of each rank."""

from __future__ import annotations

from dataclasses import astuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mohge.budget_table import number_table
from mohge.parallel.replay import Replay

_NOTE = """\
overall: of the work of all layers and steps together
per step: of the work of all layers in one step; mean over steps
per layer: time of the experts if ranks wait for each other in each layer ÷ time if even
"""


def render(replay: Replay) -> RenderableType:
    """What was replayed, max ÷ mean over ranks by placement, and the share of FLOPs by rank."""
    notes = Text(_NOTE, style="dim")
    for placements in replay.alike():
        notes.append(f"{', '.join(placements)}: the same experts together here, if not on the same ranks\n")
    return Group(_subject(replay), _imbalances(replay), notes, _shares(replay))


def _subject(replay: Replay) -> Text:
    recording = replay.recording
    config, steps_S = recording.config, recording.steps_S
    experts = f"{config.experts.num_experts} experts in each of {config.model.layers} layers"
    return Text.assemble(
        (f"Replay of {config.model.name} · {config.arch_name} on {replay.ranks} ranks\n", "bold"),
        f"{recording.folder}\n",
        f"{experts} · {len(steps_S)} recorded steps, {steps_S[0]:,} to {steps_S[-1]:,}, the last one at ",
        f"{recording.tokens:,} tokens\n",
        overflow="fold",
    )


def _imbalances(replay: Replay) -> Table:
    flops = ("FLOPs\noverall", "FLOPs\nper step", "FLOPs\nper layer")
    others = ("rows\noverall", "expert\nparameters")
    table = number_table("Largest ÷ mean over ranks (1 is even)", "placement", *flops, *others)
    for placement, load in replay.loads.items():
        numbers = (*astuple(load.flops), load.rows.overall, load.parameters_imbalance)
        table.add_row(placement, *(f"{number:.3f}" for number in numbers))
    return table


def _shares(replay: Replay) -> Table:
    table = number_table("Share of the experts' FLOPs, %", "rank", *replay.loads)
    shares = [load.flops_share_R for load in replay.loads.values()]
    for rank, row in enumerate(zip(*shares, strict=True)):
        table.add_row(str(rank), *(f"{100 * share:.2f}" for share in row))
    table.add_section()
    table.add_row("even", *[f"{100 / replay.ranks:.2f}"] * len(shares))
    return table
