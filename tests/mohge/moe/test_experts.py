"""The grouped kernel against the loop, the loop against finite differences and the dense network."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mohge.model.feed_forward import SwiGLU
from mohge.moe.dispatch import ExpertRows
from mohge.moe.experts import Experts, Kernel

D = 16
WIDTHS = (8, 24, 32)
N = 3


def build(kernel: Kernel, dtype: torch.dtype = torch.float32) -> Experts:
    torch.manual_seed(0)
    return Experts(D, WIDTHS, N, kernel).to(dtype)


def inputs(counts: Sequence[int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ExpertRows]:
    """As many tokens as rows, each with one expert, of weight 1."""
    generator = torch.Generator().manual_seed(1)
    x_RD = torch.randn(sum(counts), D, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    token_R = torch.arange(sum(counts))
    return x_RD, ExpertRows(
        counts_E=torch.tensor(counts),
        token_R=token_R,
        row_TK=token_R[:, None],
        weights_TK=torch.ones(sum(counts), 1, dtype=dtype),
    )


def outputs_and_gradients(experts: Experts, counts: Sequence[int]) -> dict[str, Tensor]:
    x_RD, rows = inputs(counts)
    y_RD = experts(x_RD, rows)
    weights_RD = torch.randn(y_RD.shape, generator=torch.Generator().manual_seed(2))
    (y_RD.float() * weights_RD).sum().backward()
    gradients = {name: parameter.grad for name, parameter in experts.named_parameters()}
    tensors = {"output": y_RD.detach(), "x": x_RD.grad} | gradients
    assert all(tensor is not None for tensor in tensors.values())
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def test_parameters() -> None:
    shapes = {name: tuple(p.shape) for name, p in build("loop").named_parameters()}
    assert shapes == {
        f"groups.{g}.{name}": shape
        for g, width in enumerate(WIDTHS)
        for name, shape in (("gate_up", (N, 2 * width, D)), ("down", (N, D, width)))
    }


@settings(deadline=None)
@given(counts=st.lists(st.sampled_from([0, 0, 1, 2, 7, 40]), min_size=9, max_size=9).filter(any))
def test_kernels_agree(counts: list[int]) -> None:
    """Any split of rows over the experts: empty experts, empty groups, one row, all rows on one expert."""
    loop = outputs_and_gradients(build("loop"), counts)
    grouped = outputs_and_gradients(build("grouped"), counts)
    assert loop.keys() == grouped.keys()
    for name, expected in loop.items():
        torch.testing.assert_close(
            grouped[name], expected, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kernel", ["loop", "grouped"])
def test_an_expert_without_rows_gets_a_gradient_of_zero(kernel: Kernel) -> None:
    tensors = outputs_and_gradients(build(kernel), [0, 5, 0, 0, 0, 0, 1, 2, 3])
    for g in range(3):
        for name in ("gate_up", "down"):
            gradient = tensors[f"groups.{g}.{name}"]
            has_rows = [bool(gradient[n].abs().sum() > 0) for n in range(N)]
            assert has_rows == [[False, True, False], [False] * 3, [True] * 3][g]


@pytest.mark.parametrize("kernel", ["loop", "grouped"])
def test_each_expert_is_the_dense_network_with_its_weights(kernel: Kernel) -> None:
    experts, counts = build(kernel), [2, 3, 4, 1, 0, 5, 6, 2, 1]
    x_RD, rows = inputs(counts)
    y_by_expert = experts(x_RD, rows).split(counts)
    for e, (x, y) in enumerate(zip(x_RD.split(counts), y_by_expert, strict=True)):
        g, n = divmod(e, N)
        dense = SwiGLU(D, WIDTHS[g])
        weights = {"gate_up.weight": f"groups.{g}.gate_up", "down.weight": f"groups.{g}.down"}
        dense.load_state_dict({key: experts.state_dict()[name][n] for key, name in weights.items()})
        torch.testing.assert_close(y, dense(x))


def test_loop_gradients_are_those_of_finite_differences() -> None:
    experts = build("loop", torch.float64)
    x_RD, rows = inputs([1, 0, 2, 0, 1, 0, 1, 0, 1], torch.float64)
    parameters = tuple(experts.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: experts(x, rows), (x_RD, *parameters), fast_mode=True)


@pytest.mark.parametrize("kernel", ["loop", "grouped"])
@pytest.mark.parametrize("counts", [[4, 0, 1, 7, 2, 0, 0, 0, 3], [0, 0, 0, 0, 1, 0, 0, 0, 0]])
def test_bfloat16_autocast(kernel: Kernel, counts: list[int]) -> None:
    exact = outputs_and_gradients(build("loop"), counts)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = outputs_and_gradients(build(kernel), counts)
    assert rounded["output"].dtype == torch.bfloat16
    for name, expected in exact.items():
        assert rounded[name].dtype == (torch.bfloat16 if name == "output" else torch.float32)
        error = (rounded[name].float() - expected).norm() / expected.norm().clamp_min(1e-9)
        assert error < 0.02, name


@pytest.mark.parametrize("counts", [[0, 0, 0, 0, 6, 0, 0, 0, 0], [1, 0, 0, 0, 1, 2, 0, 0, 1]])
@pytest.mark.parametrize("gradient", ["expanded", "transposed"])
def test_grouped_kernel_takes_tensors_of_any_strides(gradient: str, counts: list[int]) -> None:
    results = []
    for kernel in ("loop", "grouped"):
        x_RD, rows = inputs(counts)
        y_RD = build(kernel)(x_RD.t().contiguous().t(), rows)
        if gradient == "expanded":
            y_RD.sum().backward()
        else:
            y_RD.t().contiguous().mul(torch.arange(float(sum(counts)))).sum().backward()
        results.append(x_RD.grad)
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


def test_grouped_kernel_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"experts.widths in multiples of 4 in torch.float32, and 18 is not"):
        Experts(D, (16, 18), 2, "grouped")
    with pytest.raises(ValueError, match=r"model.d_model in multiples of 4 in torch.float32, and 18 is not"):
        Experts(18, (16,), 2, "grouped")
    with pytest.raises(ValueError, match=r"does not compute in torch.float64; use experts.kernel=loop"):
        build("grouped", torch.float64)(*inputs([1] * 9, torch.float64))
    narrow = Experts(D, (12,), 2, "grouped")
    x_RD, rows = inputs([3, 4])
    narrow(x_RD, rows)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(ValueError, match=r"experts.widths in multiples of 8 in torch.bfloat16, and 12 is not"),
    ):
        narrow(x_RD, rows)


def test_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"experts.kernel=fast is none of loop, grouped"):
        Experts(D, (16,), 2, "fast")  # type: ignore[arg-type]
