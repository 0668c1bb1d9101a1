import json

import pytest
import torch
from fabricated_runs import train_config, write_run
from fake_training import FakeModule, FakeTrainer, train_steps

from callbacks import RoutingCallback
from callbacks.tracking import TrackingLogger
from mohge.budget import budget
from mohge.metrics.counts import RoutingCounts
from mohge.moe.routers import top_k_route, two_level_route
from mohge.training.run_folder import RunFolder
from mohge.training.validation_routing import ValidationRouting


def decisions_of(config, tokens=64, seed=0):
    """Decisions of routers with random logits."""
    experts, router = config.experts, config.router
    generator = torch.Generator().manual_seed(seed)

    def decide():
        expert_logits_TE = torch.randn(tokens, experts.num_experts, generator=generator)
        if router.kind == "top_k":
            choice = {"num_groups": experts.num_groups, "expert_top_k": router.expert_top_k}
            return top_k_route(expert_logits_TE, expert_weighting="renormalize", **choice)
        group_logits_TG = torch.randn(tokens, experts.num_groups, generator=generator)
        top = {"group_top_k": router.group_top_k, "expert_top_k": router.expert_top_k}
        return two_level_route(group_logits_TG, expert_logits_TE, **top)

    return [decide() for _ in range(config.model.layers)]


def counts_of(config, tokens=64, seed=0):
    counts = RoutingCounts(config.model.layers, config.experts.num_groups, config.experts.per_group)
    counts.add(decisions_of(config, tokens, seed))
    return counts


def validation_of(config, routing=None, seed=0):
    """A validation of two domains, each of which has half of the 64 tokens."""
    routing = routing or ValidationRouting(config, torch.device("cpu"))
    routing.begin(["code", "prose"])
    routing.add(decisions_of(config, seed=seed), torch.arange(64) % 2, batch=0)
    routing.end()
    return routing


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
    assert record["routing/active_parameters_expected"] == active.expected
    assert record["routing/flops_per_token_expected"] == budget(config).flops_per_token.train
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
        module.val_routing = validation_of(config, module.val_routing, seed=step)
        module.record = {}
        callback.on_validation_end(FakeTrainer(global_step=step), module)
        assert ("val/routing/churn" in module.record) == (step == 100), "nothing to compare with at first"
    lines = [json.loads(line) for line in (tmp_path / "routing.jsonl").read_text().splitlines()]
    assert [(line["step"], line["tokens"]) for line in lines] == [(50, 50_000), (100, 100_000)]
    counts, line = module.val_routing.counts, lines[1]
    assert line["expert_counts"] == counts.expert_LE.tolist()
    assert line["group_counts"] == counts.group_LG.tolist()
    assert line["domains"] == ["code", "prose"]
    by_domain_MLE = torch.tensor(line["domain_expert_counts"])
    assert torch.equal(by_domain_MLE.sum(0), counts.expert_LE)
    assert by_domain_MLE.sum((1, 2)).tolist() == [32 * 4 * config.model.layers] * 2
    together_LEE = torch.tensor(line["coactivation"])
    assert torch.equal(together_LEE.sum(2), 4 * counts.expert_LE), "each row has the token's 4 experts"
    assert module.record["val/routing/churn"] > 0.9, "random choices hardly repeat"
    assert "val/routing/active_parameters" in module.record


def test_brief_is_at_most_a_dozen_scalars(tmp_path):
    config = train_config("callbacks.routing.tier=brief", "arch=mohge", "model=paper_3b")
    callback = RoutingCallback(config.callbacks.routing, config)
    module = FakeModule(run=RunFolder(tmp_path), step_counts=counts_of(config, tokens=8))
    for _ in train_steps(callback, FakeTrainer(), module, 1, log_every=1):
        module.val_routing = validation_of(config)
        module.val_routing = validation_of(config, module.val_routing, seed=1)
        callback.on_validation_end(FakeTrainer(global_step=1), module)
    of_ranks = 2  # ranks/…, which the module adds where there are several
    assert len(module.record) + of_ranks <= 12
    assert {"routing/max_violation", "routing/dead_experts", "val/routing/churn"} <= module.record.keys()
    assert not (tmp_path / "routing_layers.jsonl").exists()
    assert (tmp_path / "routing_steps.jsonl").exists(), "counts are kept in both tiers"


def test_detailed_keeps_metrics_and_losses_of_each_layer(tmp_path):
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    layers = config.model.layers
    losses = {"aux/intra": [0.5] * layers, "aux_weighted/intra": [0.05] * layers}
    module = FakeModule(run=RunFolder(tmp_path), step_counts=counts_of(config), layer_losses=losses)
    for _ in train_steps(callback, FakeTrainer(), module, 20):
        pass
    lines = [json.loads(line) for line in (tmp_path / "routing_layers.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    line = lines[0]
    load_LE = module.step_counts.expert_LE
    assert line["dead_experts"] == (load_LE == 0).sum(1).tolist()
    assert line["aux/intra"] == losses["aux/intra"]
    assert all(len(values) == layers for name, values in line.items() if name not in ("step", "tokens"))
    assert len(line["rows_share"][0]) == config.experts.num_groups


class Tracking(TrackingLogger):
    """Notes what it is sent."""

    def __init__(self):
        self.sent = []

    def log_folder(self, folder, name):
        self.sent.append((name, sorted(path.name for path in folder.iterdir())))

    def log_file(self, path, folder=None):
        self.sent.append((folder, path.name))


@pytest.mark.parametrize(("tier", "sends"), [("detailed", True), ("brief", False)])
def test_pictures_and_arrays_are_sent_now_and_then(tmp_path, tier, sends):
    tiers = (f"callbacks.routing.tier={tier}", "callbacks.routing.picture_every=100")
    run = RunFolder(write_run(tmp_path / "run", *tiers))
    run.routing_layers_path.write_text("{}\n")
    config = train_config(*tiers)
    callback = RoutingCallback(config.callbacks.routing, config)
    module = FakeModule(run=run, config=config)
    logger = Tracking()
    for step, batch in ((0, 0), (99, 0), (100, 0), (101, 0)):
        callback.on_train_batch_start(FakeTrainer(global_step=step, loggers=[logger]), module, None, batch)
    pictures = ["expert_load.png", "group_shares.png", "loss_curves.png"]
    assert logger.sent == ([("plots", pictures), (None, "routing_layers.jsonl")] if sends else [])


def test_counts_of_all_ranks_are_written_by_the_first_alone(tmp_path):
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    counts = counts_of(config)
    module = FakeModule(run=RunFolder(tmp_path), step_counts=counts, val_routing=validation_of(config))
    trainer = FakeTrainer(is_global_zero=False)
    for _ in train_steps(callback, trainer, module, 1, log_every=1):
        callback.on_validation_end(trainer, module)
    assert {"routing/max_violation", "val/routing/max_violation"} <= module.record.keys()
    assert list(tmp_path.iterdir()) == []


def test_a_sanity_check_leaves_no_trace(tmp_path):
    config = train_config()
    callback = RoutingCallback(config.callbacks.routing, config)
    module = FakeModule(run=RunFolder(tmp_path), val_routing=validation_of(config))
    callback.on_validation_end(FakeTrainer(sanity_checking=True), module)
    assert module.record == {}
    assert not (tmp_path / "routing.jsonl").exists()


def test_a_dense_model_has_no_routing_figures(tmp_path):
    config = train_config("arch=dense")
    callback = RoutingCallback(config.callbacks.routing, config)
    empty = RoutingCounts(config.model.layers, 0, 0)
    module = FakeModule(run=RunFolder(tmp_path), step_counts=empty)
    for _ in train_steps(callback, FakeTrainer(), module, 1, log_every=1):
        pass
    callback.on_validation_end(FakeTrainer(), module)
    assert module.record == {}
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_drawn_of_an_empty_record(tmp_path):
    """A run that was killed before its first checkpoint begins again with empty files."""
    config = train_config("callbacks.routing.picture_every=1")
    callback = RoutingCallback(config.callbacks.routing, config)
    run = RunFolder(tmp_path)
    run.metrics_path.write_text("")
    logger = Tracking()
    trainer = FakeTrainer(global_step=1, loggers=[logger])
    callback.on_train_batch_start(trainer, FakeModule(run=run, config=config), None, 0)
    assert logger.sent == []
