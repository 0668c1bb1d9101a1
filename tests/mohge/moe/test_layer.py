"""The whole layer against a direct transcription of its formula, and its kernels against each other."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels_here import KERNELS_HERE
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mohge.config.schema import ExpertsConfig, Kernel, RouterConfig
from mohge.moe.decision import RoutingDecision
from mohge.moe.dispatch import sort_rows
from mohge.moe.experts import Experts
from mohge.moe.layer import MoELayer
from mohge.moe.routers import top_k_route

D = 16
POOL = ExpertsConfig(widths=(16, 32, 48), per_group=2, shared=2, shared_width=8, kernel="loop")
ROUTERS = [
    RouterConfig(kind="two_level", group_top_k=2, expert_top_k=3, group_score="sigmoid"),
    RouterConfig(kind="two_level", group_top_k=1, expert_top_k=1, expert_weighting="post_softmax"),
    RouterConfig(kind="top_k", expert_top_k=2),
    RouterConfig(kind="top_k", expert_top_k=6),
]
routers = pytest.mark.parametrize("router", ROUTERS, ids=lambda r: f"{r.kind}-{r.expert_top_k}")


def build(router: RouterConfig, kernel: Kernel = "loop", pool: ExpertsConfig = POOL) -> MoELayer:
    torch.manual_seed(0)
    return MoELayer(D, dataclasses.replace(pool, kernel=kernel), router)


def tokens(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(*shape, D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def by_formula(layer: MoELayer, x_TD: Tensor, decision: RoutingDecision) -> Tensor:
    """Every expert on every token, weighted by the dense weights; shared experts on top."""
    y_TD = torch.zeros_like(x_TD)
    for e in range(decision.num_experts):
        g, n = divmod(e, decision.experts_per_group)
        gate, up = layer.get_parameter(f"experts.groups.{g}.gate_up")[n].chunk(2)
        down = layer.get_parameter(f"experts.groups.{g}.down")[n]
        y_e_TD = (torch.nn.functional.silu(x_TD @ gate.t()) * (x_TD @ up.t())) @ down.t()
        y_TD = y_TD + decision.expert_weights_TE[:, e : e + 1] * y_e_TD
    return y_TD if layer.shared is None else y_TD + layer.shared(x_TD)


def gradients(layer: MoELayer, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Of a random projection of y, with respect to x and all parameters; zero for those without a part."""
    names = ["x", *(name for name, _ in layer.named_parameters())]
    sources = [x, *layer.parameters()]
    projection = (y.float() * torch.randn(y.shape, generator=torch.Generator().manual_seed(9))).sum()
    found = torch.autograd.grad(projection, sources, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def assert_all_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(
            actual[name], expected[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@routers
@pytest.mark.parametrize("kernel", KERNELS_HERE)
def test_layer_is_its_formula(router: RouterConfig, kernel: Kernel) -> None:
    layer, x = build(router, kernel), tokens(3, 7)
    y, decision = layer(x)
    assert y.shape == x.shape
    assert decision.num_tokens == 21
    x_TD = x.view(21, D)
    expected = by_formula(layer, x_TD, layer.route(x_TD)).view_as(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    assert_all_close(gradients(layer, x, y), gradients(layer, x, expected))


def decision_of(ids_TK: Tensor, weights_TK: Tensor) -> RoutingDecision:
    """A decision with these choices, however improbable; all that the experts read of one."""
    T = ids_TK.shape[0]
    anything = top_k_route(torch.zeros(T, 6), num_groups=3, expert_top_k=ids_TK.shape[1])
    return dataclasses.replace(anything, expert_ids_TK=ids_TK, weights_TK=weights_TK)


@st.composite
def choices(draw: st.DrawFn) -> list[list[int]]:
    """Ids (T, K): random, from few experts so that others stay empty, or all on the same."""
    pool = draw(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
    top_k = draw(st.integers(1, len(pool)))
    rows = st.permutations(pool).map(lambda order: order[:top_k])
    return draw(st.lists(rows, min_size=1, max_size=30))


@settings(deadline=None)
@given(ids=choices())
def test_kernels_agree_for_any_routing(ids: list[list[int]]) -> None:
    ids_TK = torch.tensor(ids)
    weights_TK = torch.rand(ids_TK.shape, generator=torch.Generator().manual_seed(3)).requires_grad_()
    x, results = tokens(len(ids)), []
    for kernel in KERNELS_HERE:
        layer = build(ROUTERS[2], kernel)
        y = layer.compute(x, decision_of(ids_TK, weights_TK))
        (by_weight,) = torch.autograd.grad(y.sum(), weights_TK, retain_graph=True)
        results.append({"y": y, "weights": by_weight} | gradients(layer, x, y))
    for result in results[1:]:
        assert_all_close(result, results[0])


@pytest.mark.parametrize("kernel", ["loop", "fused"])
def test_gradients_are_those_of_finite_differences(kernel: Kernel) -> None:
    layer = build(ROUTERS[0], kernel).double()
    x_TD = tokens(4, dtype=torch.float64)
    ids_TK = torch.tensor([[0, 3], [3, 5], [1, 0], [5, 3]])
    weights_TK = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)
    parameters = [*layer.experts.parameters(), *layer.get_submodule("shared").parameters()]

    def output(x: Tensor, weights: Tensor, *_: Tensor) -> Tensor:
        return layer.compute(x, decision_of(ids_TK, weights))

    assert torch.autograd.gradcheck(output, (x_TD, weights_TK, *parameters), fast_mode=True)


def test_rows_are_sorted_by_expert_and_none_is_lost() -> None:
    rows = sort_rows(decision_of(torch.tensor([[4, 1], [1, 0], [4, 5]]), torch.full((3, 2), 0.5)))
    assert rows.counts_E.tolist() == [1, 2, 0, 0, 2, 1]
    assert rows.token_R.tolist() == [1, 0, 1, 0, 2, 2]
    assert rows.row_TK.tolist() == [[3, 1], [2, 0], [4, 5]]


@routers
def test_recomputing_with_the_decision_kept_changes_nothing(router: RouterConfig) -> None:
    layer, x = build(router, "grouped"), tokens(2, 6)
    y, _ = layer(x)
    decision = layer.route(x)
    recomputed = checkpoint(layer.compute, x, decision, use_reentrant=False)
    assert torch.equal(recomputed, y)
    first, second = gradients(layer, x, y), gradients(layer, x, recomputed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_decision_may_leave_a_recomputed_region() -> None:
    """It keeps its gradient: of weights, logits and the dense views."""
    layer, x = build(ROUTERS[0]), tokens(9)
    results = []
    for decision in (layer.route(x), checkpoint(layer.route, x, use_reentrant=False)):
        loss = (decision.expert_weights_TE * decision.joint_probability_TE).sum()
        results.append({"loss": loss} | gradients(layer, x, loss))
    for result in results[1:]:
        assert_all_close(result, results[0])


@pytest.mark.parametrize("kernel", KERNELS_HERE)
def test_bfloat16_autocast_is_near_float32_and_decides_the_same(kernel: Kernel) -> None:
    layer, x = build(ROUTERS[0], kernel), tokens(40)
    y, decision = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, same = layer(x)
    assert torch.equal(same.expert_ids_TK, decision.expert_ids_TK)
    assert (rounded.float() - y).norm() / y.norm() < 0.02
    exact = gradients(layer, x, y)
    for name, gradient in gradients(layer, x, rounded).items():
        assert gradient.dtype == torch.float32
        assert (gradient - exact[name]).norm() / exact[name].norm() < 0.03, name


def test_without_shared_experts() -> None:
    layer = build(ROUTERS[0], pool=dataclasses.replace(POOL, shared=0))
    assert layer.shared is None
    x = tokens(5)
    y, decision = layer(x)
    torch.testing.assert_close(y, by_formula(layer, x, decision), rtol=1e-5, atol=1e-5)


def test_submodules() -> None:
    layer = build(ROUTERS[0])
    assert isinstance(layer.experts, Experts)
    names = {name for name, _ in layer.named_parameters()}
    assert names == {
        "router.group_weight",
        "router.expert_weight",
        "shared.gate_up.weight",
        "shared.down.weight",
    } | {f"experts.groups.{g}.{name}" for g in range(3) for name in ("gate_up", "down")}


def test_refuses_a_pool_without_experts() -> None:
    with pytest.raises(ValueError, match=r"experts\.widths"):
        MoELayer(D, ExpertsConfig(shared=1, shared_width=8), ROUTERS[0])
    with pytest.raises(ValueError, match=r"router\.kind=none"):
        MoELayer(D, POOL, RouterConfig(kind="none"))


def test_builds_on_the_meta_device() -> None:
    with torch.device("meta"):
        layer = build(ROUTERS[0], "grouped")
    assert all(parameter.is_meta for parameter in layer.parameters())
