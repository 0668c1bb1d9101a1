"""bench=experts: the bound does the work of the experts, and every kernel does the same work."""

from __future__ import annotations

import json
from typing import get_args

import pytest
import torch
from tiny_benches import EXPERTS, bench_config, by_name
from torch.utils.flop_counter import FlopCounterMode

import mohge.model.flop_formulas
from mohge.bench.experts import DenseRun, KernelRun
from mohge.bench.flops import experts_flops
from mohge.bench.load import ExpertsLoad
from mohge.bench.run import measure
from mohge.config.bench_schema import ExpertsShape
from mohge.config.schema import Kernel
from mohge.moe.experts import Experts

CPU = torch.device("cpu")
SHAPE = ExpertsShape(d_model=16, widths=(8, 24), per_group=3, tokens=40, top_k=2)


def load(rounds: int = 1, skew: float = 0.0) -> ExpertsLoad:
    return ExpertsLoad(SHAPE, rounds=rounds, skew=skew, dtype=torch.float32, device=CPU, seed=1)


def pool() -> Experts:
    return Experts(SHAPE.d_model, SHAPE.widths, SHAPE.per_group, "loop")


@pytest.mark.parametrize("kernel", ["loop", "grouped", "fused"])
def test_the_bound_does_the_work_of_the_experts(kernel: Kernel):
    mohge.model.flop_formulas.register_flop_formulas()
    experts, given = pool(), load()
    counted = []
    for run in (KernelRun(SHAPE, kernel, experts, given), DenseRun(experts, given)):
        run.reset()
        with FlopCounterMode(display=False) as counter:
            run()
        counted.append(counter.get_total_flops())
    assert counted == [experts_flops(SHAPE.d_model, SHAPE.widths, given.group_rows)] * 2


def test_kernels_compute_the_same_gradients_of_the_same_parameters():
    experts, given = pool(), load()
    found = []
    for kernel in ("loop", "grouped", "fused"):
        run = KernelRun(SHAPE, kernel, experts, given)
        run.reset()
        run()
        gradients = [given.x_TD.grad, *(parameter.grad for parameter in experts.parameters())]
        found.append([gradient.clone() for gradient in gradients if gradient is not None])
    assert len(found[0]) == 1 + 2 * len(SHAPE.widths)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)


def test_routing_is_new_in_each_round_and_the_same_for_all_variants_of_a_round():
    given = load(rounds=3)
    drawn = []
    for _ in range(4):
        first, second = given.decision(), given.decision()
        assert first is not second, "counts of one variant must not serve the next"
        assert torch.equal(first.expert_ids_TK, second.expert_ids_TK)
        torch.testing.assert_close(first.weights_TK.sum(dim=1), torch.ones(SHAPE.tokens))
        drawn.append(first.expert_ids_TK)
        given.renew()
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[3])
    assert sum(given.group_rows) == SHAPE.tokens * SHAPE.top_k


def test_skew_makes_some_experts_popular():
    def largest_share(skew: float) -> float:
        counts_E = load(skew=skew).decision().expert_counts_E
        return float(counts_E.max() / counts_E.sum())

    assert largest_share(3.0) > 1.5 * largest_share(0.0)


def test_rows():
    config = bench_config(*EXPERTS, "bench.dtypes=[fp32]")
    result, _ = measure(config, ["some=override"])
    assert json.loads(json.dumps(result)) == result
    assert result["command"] == "mohge-bench"
    assert result["bench"] == "experts"
    assert result["overrides"] == ["some=override"]
    assert result["config"]["shapes"]["mine"]["d_model"] == 16
    assert result["revision"].keys() == {"revision", "dirty"}
    assert result["machine"]["cores"] > 0
    rows = by_name(result["rows"], "kernel")
    assert set(rows) == {"dense", *get_args(Kernel)}
    for kernel, row in rows.items():
        assert (row["bench"], row["shape"], row["dtype"]) == ("experts", "mine", "fp32")
        assert row["against"] == "dense"
        assert row["ratio"] == pytest.approx(row["median_seconds"] / rows["dense"]["median_seconds"])
        assert row["low_seconds"] <= row["median_seconds"] <= row["high_seconds"]
        assert row["rounds"] == 2
        assert row["gflops"] > 0
        if kernel != "dense":
            assert row["peak_against"] == "loop"
            assert row["peak_ratio"] == row["peak_bytes"] / rows["loop"]["peak_bytes"]


def test_a_kernel_that_cannot_compute_a_shape_says_why():
    odd = "+bench.shapes.odd={d_model:16,widths:[9],per_group:2,tokens:20,top_k:1}"
    config = bench_config(*EXPERTS, odd, "bench.only=[odd]", "bench.dtypes=[fp32]", "bench.kernels=[grouped]")
    result, _ = measure(config, [])
    rows = by_name(result["rows"], "kernel")
    assert rows["dense"]["ratio"] == 1.0
    assert rows["grouped"]["ratio"] is None
    assert rows["grouped"]["median_seconds"] is None
    assert "multiple" in rows["grouped"]["note"]


def test_every_number_of_threads_is_measured_and_torchs_own_restored():
    before = torch.get_num_threads()
    config = bench_config(*EXPERTS, "bench.dtypes=[fp32]", "bench.kernels=[loop]", "bench.threads=[1,2]")
    result, _ = measure(config, [])
    assert [row["threads"] for row in result["rows"]] == [1, 1, 2, 2]
    assert torch.get_num_threads() == before
