"""What a training step computes and records."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from composing import composed
from tiny_runs import TINY_EXPERTS, TINY_MODEL, TINY_ROUTER, tiny_run, train_here, write_corpus

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.errors import RunError
from mohge.metrics import RoutingCounts
from mohge.moe.decision import RoutingDecision
from mohge.moe.losses import switch_balance_loss
from mohge.training.checkpoint import read_tensors
from mohge.training.module import LanguageModule
from mohge.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of a tiny run; its corpus is prepared once."""
    folder = tmp_path_factory.mktemp("data")
    return tiny_run(write_corpus(folder / "corpus"), folder / "cache")


def module_of(tmp_path: Path, *overrides: str, max_steps: int = 10) -> LanguageModule:
    config = typed(TrainConfig, composed(*TINY_MODEL, *TINY_EXPERTS, *overrides))
    return LanguageModule(config, RunFolder(tmp_path), max_steps)


def batches(number: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [{"tokens": torch.randint(0, 300, (4, 33), generator=generator)} for _ in range(number)]


@pytest.mark.parametrize(("start", "first"), [(0.0, 0), (0.5, 5), (0.75, 8), (1.0, 10)])
def test_the_group_loss_is_switched_on_at_its_share_of_training(tmp_path, start, first):
    losses = ("loss.intra_weight=0.02", "loss.z_weight=0.1", f"loss.group_start={start}")
    module = module_of(tmp_path, *TINY_ROUTER, *losses)
    weights = [module.loss_weights(step) for step in range(10)]
    assert [step for step in range(10) if weights[step]["group"] > 0] == list(range(first, 10))
    assert {weight["group"] for weight in weights} <= {0.0, 1e-5}
    assert all(
        weight["intra"] == 0.02 and weight["z"] == 0.1 and weight["balance"] == 0 for weight in weights
    )


@pytest.mark.parametrize("scope", ["micro_batch", "global_batch"])
def test_balance_is_counted_over_the_configured_scope(tmp_path, scope):
    """The second micro-batch of a step is charged with the picks of its own, or of both."""
    moe = ("arch=moe", "router.expert_top_k=2", "loss.balance_weight=0.5", "trainer.accumulate=2")
    module = module_of(tmp_path, *moe, f"loss.scope={scope}")
    both = batches(2)
    totals = [module.training_step(batch, index) for index, batch in enumerate(both)]
    next_step = module.training_step(both[1], 2)

    counts_E = torch.zeros(module.config.experts.num_experts)
    for batch, total in zip(both, totals, strict=True):
        output = module.model(batch["tokens"][:, :-1])
        logits, (decision,) = output.logits_BSV, output.decisions
        own_E = decision.expert_counts_E.float()
        counts_E = counts_E + own_E if scope == "global_batch" else own_E
        balance = switch_balance_loss(
            decision.joint_probability_TE, decision.expert_mask_TE, share_E=counts_E / counts_E.sum()
        )
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), batch["tokens"][:, 1:].flatten())
        assert total.item() == pytest.approx((cross_entropy + 0.5 * balance).item(), rel=1e-6)
    # A new optimizer step starts counting anew.
    assert (next_step.item() == pytest.approx(totals[1].item(), rel=1e-7)) == (scope == "micro_batch")


def test_the_record_holds_raw_and_weighted_losses_and_their_sum(tiny, tmp_path):
    losses = (
        *("loss.z_weight=1e-3", "loss.balance_weight=0", "loss.intra_weight=5e-3"),
        *("loss.group_weight=0.1", "loss.group_start=0.5"),
    )
    records = train_here(tmp_path, *tiny, *losses, "trainer.max_steps=6", "trainer.accumulate=2")
    assert [record["tokens"] for record in records] == [step * 2 * 4 * 32 for step in range(1, 7)]
    for record in records:
        weights = {"group": 0.1 if record["step"] > 3 else 0.0, "intra": 5e-3, "balance": 0.0, "z": 1e-3}
        for name, weight in weights.items():
            assert record[f"aux/{name}"] > 0
            assert record[f"aux_weighted/{name}"] == pytest.approx(weight * record[f"aux/{name}"], rel=1e-5)
        total = record["train/loss"] + sum(record[f"aux_weighted/{name}"] for name in weights)
        assert record["train/total_loss"] == pytest.approx(total, rel=1e-6)
        assert record["train/grad_norm"] > 0
    assert records[0]["train/lr"] == pytest.approx(1e-3)


def test_a_run_says_that_its_router_has_no_teacher(tiny, tmp_path, caplog):
    train_here(tmp_path, *tiny, "router.expert_top_k=1", "trainer.max_steps=1")
    told = [record for record in caplog.records if record.name == "mohge.training.run"]
    assert [(record.levelname, record.getMessage().split()[0]) for record in told] == [
        ("WARNING", "router.expert_top_k=1"),
        ("WARNING", "router.group_top_k=1"),
    ]


@pytest.mark.parametrize("arch", ["mohge", "dense"])
def test_accumulated_gradients_equal_those_of_one_larger_batch(tiny, tmp_path, arch):
    # Auxiliary losses are not linear in the batch: without them, the same tokens give the same gradient.
    dense = [item for item in tiny if not item.startswith(("experts.widths", "experts.per", "router"))]
    plain = [*tiny, "loss=none"] if arch == "mohge" else [*dense, "arch=dense"]
    common = (*plain, "trainer.max_steps=8", "optim.lr=1e-2", "trainer.clip=0.5")
    whole = train_here(tmp_path / "whole", *common, "data.batch_sequences=8")
    parts = train_here(tmp_path / "parts", *common, "data.batch_sequences=2", "trainer.accumulate=4")
    assert [record["tokens"] for record in whole] == [record["tokens"] for record in parts]
    for name in ("train/loss", "train/grad_norm"):
        of_whole, of_parts = ([record[name] for record in records] for records in (whole, parts))
        assert of_parts == pytest.approx(of_whole, rel=2e-4)
    assert whole[-1]["val/loss"] == pytest.approx(parts[-1]["val/loss"], rel=2e-4)
    assert whole[-1]["train/loss"] < whole[0]["train/loss"]


def test_what_is_logged_every_few_steps_is_the_last_of_them(tiny, tmp_path):
    often = train_here(tmp_path / "often", *tiny, "trainer.max_steps=7")
    seldom = train_here(tmp_path / "seldom", *tiny, "trainer.max_steps=7", "trainer.log_every=3")
    assert [record["step"] for record in seldom] == [3, 6, 7]
    assert seldom == [often[2], often[5], often[6]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns_as_the_cpu_does(tiny, tmp_path, precision):
    losses = {}
    for accelerator in ("cpu", "cuda"):
        records = train_here(
            tmp_path / accelerator,
            *tiny,
            *("trainer.max_steps=8", f"trainer.accelerator={accelerator}", f"trainer.precision={precision}"),
            "callbacks=default",
        )
        losses[accelerator] = [record["train/loss"] for record in records]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3 if precision == "fp32" else 3e-2)


def test_bf16_learns_as_fp32_does(tiny, tmp_path):
    full, half = (
        train_here(
            tmp_path / name, *tiny, "trainer.max_steps=30", "optim.lr=1e-2", f"trainer.precision={name}"
        )
        for name in ("fp32", "bf16")
    )
    losses = [[record["train/loss"] for record in records] for records in (full, half)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert half[-1]["train/loss"] < half[0]["train/loss"] - 0.3
    saved = read_tensors(next((tmp_path / "bf16" / "checkpoints").iterdir()), "")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tiny, tmp_path):
    steep = ("optim.lr=1e30", "optim.warmup_fraction=0", "trainer.clip=null", "trainer.checkpoint_every=1")
    with pytest.raises(RunError) as caught:
        train_here(tmp_path, *tiny, *steep, "trainer.max_steps=20", "trainer.accumulate=2")
    status = json.loads((tmp_path / "status.json").read_text(encoding="utf-8"))
    saved = tmp_path / "checkpoints" / f"step_{status['step']:08d}"
    place = re.search(
        r"became (?:nan|inf) in step (\d+) \(micro-batch (\d+), training sequences (\d+) to (\d+)\)",
        str(caught.value),
    )
    assert place, caught.value
    step, micro_batch, first, last = map(int, place.groups())
    assert step == status["step"] + 1
    assert micro_batch in (2 * step - 1, 2 * step)
    assert (first, last) == (4 * micro_batch - 4, 4 * micro_batch - 1)
    assert f"the last good checkpoint is {saved}: " in str(caught.value)
    assert status["state"] == "failed"
    assert saved.is_dir()
    assert all(math.isfinite(value) for value in status["last"].values())


def test_without_a_checkpoint_the_message_says_so(tmp_path):
    module = module_of(tmp_path, *TINY_ROUTER)
    with torch.no_grad():
        module.model.final_norm.weight.fill_(math.inf)
    with pytest.raises(RunError, match=r"loss became nan in step 1 .*there is no checkpoint yet"):
        module.training_step(batches(1)[0], 0)


def test_counts_that_lost_a_token_stop_the_run(tiny, tmp_path, monkeypatch):
    add = RoutingCounts.add

    def careless(counts: RoutingCounts, decisions: Sequence[RoutingDecision]) -> None:
        add(counts, decisions)
        counts.expert_LE[0, 0] -= 1

    monkeypatch.setattr(RoutingCounts, "add", careless)
    with pytest.raises(AssertionError, match="rows per layer"):
        train_here(tmp_path / "run", *tiny, "trainer.max_steps=1")
