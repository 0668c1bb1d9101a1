"""Each rule on made-up records: what it is about raises one alarm, once, and nothing else does."""

import json

import pytest
from fabricated_runs import train_config, write_run

from callbacks.alarm_rules import AWAY, IN_A_ROW, SETTLING, SPIKE_HISTORY, AlarmRules

WARMUP = 5
CALM = {
    "train/loss": 3.0,
    "time/data_share": 0.01,
    "ranks/expert_flops_max_over_mean": 1.05,
    "routing/max_violation": 0.4,
    "routing/expert_entropy": 0.97,
    "routing/dead_experts": 0.0,
}


@pytest.fixture(scope="module")
def config():
    """Nano MoHGE: 4 groups of 4 experts, of which a token takes 4, in 4 layers."""
    config = train_config("arch=mohge")
    assert (config.experts.num_experts, config.router.expert_top_k, config.model.layers) == (16, 4, 4)
    return config


class Records:
    """Feeds rules with records of consecutive steps, from one on where routing has settled."""

    def __init__(self, config, warmup_steps=WARMUP, start=WARMUP + SETTLING):
        self.rules = AlarmRules(config, warmup_steps)
        self.step = start

    def feed(self, number, **changes):
        """So many records that differ from a calm run's; the alarms that they raise."""
        alarms = []
        for _ in range(number):
            self.step += 1
            # No two losses are equal: nobody's are.
            record = {"step": self.step, "tokens": self.step * 100, **CALM}
            record["train/loss"] += 0.01 * (self.step % 3)
            alarms += self.rules.feed(record | {name.replace("__", "/"): v for name, v in changes.items()})
        return alarms


LASTING = {
    "loader_stall": ({"time__data_share": 0.4}, ["40%", "raise data.workers (0)"]),
    "rank_imbalance": (
        {"ranks__expert_flops_max_over_mean": 1.31},
        ["1.31 times the mean", "raise loss.intra_weight (0.1)", "parallel.placement"],
    ),
    "idle_experts": (
        {"routing__dead_experts": 3.0},
        ["3 of 64 experts got no token", "raise loss.intra_weight (0.1)", "optim.warmup_fraction (0.05)"],
    ),
    # 16 experts, 4 of which a token takes: at most 4 times the mean.
    "collapse": (
        {"routing__max_violation": 2.8},
        ["3.8 times the mean load, where 4.0", "raise loss.intra_weight (0.1)", "optim.lr (0.001)"],
    ),
}


@pytest.mark.parametrize("kind", LASTING)
def test_what_lasts_is_told_once_with_its_remedy(config, kind):
    records = Records(config)
    changes, words = LASTING[kind]
    assert records.feed(20) == []
    assert records.feed(IN_A_ROW - 1, **changes) == []
    (alarm,) = records.feed(100, **changes)
    step = WARMUP + SETTLING + 20 + IN_A_ROW
    assert (alarm.kind, alarm.step, alarm.tokens) == (kind, step, step * 100)
    for word in words:
        assert word in alarm.text


@pytest.mark.parametrize("kind", LASTING)
def test_what_comes_back_is_told_again_only_if_it_was_away(config, kind):
    records = Records(config)
    changes, _ = LASTING[kind]
    assert len(records.feed(IN_A_ROW, **changes)) == 1
    for _ in range(3):
        assert records.feed(AWAY - 1) == []
        assert records.feed(IN_A_ROW, **changes) == []
    assert records.feed(AWAY) == []
    assert len(records.feed(IN_A_ROW, **changes)) == 1


@pytest.mark.parametrize("kind", LASTING)
def test_what_passes_is_not_told(config, kind):
    records = Records(config)
    changes, _ = LASTING[kind]
    for _ in range(10):
        assert records.feed(IN_A_ROW - 1, **changes) == []
        assert records.feed(1) == []


@pytest.mark.parametrize("kind", ["rank_imbalance", "idle_experts", "collapse"])
def test_routing_has_time_to_settle(config, kind):
    records = Records(config, start=0)
    changes, _ = LASTING[kind]
    assert records.feed(WARMUP + SETTLING, **changes) == []
    assert records.feed(IN_A_ROW - 1, **changes) == []
    assert len(records.feed(1, **changes)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"time__data_share": 0.1},
        {"ranks__expert_flops_max_over_mean": 1.2},
        {"routing__max_violation": 2.69},  # the bound is 3
        {"routing__expert_entropy": 0.56},  # the bound is log 4 / log 16, a half
        {"train__loss": 3.1},
    ],
)
def test_what_is_within_bounds_is_no_alarm(config, changes):
    assert Records(config).feed(100, **changes) == []


def test_experts_that_share_all_tokens_are_a_collapse_although_none_is_at_the_bound(config):
    (alarm,) = Records(config).feed(100, routing__expert_entropy=0.54)
    assert alarm.kind == "collapse"


def test_a_spike_is_told_at_once(config):
    records = Records(config)
    assert records.feed(40) == []
    (alarm,) = records.feed(1, train__loss=4.5)
    assert (alarm.kind, alarm.step) == ("loss_spike", WARMUP + SETTLING + 41)
    for word in ("train/loss is 4.500", "is 3.010", "optim.lr (0.001)", "trainer.clip (1.0)"):
        assert word in alarm.text
    assert records.feed(1, train__loss=4.5) == []
    assert records.feed(AWAY) == []
    assert len(records.feed(1, train__loss=4.5)) == 1


@pytest.mark.parametrize(("loss", "alarms"), [(7.4, 0), (7.5, 1)])
def test_a_noisy_loss_needs_a_higher_spike(config, loss, alarms):
    """Median 3, absolute deviations 0.25 and 0.75, whose median is 0.5: a spike is above 3 + 6 x 0.7413."""
    records = Records(config)
    for _ in range(10):
        for noisy in (2.25, 2.75, 3.25, 3.75):
            assert records.feed(1, train__loss=noisy) == []
    assert len(records.feed(1, train__loss=loss)) == alarms


def test_the_loss_may_do_as_it_likes_in_warm_up_and_until_enough_is_known(config):
    records = Records(config, warmup_steps=50, start=0)
    for loss in (11.0, 3.0) * 25:
        assert records.feed(1, train__loss=loss) == []
    assert records.feed(SPIKE_HISTORY - 1) == []
    assert records.feed(1, train__loss=11.0) == []
    assert len(records.feed(1, train__loss=11.0)) == 1


def test_a_standard_moe_is_told_of_its_own_loss():
    records = Records(train_config("arch=moe"))
    (alarm,) = records.feed(IN_A_ROW, routing__dead_experts=1.0)
    assert "raise loss.balance_weight (0.003)" in alarm.text


def test_a_dense_model_and_missing_metrics_raise_nothing():
    rules = AlarmRules(train_config("arch=dense"), 0)
    for step in range(1, 50):
        assert rules.feed({"step": step, "tokens": step, "train/loss": 3.0 + step % 2 / 100}) == []


def test_a_record_without_the_metric_changes_nothing(config):
    records = Records(config)
    assert records.feed(IN_A_ROW - 1, routing__dead_experts=1.0) == []
    records.rules.feed({"step": 200, "tokens": 200, "train/loss": 3.0})
    assert len(records.feed(1, routing__dead_experts=1.0)) == 1


def test_few_tokens_among_many_experts_leave_some_idle_by_chance():
    """One sequence of 32 tokens: 8 rows for each of 16 experts, of which 64 x e^-8 = 0.02 are missed."""
    few = train_config("arch=mohge", "data.batch_sequences=1", "data.context=32")
    assert Records(few).feed(50, routing__dead_experts=2.0) == []
    more = train_config("arch=mohge", "data.batch_sequences=2", "data.context=32")
    assert len(Records(more).feed(50, routing__dead_experts=2.0)) == 1


def test_the_same_records_raise_the_same_alarms(config, tmp_path):
    """A run's own file, with idle experts and a spike planted, fed once and again."""
    run = write_run(tmp_path / "run", steps=600)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) | {"routing/dead_experts": 2.0 * (n > 30)} for n, line in enumerate(lines)]
    records[50]["train/loss"] = 9.0
    rules = AlarmRules(config, 30), AlarmRules(config, 30)
    once, again = ([alarm for record in records for alarm in each.feed(record)] for each in rules)
    assert [(alarm.kind, alarm.step) for alarm in once] == [("idle_experts", 360), ("loss_spike", 510)]
    assert once == again
