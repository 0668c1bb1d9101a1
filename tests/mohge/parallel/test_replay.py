from __future__ import annotations

import io
import json

import numpy as np
import pytest
import yaml
from commands import run_command
from fabricated_runs import write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from rich.console import Console

from mohge.budget import count_parameters
from mohge.errors import UserError
from mohge.moe.placement import place
from mohge.parallel.replay import PLACEMENTS, rank_loads, read_recording, replay_run
from mohge.parallel.replay_table import render

# Two groups of two experts, on two ranks; expert ids are group-major: (0, 0), (0, 1), (1, 0), (1, 1).
WIDTHS = (4, 8)
BY_GROUP = [[(0, 0), (0, 1)], [(1, 0), (1, 1)]]
BY_INDEX = [[(0, 0), (1, 0)], [(0, 1), (1, 1)]]


def views(imbalance):
    return (imbalance.overall, imbalance.per_step, imbalance.per_layer)


def test_each_view_of_rows_by_hand():
    # Two steps of two layers. By index, the ranks' rows are (9, 3) and (6, 6), then (2, 10) and (8, 4).
    counts_SLE = np.array([[[5, 2, 4, 1], [3, 3, 3, 3]], [[1, 5, 1, 5], [4, 2, 4, 2]]])
    loads = rank_loads(counts_SLE, BY_INDEX, WIDTHS, d_model=2)
    assert loads.rows_R == [25, 23]
    # Steps: (15, 9) and (10, 14), both of mean 12. Layers: 9 + 6 + 10 + 8 over 4 means of 6.
    assert views(loads.rows) == pytest.approx((25 / 24, (15 / 12 + 14 / 12) / 2, 33 / 24))


def test_each_view_of_flops_by_hand():
    counts_SLE = np.array([[[5, 2, 4, 1], [3, 3, 3, 3]], [[1, 5, 1, 5], [4, 2, 4, 2]]])
    loads = rank_loads(counts_SLE, BY_GROUP, WIDTHS, d_model=2)
    # Rows x width: layers (28, 40), (24, 48), (24, 48), (24, 48); steps (52, 88), (48, 96).
    assert loads.forward_flops_R == [6 * 2 * 100, 6 * 2 * 184]
    assert loads.flops_share_R == pytest.approx([100 / 284, 184 / 284])
    assert views(loads.flops) == pytest.approx((184 / 142, (88 / 70 + 96 / 72) / 2, 184 / 142))
    assert loads.parameters_R == [3 * 2 * 2 * 2 * 4, 3 * 2 * 2 * 2 * 8]
    assert loads.parameters_imbalance == pytest.approx(8 / 6)


def test_excesses_that_make_up_for_each_other_show_only_where_ranks_wait():
    """Two layers that favour one rank each, and two steps likewise."""
    over_layers = np.array([[[2, 0, 2, 0], [0, 2, 0, 2]]])
    loads = rank_loads(over_layers, BY_INDEX, WIDTHS, d_model=2)
    assert views(loads.flops) == views(loads.rows) == (1, 1, 2)
    loads = rank_loads(over_layers.transpose(1, 0, 2), BY_INDEX, WIDTHS, d_model=2)
    assert views(loads.flops) == views(loads.rows) == (1, 2, 2)


@st.composite
def recordings(draw):
    """Counts whose layers all have the same rows, with the sizes of an expert pool and ranks that fit."""
    groups, per_group, ranks = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 2, 4])),
    )
    groups, per_group = 2 * groups, per_group * ranks
    widths = sorted(draw(st.lists(st.integers(1, 5000), min_size=groups, max_size=groups)))
    steps, layers, rows = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 10**9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    concentration = draw(st.sampled_from([0.01, 1.0, 100.0]))
    share_SLE = rng.dirichlet(np.full(groups * per_group, concentration), size=(steps, layers))
    return rng.multinomial(rows, share_SLE), widths, per_group, ranks


@settings(deadline=None)
@given(recording=recordings(), placement=st.sampled_from(PLACEMENTS), d_model=st.integers(1, 10_000))
def test_nothing_is_lost_and_nothing_is_below_even(recording, placement, d_model):
    counts_SLE, widths, per_group, ranks = recording
    slots_R = place(len(widths), per_group, ranks, placement)
    loads = rank_loads(counts_SLE, slots_R, widths, d_model)
    rows_E = counts_SLE.sum(axis=(0, 1)).tolist()
    width_E = [width for width in widths for _ in range(per_group)]
    assert sum(loads.rows_R) == sum(rows_E)
    assert sum(loads.forward_flops_R) == 6 * d_model * sum(
        rows * width for rows, width in zip(rows_E, width_E, strict=True)
    )
    assert sum(loads.parameters_R) == 3 * d_model * counts_SLE.shape[1] * sum(width_E)
    assert sum(loads.flops_share_R) == pytest.approx(1)
    figures = (*views(loads.rows), *views(loads.flops), loads.parameters_imbalance)
    assert all(1 - 1e-12 <= figure <= ranks + 1e-12 for figure in figures)
    for view in (loads.rows, loads.flops):
        assert view.overall <= view.per_layer + 1e-12
    assert loads.rows.overall <= loads.rows.per_step + 1e-12 <= loads.rows.per_layer + 2e-12


@settings(deadline=None)
@given(
    groups=st.integers(1, 6),
    sets_per_rank=st.integers(1, 3),
    ranks=st.integers(1, 9),
    rows=st.integers(1, 10**6),
    data=st.data(),
)
def test_even_experts_are_exactly_even_ranks_under_all_size(groups, sets_per_rank, ranks, rows, data):
    """Experts that are even within their group suffice: each rank holds as many of every group."""
    per_group = sets_per_rank * ranks
    widths = sorted(data.draw(st.lists(st.integers(1, 5000), min_size=groups, max_size=groups)))
    rows_G = data.draw(st.lists(st.integers(1, rows), min_size=groups, max_size=groups))
    counts_SLE = np.broadcast_to(np.repeat(rows_G, per_group), (2, 3, groups * per_group))
    loads = rank_loads(counts_SLE, place(groups, per_group, ranks, "all_size"), widths, d_model=7)
    assert (*views(loads.rows), *views(loads.flops), loads.parameters_imbalance) == (1,) * 7


def test_counts_of_the_largest_models_do_not_overflow():
    counts_SLE = np.full((1, 1, 4), 10**14)
    loads = rank_loads(counts_SLE, BY_INDEX, (8192, 16384), d_model=16384)
    assert loads.forward_flops_R == [6 * 16384 * 10**14 * (8192 + 16384)] * 2  # above 2 ** 63


@pytest.fixture
def folder(tmp_path):
    """A run of 200 steps, each tenth recorded; 4 groups of 4 experts, 4 layers."""
    return write_run(tmp_path / "run", "arch=mohge")


@pytest.mark.parametrize(
    ("last", "first_step"), [(0.1, 190), (0.05, 200), (0.11, 180), (0.5, 110), (1, 10), (1e-9, 200)]
)
def test_the_last_share_of_the_steps_is_looked_at(folder, last, first_step):
    recording = read_recording(folder, last)
    assert recording.steps_S == list(range(first_step, 201, 10))
    assert recording.tokens == 200 * 4096
    lines = [json.loads(line) for line in (folder / "routing_steps.jsonl").read_text().splitlines()]
    expected = [line["expert_counts"] for line in lines if line["step"] >= first_step]
    assert recording.counts_SLE.tolist() == expected


def test_a_line_cut_short_by_a_running_run_is_left_out(folder):
    path = folder / "routing_steps.jsonl"
    path.write_text(path.read_text() + '{"step": 210, "tokens": 860160, "expert_cou')
    assert read_recording(folder, 0.1).steps_S == [190, 200]


def test_a_replay_holds_every_placement_of_the_experts_recorded(folder):
    replay = replay_run(folder, ranks=8, last=0.5)
    assert tuple(replay.loads) == PLACEMENTS
    config = replay.recording.config
    for loads in replay.loads.values():
        assert sum(loads.rows_R) == 10 * config.model.layers * 4096 * config.router.expert_top_k
        assert sum(loads.parameters_R) == count_parameters(config).routed_experts
    assert replay.loads["contiguous"].parameters_imbalance == pytest.approx(144 / 96)
    assert replay.loads["all_size"].parameters_imbalance == 1


def test_placements_that_only_name_ranks_differently_are_told(folder):
    """Two experts per rank are one pair under all_size too."""
    assert replay_run(folder, ranks=8, last=0.1).alike() == [["all_size", "pairs"]]
    assert replay_run(folder, ranks=4, last=0.1).alike() == []
    assert replay_run(folder, ranks=16, last=0.1).alike() == [list(PLACEMENTS)]


def test_one_rank_has_all_under_every_placement(folder):
    for loads in replay_run(folder, ranks=1, last=0.1).loads.values():
        assert loads.flops_share_R == [1]
        assert views(loads.flops) == (1, 1, 1)


def test_a_run_of_many_ranks_is_replayed_where_they_are_not(folder, monkeypatch):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["parallel"] |= {"name": "fsdp", "dp_shard": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert replay_run(folder, ranks=8, last=0.1).recording.config.parallel.name == "fsdp"


def drop_recording(folder):
    (folder / "routing_steps.jsonl").unlink()


def empty_recording(folder):
    (folder / "routing_steps.jsonl").write_text("")


def half_a_line(folder):
    (folder / "routing_steps.jsonl").write_text('{"step": 10, "tok')


def damaged_line(folder):
    path = folder / "routing_steps.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:-1], lines[-2][40:], lines[-1]]))


def other_layers(folder):
    path = folder / "routing_steps.jsonl"
    path.write_text(json.dumps({"step": 10, "tokens": 1, "expert_counts": [[1] * 16]}) + "\n")


def lost_row(folder):
    line = {"step": 10, "tokens": 1, "expert_counts": [*[[1] * 16] * 3, [1] * 15 + [0]]}
    (folder / "routing_steps.jsonl").write_text(json.dumps(line) + "\n")


def no_run(folder):
    (folder / "config.yaml").unlink()


def other_version(folder):
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("widths", "wydths"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (drop_recording, r"routing_steps\.jsonl holds no counts: .*resume=.*run callbacks=default"),
        (empty_recording, r"routing_steps\.jsonl holds no counts: let the run reach a logged step"),
        (half_a_line, r"routing_steps\.jsonl holds no counts: let the run reach a logged step"),
        (damaged_line, r"routing_steps\.jsonl is damaged"),
        (other_layers, r"routing_steps\.jsonl \(step 10\) has no counts of 4 layers x 16 experts"),
        (lost_row, r"\(step 10\) lost tokens, its layers computed \[16, 16, 16, 15\] rows"),
        (no_run, r"run holds no run \(config\.yaml is missing\): give the folder"),
        (other_version, r"config\.yaml does not fit this version"),
    ],
)
def test_a_folder_without_a_usable_recording_is_refused(folder, spoil, sentence):
    spoil(folder)
    with pytest.raises(UserError, match=sentence):
        replay_run(folder, ranks=8, last=0.1)


def test_a_dense_run_is_refused(tmp_path):
    folder = write_run(tmp_path / "dense", "arch=dense")
    with pytest.raises(UserError, match=r"dense is a run of arch=dense, which routes nothing: give"):
        replay_run(folder, ranks=8, last=0.1)


def test_a_comparison_is_refused_with_its_runs(tmp_path):
    folder = write_run(tmp_path / "all", "experiment=compare")
    with pytest.raises(UserError, match=r"several runs: give the folder of one, .*all/moe, .*all/mohge, "):
        replay_run(folder, ranks=8, last=0.1)


def test_ranks_that_do_not_divide_the_experts_are_refused(folder):
    with pytest.raises(UserError, match=r"^ranks=3 does not fit .*run: 16 experts .*use one of 1, 2, 4, 8"):
        replay_run(folder, ranks=3, last=0.1)


@pytest.mark.parametrize("ranks", [8, 16])
def test_the_tables_fit_a_terminal_and_show_what_a_person_asks(folder, ranks):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render(replay_run(folder, ranks, last=0.1)))
    text = console.export_text()
    assert "…" not in text
    even = f"even {100 / ranks:.2f} {100 / ranks:.2f} {100 / ranks:.2f}"
    assert even in " ".join(text.split())
    for words in (*PLACEMENTS, f"nano · mohge on {ranks} ranks", "2 recorded steps, 190 to 200"):
        assert words in text


def test_the_command_prints_one_object_and_writes_it(folder):
    arguments = ["replay=run", "ranks=8", "last=0.2", "format=json", "output=replay.json"]
    finished = run_command("mohge-plan", arguments, folder.parent)
    assert finished.stderr == ""
    result = json.loads(finished.stdout)
    assert result == json.loads((folder.parent / "replay.json").read_text())
    assert result["steps"] == {"first": 170, "last": 200, "recorded": 4}
    assert (result["run"], result["arch"], result["ranks"], result["experts"]) == ("run", "mohge", 8, 16)
    assert list(result["placements"]) == list(PLACEMENTS)
    all_size = result["placements"]["all_size"]
    assert all_size["max_over_mean"].keys() == {"flops", "rows", "parameters"}
    assert all_size["max_over_mean"]["flops"].keys() == {"overall", "per_step", "per_layer"}
    assert {name: len(values) for name, values in all_size["per_rank"].items()} == dict.fromkeys(
        ("flops_share", "forward_flops", "rows", "parameters", "expert_ids"), 8
    )
    assert max(all_size["per_rank"]["flops_share"]) * 8 == pytest.approx(
        all_size["max_over_mean"]["flops"]["overall"]
    )


def test_the_model_of_the_command_line_is_ignored(folder):
    plain, other = (
        run_command("mohge-plan", ["replay=run", "format=json", *more], folder.parent)
        for more in ([], ["model=tiny", "arch=moe"])
    )
    assert plain.status == other.status == 0
    assert plain.stdout == other.stdout


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["replay=nowhere"], ["nowhere holds no run", "give the folder"]),
        (["replay=run", "ranks=5"], ["ranks=5 does not fit run", "use one of 1, 2, 4, 8, 16"]),
        (["replay=run", "ranks=0"], ["ranks=0 is not valid", "greater than 0"]),
        (["replay=run", "last=0"], ["last=0 is not valid", "greater than 0"]),
        (["replay=run", "last=1.5"], ["last=1.5 is not valid", "less than or equal to 1"]),
    ],
)
def test_wrong_input_is_one_sentence(folder, arguments, fragments):
    assert_refused(run_command("mohge-plan", arguments, folder.parent), fragments)
