import json

import pytest
import torch
from fabricated_runs import train_config
from fake_training import FakeModule, FakeTrainer, train_steps

from callbacks import RoutingCallback
from mohge.budget import budget
from mohge.moe.routers import top_k_route
from mohge.training.routing_counts import RoutingCounts
from mohge.training.run_folder import RunFolder


def counts_of(config, tokens=64, seed=0):
    """Counts of routers with random logits."""
    experts = config.experts
    generator = torch.Generator().manual_seed(seed)
    counts = RoutingCounts(config.model.layers, experts.num_groups, experts.per_group)
    decisions = [
        top_k_route(
            torch.randn(tokens, experts.num_experts, generator=generator),
            num_groups=experts.num_groups,
            expert_top_k=config.router.expert_top_k,
            expert_weighting="renormalize",
        )
        for _ in range(config.model.layers)
    ]
    counts.add(decisions)
    return counts


def test_a_log_step_records_load_and_active_parameters(tmp_path):
    config = train_config("arch=mohge")
    callback = RoutingCallback(config.callbacks.routing, config)
    counts = counts_of(config)
    module = FakeModule(run=RunFolder(tmp_path), step_counts=counts)
    for _ in train_steps(callback, FakeTrainer(), module, 1, log_every=1):
        pass
    record = module.record
    shares = [record[f"routing/rows_share/group_{g}"] for g in range(config.experts.num_groups)]
    assert sum(shares) == pytest.approx(1)
    # Written out: each row is a pass through 3 matrices of D x W.
    rows_LG = counts.expert_LE.view(config.model.layers, config.experts.num_groups, -1).sum(-1)
    used = sum(
        3 * config.model.d_model * width * int(rows)
        for rows_G in rows_LG
        for rows, width in zip(rows_G, config.experts.widths, strict=True)
    )
    parameters = budget(config).parameters
    always = parameters.total - parameters.routed_experts
    assert record["routing/active_parameters"] == pytest.approx(always + used / 64)
    active = budget(config).active_parameters
    assert active.min <= record["routing/active_parameters"] <= active.max
    assert record["routing/dead_experts"] == int((counts.expert_LE == 0).sum())
    assert record["routing/max_violation"] > 0


def test_equal_widths_use_what_the_budget_expects(tmp_path):
    config = train_config("arch=moe")
    callback = RoutingCallback(config.callbacks.routing, config)
    module = FakeModule(run=RunFolder(tmp_path), step_counts=counts_of(config))
    for _ in train_steps(callback, FakeTrainer(), module, 1, log_every=1):
        pass
    assert module.record["routing/active_parameters"] == budget(config).active_parameters.expected


def test_nothing_is_recorded_between_log_steps(tmp_path):
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    module = FakeModule(run=RunFolder(tmp_path), step_counts=counts_of(config))
    for _ in train_steps(callback, FakeTrainer(), module, 9):
        pass
    assert module.record == {}
    assert list(tmp_path.iterdir()) == []


def test_each_log_step_appends_its_counts_once(tmp_path):
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    module = FakeModule(run=RunFolder(tmp_path))
    taken = []
    trainer = FakeTrainer()
    module.step_counts = counts_of(config)
    for step in train_steps(callback, trainer, module, 25, accumulate=2):
        if step % 10 == 0:
            taken.append(module.step_counts.expert_LE.tolist())
        module.step_counts = counts_of(config, seed=step)
    lines = [json.loads(line) for line in (tmp_path / "routing_steps.jsonl").read_text().splitlines()]
    assert [(line["step"], line["tokens"]) for line in lines] == [(10, 10_000), (20, 20_000)]
    assert [line["expert_counts"] for line in lines] == taken
    assert all(line.keys() == {"step", "tokens", "expert_counts"} for line in lines)


def test_each_validation_appends_its_counts(tmp_path):
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    module = FakeModule(run=RunFolder(tmp_path))
    for step in (50, 100):
        module.val_counts = counts_of(config, seed=step)
        callback.on_validation_end(FakeTrainer(global_step=step), module)
    lines = [json.loads(line) for line in (tmp_path / "routing.jsonl").read_text().splitlines()]
    assert [(line["step"], line["tokens"]) for line in lines] == [(50, 50_000), (100, 100_000)]
    assert lines[1]["expert_counts"] == module.val_counts.expert_LE.tolist()
    assert lines[1]["group_counts"] == module.val_counts.group_LG.tolist()
    assert "val/routing/active_parameters" in module.record


def test_counts_of_all_ranks_are_written_by_the_first_alone(tmp_path):
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    counts = counts_of(config)
    module = FakeModule(run=RunFolder(tmp_path), step_counts=counts, val_counts=counts)
    trainer = FakeTrainer(is_global_zero=False)
    for _ in train_steps(callback, trainer, module, 1, log_every=1):
        callback.on_validation_end(trainer, module)
    assert {"routing/max_violation", "val/routing/max_violation"} <= module.record.keys()
    assert list(tmp_path.iterdir()) == []


def test_a_sanity_check_leaves_no_trace(tmp_path):
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    module = FakeModule(run=RunFolder(tmp_path), val_counts=counts_of(config))
    callback.on_validation_end(FakeTrainer(sanity_checking=True), module)
    assert module.record == {}
    assert not (tmp_path / "routing.jsonl").exists()


def test_a_dense_model_has_no_routing_figures(tmp_path):
    config = train_config("arch=dense")
    callback = RoutingCallback(config.callbacks.routing, config)
    empty = RoutingCounts(config.model.layers, 0, 0)
    module = FakeModule(run=RunFolder(tmp_path), step_counts=empty, val_counts=empty)
    for _ in train_steps(callback, FakeTrainer(), module, 1, log_every=1):
        pass
    callback.on_validation_end(FakeTrainer(), module)
    assert module.record == {}
    assert list(tmp_path.iterdir()) == []


def test_counts_that_lost_a_token_stop_the_run():
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    counts = counts_of(config)
    counts.expert_LE[0, 0] += 1
    with pytest.raises(AssertionError, match="rows per layer"):
        list(train_steps(callback, FakeTrainer(), FakeModule(step_counts=counts), 1, log_every=1))
