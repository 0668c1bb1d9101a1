"""Routers whose class the configuration names: `router._target_`."""

import pytest
import torch
from torch import nn

from mohge.config.load import as_dict, typed
from mohge.config.schema import ExpertsConfig, RouterConfig, TrainConfig
from mohge.errors import UserError
from mohge.model.transformer import build_model
from mohge.moe.routers import TopKRouter, TwoLevelRouter, build_router
from tests.composing import composed

EXPERTS = ExpertsConfig(widths=(8, 16, 24), per_group=2)


class Own(TopKRouter):
    pass


class OwnTwoLevel(TwoLevelRouter):
    pass


class NoRouter(nn.Module):
    def __init__(self, *arguments: object) -> None:
        super().__init__()


class WithOneMore(TopKRouter):
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.scale = nn.Parameter(torch.ones(1))


def of(kind: str, name: str) -> RouterConfig:
    groups = 2 if kind == "two_level" else None
    return RouterConfig(kind=kind, group_top_k=groups, expert_top_k=2, target=f"{__name__}.{name}")  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "own"), [("top_k", Own), ("two_level", OwnTwoLevel)])
def test_the_named_class_is_built(kind: str, own: type[nn.Module]) -> None:
    assert type(build_router(of(kind, own.__name__), EXPERTS, 16)) is own


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("top_k", "Nothing", r"router\._target_=.*Nothing cannot be imported"),
        ("top_k", "EXPERTS", "EXPERTS is no TopKRouter"),
        ("top_k", "NoRouter", "is no TopKRouter, as router.kind=top_k needs: derive the class from"),
        ("two_level", "Own", "is no TwoLevelRouter"),
        ("top_k", "WithOneMore", "has 97 weights, and budgets count the 96 of router.kind=top_k"),
    ],
)
def test_a_class_that_cannot_serve_is_named(kind: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_router(of(kind, name), EXPERTS, 16)


def test_where_python_looks_is_told() -> None:
    """Of a checkpoint whose class lies in a folder of the user's own, in a new shell."""
    config = RouterConfig(kind="top_k", expert_top_k=2, target="not_on_the_path.Own")
    with pytest.raises(UserError, match=r"No module named 'not_on_the_path'.*put its folder on PYTHONPATH"):
        build_router(config, EXPERTS, 16)


def test_every_layer_has_it_and_a_stored_configuration_keeps_it() -> None:
    config = typed(TrainConfig, composed("model=nano", "arch=moe", f"router._target_={__name__}.Own"))
    assert config.router.target == f"{__name__}.Own"
    with torch.device("meta"):
        model = build_model(config)
    assert sum(isinstance(module, Own) for module in model.modules()) == config.model.layers
    assert typed(TrainConfig, as_dict(config)) == config


def test_a_configuration_that_was_stored_before_the_key_existed_is_read() -> None:
    stored = as_dict(typed(TrainConfig, composed("model=nano")))
    assert stored["router"].pop("_target_", "absent") is None
    assert typed(TrainConfig, stored).router.target is None


def test_a_dense_model_has_no_router_to_replace() -> None:
    with pytest.raises(UserError, match=r"router\._target_=a\.B routes nothing with router\.kind=none"):
        typed(TrainConfig, composed("arch=dense", "router._target_=a.B"))
