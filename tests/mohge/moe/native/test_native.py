"""The kernel in C against the loop: any sizes, any number of threads, extreme values; and what it refuses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mohge.moe.decision import RoutingDecision
from mohge.moe.dispatch import ExpertRows, sort_rows
from mohge.moe.kernels import KERNELS
from mohge.moe.native import build, native, why_not
from mohge.moe.native.build import library
from mohge.moe.routers import top_k_route

compiled = library()
needs_compiler = pytest.mark.skipif(isinstance(compiled, str), reason=f"no kernel: {compiled}")
LANES = 16 if isinstance(compiled, str) else compiled.lanes


def routed(tokens: int, experts: int, top_k: int, skew: float = 0.0, seed: int = 0) -> ExpertRows:
    generator = torch.Generator().manual_seed(seed)
    popularity_E = -skew * torch.arange(1.0, experts + 1).log()
    logits_TE = torch.randn(tokens, experts, generator=generator) + popularity_E
    return sort_rows(decision_for(logits_TE, top_k))


def decision_for(logits_TE: Tensor, top_k: int) -> RoutingDecision:
    return top_k_route(logits_TE.requires_grad_(), num_groups=1, expert_top_k=top_k)


def run(
    kernel: str, rows: ExpertRows, d_model: int, widths: list[int], per_group: int, scale: float = 1.0
) -> list[Tensor]:
    """Output, and gradients of tokens, weights and parameters."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x_TD = (scale * draw(rows.row_TK.shape[0], d_model)).requires_grad_()
    gate_up = [(draw(per_group, 2 * W, d_model) * d_model**-0.5).requires_grad_() for W in widths]
    down = [(draw(per_group, d_model, W) * W**-0.5).requires_grad_() for W in widths]
    y_TD = KERNELS[kernel](x_TD, rows, gate_up, down)
    leaves = [x_TD, rows.weights_TK, *gate_up, *down]
    return [y_TD, *torch.autograd.grad(y_TD, leaves, draw(*y_TD.shape))]


def assert_agree(rows: ExpertRows, d_model: int, widths: list[int], per_group: int) -> None:
    expected = run("loop", rows, d_model, widths, per_group)
    for a, e in zip(run("native", rows, d_model, widths, per_group), expected, strict=True):
        assert (a - e).norm() <= 1e-5 * e.norm()
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


@needs_compiler
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_sizes(data: st.DataObject) -> None:
    """One vector or several, odd numbers of them, few rows and none."""
    multiples = st.integers(1, 5).map(lambda n: n * LANES)
    d_model, widths = data.draw(multiples), data.draw(st.lists(multiples, min_size=1, max_size=3))
    per_group, tokens = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 70))
    top_k = data.draw(st.integers(1, len(widths) * per_group))
    skew = data.draw(st.sampled_from([0.0, 1.0, 5.0]))
    assert_agree(routed(tokens, len(widths) * per_group, top_k, skew), d_model, widths, per_group)


@needs_compiler
def test_without_any_rows_gradients_are_zero() -> None:
    """A rank that no token was sent to: its gradients are written too, over whatever the memory held."""
    rows = sort_rows(decision_for(torch.zeros(0, 4), top_k=2))
    stale = [torch.full((2, 2 * 4 * LANES, 4 * LANES), 7.0) for _ in range(4)]
    del stale  # freed, and likely to be what the gradients are made of
    _, *gradients = run("native", rows, 4 * LANES, [4 * LANES, 4 * LANES], 2)
    assert all(not gradient.any() for gradient in gradients)


@needs_compiler
@pytest.mark.parametrize(("d_model", "widths"), [(64, [16, 48]), (1024, [384, 640])])
def test_experts_of_several_blocks(d_model: int, widths: list[int]) -> None:
    """More rows than fit the cache at once, matrices of more rows than a panel, and one expert with none."""
    assert_agree(routed(700, 4, 2, skew=6.0), d_model, widths, 2)


@needs_compiler
def test_the_number_of_threads_changes_no_bit() -> None:
    rows, threads, results = routed(300, 8, 3), torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            results.append(run("native", rows, 64, [16, 32], 4))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@needs_compiler
@pytest.mark.parametrize("scale", [1e-3, 30.0, 1e4])
def test_gates_of_any_size(scale: float) -> None:
    """Where e^x is 1, where it overflows, and where it vanishes."""
    rows = routed(50, 4, 2)
    expected = run("loop", rows, 32, [16, 32], 2, scale)
    for a, e in zip(run("native", rows, 32, [16, 32], 2, scale), expected, strict=True):
        assert (a - e).norm() <= 1e-5 * e.norm()


@needs_compiler
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    rows = routed(10, 2, 1)
    x_TD = torch.ones(10, LANES)
    x_TD[3, 0] = value
    weights = [torch.ones(2, 2 * LANES, LANES)], [torch.ones(2, LANES, LANES)]
    finite_T = native(x_TD, rows, *weights).isfinite().all(dim=1)
    assert finite_T.tolist() == [t != 3 for t in range(10)]


@needs_compiler
def test_without_gradients_nothing_is_kept() -> None:
    rows = routed(10, 2, 1)
    with torch.no_grad():
        run_x = torch.ones(10, LANES, requires_grad=True)
        y_TD = native(run_x, rows, [torch.ones(2, 2 * LANES, LANES)], [torch.ones(2, LANES, LANES)])
    assert y_TD.grad_fn is None


@needs_compiler
def test_sizes_and_dtypes_it_cannot_compute_are_refused() -> None:
    rows = routed(10, 2, 1)
    x_TD = torch.ones(10, LANES)
    narrow = [torch.ones(2, 2 * 12, LANES)], [torch.ones(2, LANES, 12)]
    with pytest.raises(ValueError, match=rf"in multiples of {LANES}, and 12 is not; use experts.kernel=auto"):
        native(x_TD, rows, *narrow)
    double = [torch.ones(2, 2 * LANES, LANES).double()], [torch.ones(2, LANES, LANES).double()]
    with pytest.raises(ValueError, match=r"these are torch.float64 on cpu; use experts.kernel=auto"):
        native(x_TD.double(), rows, *double)


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setenv("MOHGE_CACHE", str(tmp_path))
    library.cache_clear()
    yield
    library.cache_clear()


@pytest.mark.usefixtures("nothing_compiled")
def test_why_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def reason() -> str | None:
        library.cache_clear()
        return why_not("cpu", torch.float32, [LANES])

    monkeypatch.setattr(build.shutil, "which", lambda _: None)
    assert reason() == "there is no gcc"
    monkeypatch.setattr(build.shutil, "which", lambda _: "/bin/false")
    assert str(reason()).startswith("it does not compile")
    monkeypatch.setattr(build.shutil, "which", lambda _: "/nowhere/gcc")
    assert str(reason()).startswith("/nowhere/gcc does not run")
    monkeypatch.setattr(build.sys, "platform", "darwin")
    assert str(reason()).startswith("it is written for Linux")


@needs_compiler
@pytest.mark.usefixtures("nothing_compiled")
def test_it_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(library(), str)
    library.cache_clear()
    commands = []
    run_command = build._run
    monkeypatch.setattr(build, "_run", lambda command: commands.append(command) or run_command(command))
    assert not isinstance(library(), str)
    assert [command[1] for command in commands] == ["--version"]


@needs_compiler
@pytest.mark.usefixtures("nothing_compiled")
def test_a_cache_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOHGE_CACHE", str(tmp_path / "file"))
    assert "cannot be made (Not a directory)" in str(why_not("cpu", torch.float32, [LANES]))


@needs_compiler
@pytest.mark.slow
@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("processor", ["x86-64-v3", "x86-64-v2"])
def test_narrower_vectors_compute_the_same(monkeypatch: pytest.MonkeyPatch, processor: str) -> None:
    """The branches of product.h for processors with 8 and 4 floats in a vector."""
    if not torch.cpu.get_capabilities().get("avx2"):
        pytest.skip("not a processor of this family")
    flags = [f"-march={processor}" if flag == "-march=native" else flag for flag in build._FLAGS]
    monkeypatch.setattr(build, "_FLAGS", flags)
    narrow = library()
    assert not isinstance(narrow, str)
    assert narrow.lanes == {"x86-64-v3": 8, "x86-64-v2": 4}[processor]
    assert_agree(routed(90, 6, 2), 3 * narrow.lanes, [narrow.lanes, 5 * narrow.lanes], 3)
