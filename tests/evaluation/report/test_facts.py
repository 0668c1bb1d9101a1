"""Figures of runs whose counts are known by hand."""

import json

import numpy as np
import pytest
from fabricated_runs import write_run, write_whole_run

from evaluation.report.answers import answers
from evaluation.report.curves import group_shares, step_shares
from evaluation.report.differences import config_differences, environment_differences, settings_of
from evaluation.report.facts import group_labels, over_seeds, run_facts
from evaluation.report.loads import cost_quality, expert_load
from evaluation.report.ranks import RankBalance, rank_balance, recorded_balance
from evaluation.report.who import analysis_of
from evaluation.run_data import read_run
from mohge.errors import UserError

# Two layers of two groups of two experts; widths 8 and 16.
SMALL = ("model.layers=2", "experts.widths=[8,16]", "experts.per_group=2", "router.group_top_k=1")
SMALL += ("router.expert_top_k=1",)
COUNTS = [[4, 0, 2, 2], [1, 1, 3, 3]]


@pytest.fixture
def small(tmp_path):
    folder = write_whole_run(tmp_path / "small", "arch=mohge", *SMALL)
    for name in ("routing.jsonl", "routing_steps.jsonl"):
        line = {"step": 200, "tokens": 819200, "expert_counts": COUNTS, "group_counts": [[4, 4], [2, 6]]}
        (folder / name).write_text(json.dumps(line) + "\n")
    return read_run("small", folder)


def rows_of(chart):
    return [dict(zip(chart.table.columns, row, strict=True)) for row in chart.table.rows]


def test_facts_of_a_run(small):
    facts = run_facts(small, [{"kind": "collapse"}, {"kind": "collapse"}])
    assert facts["groups"] == [{"width": 8, "share": 6 / 16}, {"width": 16, "share": 10 / 16}]
    assert facts["idle_experts"] == [{"layer": 0, "expert": 1, "width": 8}]
    assert facts["max_violation"] == 1.0  # 4 rows where 2 are the mean
    assert facts["alarms"] == {"collapse": 2}
    assert facts["tokens"] == 819200
    measured = small.last("val/routing/active_parameters")
    expected = small.budget["active_parameters"]["expected"]
    assert facts["active_parameters"] == {"expected": expected, "measured": measured}
    flops = facts["train_flops_per_token"]
    assert flops["measured"] - flops["expected"] == pytest.approx(6 * (measured - expected))


def test_answers_name_experts_groups_and_ranks(small):
    facts = run_facts(small, [])
    said = [one["answer"] for one in answers(small, facts, rank_balance(small, 2), analysis_of(small, 0, ""))]
    assert "Idle: 1 of 8 (2 layers x 4) in the last validation: layer 0 expert 1 (width 8)." in said[0]
    # 100 number tokens all at width 8, 900 others half: (100 + 450) / 1000 of all.
    assert "Width 8 computes the largest share of the rows of numbers, 100.0%, against 55.0%" in said[1]
    # all_size on 2 ranks: experts 0 and 2, experts 1 and 3. FLOPs: 5 * 8 + 5 * 16 = 120, 1 * 8 + 5 * 16 = 88.
    assert said[2].startswith(
        "Nearly: this run had one process; on 2 ranks the busiest would have computed 1.15"
    )
    assert said[3] == "Yes. Rarer tokens go to wider experts: rho = 0.120 (95% interval 0.100 to 0.140)."


def test_directions_of_correlations(small):
    facts = run_facts(small, [])
    analysis = analysis_of(small, 0, "")
    analysis.overall["rarity_correlation"] = {"rho": -0.2, "low": -0.3, "high": -0.1}
    said = [one["answer"] for one in answers(small, facts, None, analysis)]
    assert said[3].startswith("No, the other way round. Rarer tokens go to narrower experts: rho = -0.200")
    analysis.overall["rarity_correlation"] = {"rho": 0.01, "low": -0.02, "high": 0.04}
    said = [one["answer"] for one in answers(small, facts, None, analysis)]
    assert said[3] == "No clear direction: rho = 0.010 (95% interval -0.020 to 0.040) holds 0."
    assert said[2].startswith("Unknown")


def test_without_idle_experts_the_least_used_is_named(small):
    small.routing[-1]["expert_counts"] = [[4, 1, 1, 2], [1, 1, 3, 3]]
    said = answers(small, run_facts(small, []), None, None)[0]["answer"]
    assert said.startswith("None of 8 (2 layers x 4)")
    assert "layer 0 expert 1 (width 8), computed 0.5 times the mean of its layer" in said


def test_a_dense_run_has_one_answer(tmp_path):
    run = read_run("dense", write_run(tmp_path / "dense", "arch=dense", steps=50))
    facts = run_facts(run, [])
    assert facts["idle_experts"] is None
    assert facts["active_parameters"]["measured"] == facts["active_parameters"]["expected"]
    assert rank_balance(run, 8) is None
    assert "dense" in answers(run, facts, None, None)[0]["answer"]


def test_balance_of_recorded_ranks_is_that_of_the_last_tenth():
    lines = [{"step": step, "expert_flops": [100, 100]} for step in range(1, 19)]
    lines += [{"step": 19, "expert_flops": [150, 50]}, {"step": 20, "expert_flops": [130, 70]}]
    balance = recorded_balance("run", lines)
    assert balance.max_over_mean == {"as trained": pytest.approx(1.4)}
    assert balance.shares == {"as trained": [pytest.approx(1.4), pytest.approx(0.6)]}
    assert balance.history_S == [*[1.0] * 18, 1.5, 1.3]
    assert balance.ranks == 2


def test_a_run_that_changed_its_ranks_is_judged_by_the_newest():
    lines = [{"step": 1, "expert_flops": [1, 9]}, {"step": 2, "expert_flops": [1, 1, 1, 1]}]
    assert recorded_balance("run", lines).history_S == [1.0]


def test_ranks_that_do_not_divide_the_experts_are_refused(small):
    with pytest.raises(UserError, match="ranks=3 does not fit"):
        rank_balance(small, 3)


def test_group_shares_are_rows_of_the_group_over_all_rows(small):
    rows = rows_of(group_shares([small], {"small": step_shares(small)}))
    assert [(row["width"], row["share"]) for row in rows] == [("8", 6 / 16), ("16", 10 / 16)]


def test_damaged_counts_of_steps_are_refused(small):
    line = {"step": 10, "tokens": 1, "expert_counts": [[1, 2]]}
    (small.path / "routing_steps.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match="lacks counts of 2 layers x 4 experts"):
        step_shares(small)


def test_the_heatmap_has_the_load_of_each_expert(small):
    rows = rows_of(expert_load([small]))
    assert [row["load"] for row in rows] == [2, 0, 1, 1, 0.5, 0.5, 1.5, 1.5]
    assert [row["rows"] for row in rows] == [4, 0, 2, 2, 1, 1, 3, 3]
    assert [row["label"] for row in rows[:4]] == ["8 · 0", "8 · 1", "16 · 2", "16 · 3"]
    assert [row["first"] for row in rows[:4]] == [0, 0, 1, 0]


def test_cost_and_quality_are_those_of_the_facts(small):
    facts = run_facts(small, [])
    (row,) = rows_of(cost_quality([facts]))
    assert row["train_flops_per_token"] == facts["train_flops_per_token"]["measured"]
    assert row["bits_per_byte"] == small.last("val/bits_per_byte")
    assert cost_quality([facts | {"bits_per_byte": None}]) is None


def fact(arch, seed, bits, tokens=100, lr=1):
    named = {"model": "nano", "arch": arch, "seed": seed, "tokens": tokens, "settings": f"{arch} {lr}"}
    return {**named, "bits_per_byte": bits, "tokens_per_second": 10 * seed}


def test_seeds_have_mean_and_sample_deviation():
    (row,) = over_seeds(
        [fact("mohge", 1, 1.0), fact("mohge", 2, 2.0), fact("mohge", 3, 3.0), fact("moe", 1, 1)]
    )
    assert (row["arch"], row["runs"]) == ("mohge", 3)
    assert row["bits_per_byte"] == {"mean": 2.0, "deviation": 1.0}
    assert row["tokens_per_second"] == {"mean": 20, "deviation": 10}


@pytest.mark.parametrize(
    "other", [fact("mohge", 1, 2.0), fact("mohge", 2, 2.0, tokens=50), fact("mohge", 2, 2.0, lr=8)]
)
def test_runs_that_differ_in_more_than_the_seed_make_no_mean(other):
    assert over_seeds([fact("mohge", 1, 1.0), other]) == []


def test_groups_of_one_width_are_told_apart():
    assert group_labels([8, 16, 16]) == ["8", "16 (group 1)", "16 (group 2)"]


def test_only_keys_that_differ_are_shown(tmp_path):
    runs = [
        read_run(
            name, write_run(tmp_path / name, "arch=mohge", f"seed={seed}", f"paths.run_dir={name}", steps=50)
        )
        for seed, name in enumerate(("one", "two"))
    ]
    found = config_differences(runs)
    assert found.keys == ["seed"]
    assert found.values == {"one": ["0"], "two": ["1"]}


def test_environments_are_compared_key_by_key():
    environments = {"one": {"python": "3.11", "git": {"revision": "a"}}, "two": {"python": "3.11", "git": {}}}
    found = environment_differences(environments)
    assert found.keys == ["git.revision"]
    assert found.values == {"one": ["a"], "two": ["-"]}
    assert found.shared == {"python": "3.11"}


def test_balance_as_json(small):
    balance = rank_balance(small, 2)
    assert isinstance(balance, RankBalance)
    plain = balance.as_dict()
    assert plain["ranks"] == 2
    assert not plain["recorded"]
    np.testing.assert_allclose(plain["load_per_rank"]["all_size"], [120 / 104, 88 / 104])


def test_settings_are_equal_for_runs_that_differ_in_seed_and_folder_alone(tmp_path):
    runs = [
        read_run(str(number), write_run(tmp_path / str(number), "arch=dense", *changes, steps=10))
        for number, changes in enumerate([(), ("seed=2", "paths.output_dir=x"), ("optim.lr=0.5",)])
    ]
    first, second, third = map(settings_of, runs)
    assert first == second != third
