"""Weights at the start: by seed and name alone."""

import math

import pytest
import torch

from mohge.config.schema import ExpertsConfig, ModelConfig, RouterConfig
from mohge.model.initialization import initialize
from mohge.model.transformer import TransformerLM

MODEL = ModelConfig(
    name="test", vocab_size=256, context=16, d_model=64, layers=3, heads=4, kv_heads=4, tied_head=False
)
POOL = ExpertsConfig(widths=(32, 64), per_group=4, shared=2, shared_width=32)
ROUTED = RouterConfig(kind="two_level", group_top_k=1, expert_top_k=2)


def build(router: RouterConfig = ROUTED, seed: int = 7) -> TransformerLM:
    model = TransformerLM(MODEL, POOL, router)
    initialize(model, seed)
    return model


def test_construction_and_global_generator_do_not_matter():
    torch.manual_seed(1)
    first = build().state_dict()
    torch.manual_seed(2)
    with torch.device("meta"):
        model = TransformerLM(MODEL, POOL, ROUTED)
    model.to_empty(device="cpu")
    initialize(model, 7)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, first[name]), name


def test_architectures_share_the_weights_they_have_in_common():
    moe, dense = build().state_dict(), build(RouterConfig(kind="none")).state_dict()
    common = {name for name in moe.keys() & dense.keys() if "ffn." not in name}
    assert {"embedding.weight", "head.weight", "blocks.2.attention.output.weight"} <= common
    for name in common:
        assert torch.equal(moe[name], dense[name]), name


def test_every_parameter_has_its_own_weights():
    first, other = build(seed=7), dict(build(seed=8).named_parameters())
    starts = set()
    for name, parameter in first.named_parameters():
        if parameter.dim() > 1:
            assert not torch.equal(parameter, other[name]), name
            starts.add(round(parameter.flatten()[0].item() / parameter.std().item(), 6))
    assert len(starts) == sum(p.dim() > 1 for p in first.parameters())


def test_scales():
    for name, parameter in build().named_parameters():
        if "norm" in name:
            assert (parameter == 1).all(), name
            continue
        residual = "output" in name or "down" in name
        expected = MODEL.init_std / (math.sqrt(2 * MODEL.layers) if residual else 1)
        # Three standard errors of a standard deviation, and a little.
        tolerance = 4 / math.sqrt(2 * parameter.numel())
        assert parameter.std().item() == pytest.approx(expected, rel=tolerance), name
        assert abs(parameter.mean().item()) < 4 * expected / math.sqrt(parameter.numel()), name


def test_a_model_without_storage_is_refused():
    with torch.device("meta"):
        model = TransformerLM(MODEL, POOL, ROUTED)
    with pytest.raises(ValueError, match=r"embedding\.weight is on the meta device: call model\.to_empty"):
        initialize(model, 0)
