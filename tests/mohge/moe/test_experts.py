"""Each kernel against the loop, the loop against finite differences and the dense network."""

import dataclasses
import warnings
from collections.abc import Sequence
from unittest import mock

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernels_here import KERNELS_HERE
from torch import Tensor

from mohge.config.schema import Kernel
from mohge.model.feed_forward import SwiGLU
from mohge.moe import fused
from mohge.moe.dispatch import ExpertRows
from mohge.moe.experts import Experts
from mohge.moe.kernels import choose_kernel

D = 16
WIDTHS = (16, 48, 32)
N = 3
kernels = pytest.mark.parametrize("kernel", KERNELS_HERE)


def build(kernel: Kernel, dtype: torch.dtype = torch.float32) -> Experts:
    torch.manual_seed(0)
    return Experts(D, WIDTHS, N, kernel).to(dtype)


def inputs(
    counts: Sequence[int], dtype: torch.dtype = torch.float32, d_model: int = D
) -> tuple[Tensor, ExpertRows]:
    """As many tokens as rows, each with one expert, of weight 1."""
    generator = torch.Generator().manual_seed(1)
    x_RD = (
        torch.randn(sum(counts), d_model, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    )
    token_R = torch.arange(sum(counts))
    return x_RD, ExpertRows(
        counts_E=torch.tensor(counts),
        token_R=token_R,
        row_TK=token_R[:, None],
        weights_TK=torch.ones(sum(counts), 1, dtype=dtype),
    )


def outputs_and_gradients(
    experts: Experts, counts: Sequence[int], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    x_RD, rows = inputs(counts, torch.bfloat16, experts.sizes[0])  # values that bfloat16 holds exactly
    x_RD = x_RD.detach().to(dtype).requires_grad_()
    y_RD = experts(x_RD, rows)
    weights_RD = torch.randn(y_RD.shape, generator=torch.Generator().manual_seed(2))
    (y_RD.float() * weights_RD).sum().backward()
    gradients = {name: parameter.grad for name, parameter in experts.named_parameters()}
    tensors = {"output": y_RD.detach(), "x": x_RD.grad} | gradients
    assert all(tensor is not None for tensor in tensors.values())
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def assert_all_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            actual[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_parameters() -> None:
    shapes = {name: tuple(p.shape) for name, p in build("loop").named_parameters()}
    assert shapes == {
        f"groups.{g}.{name}": shape
        for g, width in enumerate(WIDTHS)
        for name, shape in (("gate_up", (N, 2 * width, D)), ("down", (N, D, width)))
    }


@settings(deadline=None)
@example([0] * 9)
@given(counts=st.lists(st.sampled_from([0, 0, 1, 2, 7, 40]), min_size=9, max_size=9))
def test_kernels_agree(counts: list[int]) -> None:
    """Any split of rows over the experts: empty experts and groups, one row, none, all on one expert."""
    expected = outputs_and_gradients(build("loop"), counts)
    for kernel in KERNELS_HERE:
        assert_all_close(outputs_and_gradients(build(kernel), counts), expected)


@kernels
def test_an_expert_without_rows_gets_a_gradient_of_zero(kernel: Kernel) -> None:
    tensors = outputs_and_gradients(build(kernel), [0, 5, 0, 0, 0, 0, 1, 2, 3])
    for g in range(3):
        for name in ("gate_up", "down"):
            gradient = tensors[f"groups.{g}.{name}"]
            has_rows = [bool(gradient[n].abs().sum() > 0) for n in range(N)]
            assert has_rows == [[False, True, False], [False] * 3, [True] * 3][g]


@kernels
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


@pytest.mark.parametrize("kernel", ["loop", "fused"])
def test_gradients_are_those_of_finite_differences(kernel: Kernel) -> None:
    experts = build(kernel, torch.float64)
    x_RD, rows = inputs([1, 0, 2, 0, 1, 0, 1, 0, 1], torch.float64)
    parameters = tuple(experts.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: experts(x, rows), (x_RD, *parameters), fast_mode=True)


@kernels
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


@kernels
@pytest.mark.parametrize("counts", [[0, 0, 0, 0, 6, 0, 0, 0, 0], [1, 0, 0, 0, 1, 2, 0, 0, 1]])
@pytest.mark.parametrize("gradient", ["expanded", "transposed"])
def test_tensors_of_any_strides(kernel: Kernel, gradient: str, counts: list[int]) -> None:
    results = []
    for name in ("loop", kernel):
        x_RD, rows = inputs(counts)
        y_RD = build(name)(x_RD.t().contiguous().t(), rows)
        if gradient == "expanded":
            y_RD.sum().backward()
        else:
            y_RD.t().contiguous().mul(torch.arange(float(sum(counts)))).sum().backward()
        results.append(x_RD.grad)
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_fused_computes_any_sizes(data: st.DataObject) -> None:
    """Sizes that are multiples of nothing, and groups that do not fit one chunk."""
    d_model, per_group = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    widths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    num_experts = len(widths) * per_group
    counts = data.draw(st.lists(st.integers(0, 30), min_size=num_experts, max_size=num_experts))
    results = []
    for kernel, chunk_bytes in (("loop", 0), ("fused", 2**20), ("fused", 50 * d_model)):
        torch.manual_seed(0)
        experts = Experts(d_model, widths, per_group, kernel)
        with mock.patch("mohge.moe.fused._CHUNK_BYTES", chunk_bytes):
            results.append(outputs_and_gradients(experts, counts))
    for result in results[1:]:
        assert_all_close(result, results[0])


def test_grouped_kernel_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"widths in multiples of 4 in torch.float32, and 18 is not"):
        Experts(D, (16, 18), 2, "grouped")(*inputs([1] * 4))
    with pytest.raises(ValueError, match=r"does not compute in torch.float64; use experts.kernel=fused"):
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
    with pytest.raises(
        ValueError, match=r"experts.kernel=fast is none of auto, loop, grouped, fused, native"
    ):
        Experts(D, (16,), 2, "fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("widths", [(16, 32), (15, 31)])
def test_auto_computes_what_was_chosen(widths: tuple[int, int], dtype: torch.dtype) -> None:
    outputs = []
    for kernel in ("auto", build("auto", dtype).kernel_for("cpu", dtype) if widths[0] == 16 else "fused"):
        torch.manual_seed(0)
        outputs.append(Experts(D, widths, 2, kernel).to(dtype)(*inputs([3, 0, 5, 1], dtype)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("device", "dtype", "parameters", "sizes", "num_experts", "kernel"),
    [
        ("cuda", torch.bfloat16, torch.float32, (64, 16, 32), 8, "grouped"),
        ("cuda", torch.bfloat16, torch.float32, (64, 16, 28), 8, "fused"),
        ("cuda", torch.float64, torch.float64, (64, 16, 32), 8, "fused"),
        ("cpu", torch.float32, torch.float32, (64, 16, 32), 8, "native"),
        ("cpu", torch.float32, torch.float32, (64, 16, 28), 8, "fused"),
        ("cpu", torch.float32, torch.float32, (64, 16, 32), 0, "fused"),
        ("cpu", torch.float64, torch.float64, (64, 16, 32), 8, "fused"),
        ("cpu", torch.bfloat16, torch.bfloat16, (64, 16, 32), 8, "fused"),
    ],
)
def test_auto_is_the_fastest_that_can(
    device: str,
    dtype: torch.dtype,
    parameters: torch.dtype,
    sizes: tuple[int, ...],
    num_experts: int,
    kernel: str,
) -> None:
    if kernel == "native" and "native" not in KERNELS_HERE:
        kernel = "fused"
    assert choose_kernel(device, dtype, parameters, sizes, num_experts) == kernel


def test_auto_without_instructions_for_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = (torch.bfloat16, torch.float32, (64, 16, 32), 8)
    monkeypatch.setattr("mohge.moe.kernels.product_dtype", lambda *_: torch.bfloat16)
    assert choose_kernel("cpu", *facts) == "fused"
    monkeypatch.setattr("mohge.moe.kernels.product_dtype", lambda *_: torch.float32)
    assert choose_kernel("cpu", *facts) == KERNELS_HERE[-1]


@pytest.mark.parametrize("kernel", ["loop", "grouped", "fused"])
@pytest.mark.parametrize("counts", [[4, 0, 1, 7, 2, 0, 0, 0, 3], [0] * 9])
def test_half_precision_parameters(kernel: Kernel, counts: list[int]) -> None:
    """Rounded inputs and weights against the same in float32: only products and their sums may round."""
    rounded = build(kernel).to(torch.bfloat16)
    exact = build("loop")
    exact.load_state_dict({name: tensor.float() for name, tensor in rounded.state_dict().items()})
    expected = outputs_and_gradients(exact, counts)
    for name, actual in outputs_and_gradients(rounded, counts, torch.bfloat16).items():
        assert actual.dtype == torch.bfloat16
        error = (actual.float() - expected[name]).norm() / expected[name].norm().clamp_min(1e-9)
        assert error < 0.02, name


def test_fused_products_in_the_given_dtype_with_rows_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that has instructions for bfloat16, whatever this one has."""
    dtypes = []
    monkeypatch.setattr(fused, "product_dtype", lambda _, dtype: dtypes.append(dtype) or dtype)
    test_half_precision_parameters("fused", [4, 0, 1, 7, 2, 0, 0, 0, 3])
    test_half_precision_parameters("fused", [0, 40, 1, 16, 32, 0, 0, 17, 3])
    assert set(dtypes) == {torch.bfloat16}


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@on_gpu
@pytest.mark.parametrize("kernel", ["loop", "grouped", "fused"])
@pytest.mark.parametrize("counts", [[4, 0, 1, 7, 2, 0, 0, 0, 3], [0, 40, 1, 16, 32, 0, 0, 17, 3]])
def test_a_gpu_computes_what_the_cpu_does(kernel: Kernel, counts: list[int]) -> None:
    results = []
    for device, name in (("cpu", "loop"), ("cuda", kernel)):
        experts, (x_RD, rows) = build(name).to(device), inputs(counts)
        x_RD = x_RD.detach().to(device).requires_grad_()
        moved = {field.name: getattr(rows, field.name).to(device) for field in dataclasses.fields(rows)}
        y_RD = experts(x_RD, ExpertRows(**moved))
        gradients = torch.autograd.grad(y_RD.square().sum(), [x_RD, *experts.parameters()])
        results.append([tensor.cpu() for tensor in (y_RD, *gradients)])
    for actual, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@on_gpu
def test_the_grouped_kernel_waits_for_a_gpu_once_per_layer() -> None:
    """On a GPU with grouped products of its own; elsewhere torch makes them of single ones, and waits too."""
    if torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("needs compute capability 9")
    experts = build("grouped").to("cuda", torch.bfloat16)
    x_RD, rows = inputs([4, 0, 1, 7, 2, 0, 0, 0, 3], torch.bfloat16)
    x_RD = x_RD.detach().cuda()
    rows = ExpertRows(*(getattr(rows, field.name).cuda() for field in dataclasses.fields(rows)))
    experts(x_RD, rows)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            experts(x_RD, rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([warning for warning in caught if "synchroniz" in str(warning.message)]) == 1
