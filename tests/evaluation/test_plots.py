"""What the pictures show, read back from the figures. That they look right is for eyes."""

import json

import numpy as np
import pytest
from fabricated_runs import write_run

from evaluation.plots import coactivation, draw_all, expert_load, group_shares, loss_curves
from evaluation.run_data import read_run


@pytest.fixture
def mohge(tmp_path):
    return read_run("mohge", write_run(tmp_path / "mohge", "arch=mohge"))


@pytest.fixture
def moe(tmp_path):
    return read_run("moe", write_run(tmp_path / "moe", "arch=moe"))


def test_loss_curves_show_each_run_over_tokens(mohge, moe):
    training, validation = loss_curves([mohge, moe]).axes
    assert "nats per token" in training.get_ylabel()
    assert "bits per byte" in validation.get_ylabel()
    for axes in (training, validation):
        assert axes.get_xlabel() == "training tokens"
        assert [line.get_label() for line in axes.lines] == ["mohge", "moe"]
        assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 2
    np.testing.assert_allclose(training.lines[0].get_ydata(), mohge.series("train/loss")[1])


def test_group_shares_start_at_zero_and_add_up(mohge):
    (axes,) = group_shares([mohge]).axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    widths = ["width 48", "width 80", "width 112", "width 144"]
    np.testing.assert_allclose(np.sum([lines[width] for width in widths], axis=0), 1)
    np.testing.assert_allclose(lines["even share (25.0%)"], 0.25)
    assert axes.get_ylim()[0] == 0


@pytest.mark.parametrize("runs", [2, 3])
def test_panels_without_a_run_are_empty(mohge, runs):
    figure = group_shares([mohge] * runs)
    assert [axes.axison for axes in figure.axes] == [True] * runs + [False] * (runs % 2)


def test_expert_load_is_relative_to_the_mean_of_the_layer(mohge, moe):
    figure = expert_load([mohge, moe])
    panels = figure.axes[:2]
    for axes, run in zip(panels, (mohge, moe), strict=True):
        load_LE = axes.images[0].get_array()
        assert load_LE.shape == (run.config.model.layers, run.config.experts.num_experts)
        np.testing.assert_allclose(load_LE.mean(axis=1), 1)
        assert axes.images[0].norm.vcenter == 1
    assert panels[0].images[0].norm is panels[1].images[0].norm
    labels = [label.get_text() for label in panels[0].get_xticklabels()]
    assert labels == ["width 48", "width 80", "width 112", "width 144"]


def test_experts_without_tokens_are_marked(mohge):
    mohge.routing[-1]["expert_counts"][2][5] = 0
    axes = expert_load([mohge]).axes[0]
    marks = next(line for line in axes.lines if line.get_marker() == "x")
    assert list(zip(*marks.get_data(), strict=True)) == [(5, 2)]


def test_only_what_there_is_to_show_is_drawn(mohge, moe, tmp_path):
    dense = read_run("dense", write_run(tmp_path / "dense", "arch=dense"))
    names = {
        "dense": [path.name for path in draw_all([dense], tmp_path / "1")],
        "moe": [path.name for path in draw_all([moe, dense], tmp_path / "2")],
        "all": [path.name for path in draw_all([mohge, moe, dense], tmp_path / "3")],
    }
    assert names == {
        "dense": ["loss_curves.png"],
        "moe": ["loss_curves.png", "expert_load.png"],
        "all": ["loss_curves.png", "group_shares.png", "expert_load.png"],
    }


def test_a_run_of_one_record_can_be_drawn(tmp_path):
    folder = write_run(tmp_path / "short", "arch=mohge", steps=10)
    row = json.loads((folder / "metrics.jsonl").read_text())
    (folder / "routing.jsonl").write_text("")
    assert row["step"] == 10
    assert [path.name for path in draw_all([read_run("short", folder)], tmp_path / "plots")] == [
        "loss_curves.png",
        "group_shares.png",
    ]


def test_coactivation_is_relative_to_chance(mohge):
    layers, experts = mohge.config.model.layers, mohge.config.experts.num_experts
    top_k = mohge.config.router.expert_top_k
    counts_EE = np.full((experts, experts), 2.0)
    np.fill_diagonal(counts_EE, 8)
    counts_EE[0, 1] = counts_EE[1, 0] = 4
    counts_EE[5] = counts_EE[:, 5] = 0
    assert (experts, top_k) == (16, 4)
    mohge.routing[-1]["coactivation"] = [counts_EE.tolist()] * layers
    panel, *others = coactivation(mohge).axes[:layers]
    assert len(others) == layers - 1
    ratio_EE = np.ma.filled(panel.images[0].get_array(), np.nan)
    by_chance = 8 * 8 / (15 * 8 / 4)
    np.testing.assert_allclose(ratio_EE[2, 3], 2 / by_chance)
    np.testing.assert_allclose(ratio_EE[0, 1], 4 / by_chance)
    assert np.isnan(ratio_EE.diagonal()).all()
    assert np.isnan(ratio_EE[5]).all(), "an idle expert"
