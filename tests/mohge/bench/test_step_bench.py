"""bench=step: models that are compared are of one size and do the work of one."""

from __future__ import annotations

import pytest
import torch
from tiny_benches import STEP, bench_config, by_name

from mohge.bench import step as step_bench
from mohge.bench.run import measure
from mohge.bench.sizes import heterogeneous, homogeneous
from mohge.bench.training_step import TrainingStep
from mohge.config.bench_schema import StepBenchConfig
from mohge.training.optimizer import decay_groups

CPU = torch.device("cpu")
ONE = ("bench.rounds=1", "bench.warmup=0")


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("tied", ["true", "false"])
@pytest.mark.parametrize("implementation", ["eager", "grouped_mm"])
def test_the_peer_has_our_size_and_learns_what_we_learn(tied: str, implementation: str):
    pytest.importorskip("transformers")
    from mohge.bench.peers import MixtralStep

    config = bench_config(*STEP, f"bench.tied_head={tied}", "bench.layers=2")
    assert isinstance(config.bench, StepBenchConfig)
    plain = homogeneous(config, config.bench)
    ours, peer = TrainingStep(plain, CPU), MixtralStep(plain, implementation, CPU)
    assert parameters(peer.model) == parameters(ours.model)
    assert peer.model.config._experts_implementation == implementation
    decayed = [sum(p.numel() for p in decay_groups(m, 0.1)[0]["params"]) for m in (ours.model, peer.model)]
    assert decayed[0] == decayed[1]

    with torch.no_grad():  # logits of zero: both losses are the logarithm of the vocabulary
        for parameter in (*ours.model.parameters(), *peer.model.parameters()):
            parameter.zero_()
    tokens_BS = torch.randint(50, (2, 17), generator=torch.Generator().manual_seed(1))
    targets_BS = tokens_BS[:, 1:].contiguous()
    output = peer.model(input_ids=tokens_BS[:, :-1], labels=targets_BS, shift_labels=targets_BS)
    balance = plain.loss.balance_weight * output.aux_loss.item()
    assert output.loss.item() - balance == pytest.approx(float(torch.tensor(50.0).log()), rel=1e-5)
    ours.module.training_step({"tokens": tokens_BS}, 0)
    assert float(ours.module._sums["train/loss"]) == pytest.approx(output.loss.item() - balance, rel=1e-5)
    peer([tokens_BS])
    ours([tokens_BS])


def test_the_heterogeneous_model_does_the_work_of_the_homogeneous_one():
    config = bench_config(*STEP, "bench.context=64", "bench.batch_sequences=8")
    assert isinstance(config.bench, StepBenchConfig)
    work = []
    for sized in (homogeneous(config, config.bench), heterogeneous(config, config.bench)):
        assert sized.experts.num_experts == 4
        step = TrainingStep(sized, CPU)
        step([torch.randint(50, (8, 65), generator=torch.Generator().manual_seed(1))])
        work.append(step.routed_flops)
    assert work[0] == 18 * 16 * 16 * 2 * 8 * 64  # rows of width 16, two for each of 8 x 64 tokens
    assert work[1] == pytest.approx(work[0], rel=0.3)  # the router of one seed prefers some


def test_rows():
    pytest.importorskip("transformers")
    result, _ = measure(bench_config(*STEP), [])
    rows = by_name(result["rows"], "peer")
    ours, eager, grouped = (rows[name] for name in ("mohge", "transformers_eager", "transformers_grouped_mm"))
    best = min(eager, grouped, key=lambda row: row["median_seconds"])
    for row in (ours, eager, grouped):
        assert row["against"] == row["peak_against"] == best["peer"]
        assert row["ratio"] == pytest.approx(row["median_seconds"] / best["median_seconds"])
        assert row["tokens_per_second"] == pytest.approx(2 * 16 / row["median_seconds"])
        assert row["parameters"] == ours["parameters"]
        assert row["peak_bytes"] > 4 * row["parameters"]  # gradients alone
    mixed = rows["mohge_heterogeneous"]
    assert mixed["shape"] == rows["moe_homogeneous"]["shape"] == "equal_active_flops"
    assert mixed["against"] == "moe_homogeneous"
    assert mixed["ratio"] == pytest.approx(mixed["median_seconds"] / ours["median_seconds"])
    assert 0.5 < mixed["flops_ratio"] < 2


def test_without_transformers_our_own_rows_come_with_a_hint(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_bench, "transformers_installed", lambda: False)
    result, _ = measure(bench_config(*STEP, "trainer.precision=bf16", "experts.kernel=loop", *ONE), [])
    rows = by_name(result["rows"], "peer")
    assert set(rows) == {"mohge", "moe_homogeneous", "mohge_heterogeneous"}
    assert all(row["dtype"] == "bf16" and row["kernel"] == "loop" for row in rows.values())
    assert rows["mohge"]["ratio"] == 1.0
    assert "pip install 'mohge[transformers]'" in result["notes"][-1]
