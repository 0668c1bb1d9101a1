from __future__ import annotations

import dataclasses
import itertools

import pytest
from composing import composed
from hypothesis import given
from hypothesis import strategies as st

from mohge.config.load import typed
from mohge.config.schema import OptimConfig, TrainConfig
from mohge.model.transformer import build_model
from mohge.training.optimizer import build_optimizer, decay_groups, lr_factor

BASE = OptimConfig(lr=1e-3)
fractions = st.integers(0, 50).map(lambda percent: percent / 100)


def schedules(schedule: str) -> st.SearchStrategy[OptimConfig]:
    return st.builds(
        lambda warmup, decay, final: dataclasses.replace(
            BASE, schedule=schedule, warmup_fraction=warmup, decay_fraction=decay, final_lr=final
        ),
        fractions,
        fractions,
        st.floats(0, 1, allow_subnormal=False),
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("arch", ["mohge", "dense"])
def test_only_matrices_decay_and_each_parameter_is_in_one_group(arch, tied):
    config = typed(TrainConfig, composed(f"arch={arch}", "model.layers=2", f"model.tied_head={tied}"))
    model = build_model(config)
    decayed, plain = decay_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    in_decayed = {names[id(parameter)] for parameter in decayed["params"]}
    in_plain = {names[id(parameter)] for parameter in plain["params"]}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert in_decayed.isdisjoint(in_plain)
    assert in_decayed | in_plain == set(names.values())
    assert in_plain == {name for name in names.values() if "norm" in name or name == "embedding.weight"}
    assert ("head.weight" in in_decayed) == (not tied)


def test_biases_do_not_decay():
    from torch import nn

    decayed, plain = decay_groups(nn.Linear(3, 2), 0.5)
    assert [parameter.ndim for parameter in decayed["params"]] == [2]
    assert [parameter.ndim for parameter in plain["params"]] == [1]


def test_the_optimizer_has_the_configured_settings():
    from torch import nn

    config = dataclasses.replace(BASE, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.3)
    optimizer = build_optimizer(nn.Linear(3, 2), config)
    assert optimizer.defaults["lr"] == 1e-3
    assert optimizer.defaults["betas"] == (0.8, 0.99)
    assert optimizer.defaults["eps"] == 1e-6
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]


@given(config=st.sampled_from(["cosine", "wsd"]).flatmap(schedules), max_steps=st.integers(1, 300))
def test_the_rate_stays_between_nothing_and_its_peak(config, max_steps):
    for step in range(max_steps + 1):
        assert 0 <= lr_factor(step, max_steps, config) <= 1


@given(config=st.sampled_from(["cosine", "wsd"]).flatmap(schedules), max_steps=st.integers(10, 300))
def test_the_last_step_has_the_final_rate(config, max_steps):
    if config.schedule == "wsd" and config.decay_fraction == 0:
        return  # it never falls
    assert lr_factor(max_steps - 1, max_steps, config) == pytest.approx(config.final_lr, abs=1e-9)
    assert lr_factor(max_steps, max_steps, config) == pytest.approx(config.final_lr, abs=1e-9)


@given(config=st.sampled_from(["cosine", "wsd"]).flatmap(schedules))
def test_the_rate_does_not_jump(config):
    """The steepest stretch is the warm-up or the decay; longer runs have smaller steps."""
    max_steps = 1000
    rates = [lr_factor(step, max_steps, config) for step in range(max_steps)]
    steepest = max(abs(after - before) for before, after in itertools.pairwise(rates))
    warmup = max(config.warmup_fraction * max_steps, 1)
    decay = config.decay_fraction * max_steps if config.schedule == "wsd" else 0.5 * max_steps / 1.5708
    assert steepest <= 1 / warmup + 1 / max(decay, 1) + 1e-9


@given(config=st.sampled_from(["cosine", "wsd"]).flatmap(schedules), max_steps=st.integers(1, 300))
def test_the_rate_rises_once_and_then_never_again(config, max_steps):
    rates = [lr_factor(step, max_steps, config) for step in range(max_steps)]
    top = rates.index(max(rates))
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(rates[: top + 1]))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(rates[top:]))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 10 steps: 2 of warm-up, then half a cosine over the other 8, from 1 to 0.2
        ("cosine", [0.5, 1.0, 1.0, 0.9604, 0.8494, 0.6890, 0.5110, 0.3506, 0.2396, 0.2]),
        # 10 steps: 2 of warm-up, 4 flat, 4 linear to 0.2
        ("wsd", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]),
    ],
)
def test_schedules_by_hand(schedule, expected):
    config = dataclasses.replace(
        BASE, schedule=schedule, warmup_fraction=0.2, decay_fraction=0.4, final_lr=0.2
    )
    rates = [lr_factor(step, 10, config) for step in range(10)]
    assert rates == pytest.approx(expected, abs=2e-4)
