"""Training without an auxiliary loss: the bias of the choice in a run, and in one that is continued."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_data, train_here, write_corpus

from mohge.training.checkpoint import read_tensors

RUN = (
    *("arch=loss_free", "model.d_model=32", "model.layers=2", "model.heads=2", "model.kv_heads=1"),
    *("model.vocab_size=300", "model.context=32", "experts.widths=[8]", "experts.per_group=8"),
    *("experts.shared_width=8", "router.expert_top_k=2", "router.bias_rate=0.001", "logger=none"),
    *("callbacks=none", "trainer.log_every=1", "trainer.max_steps=8", "trainer.checkpoint_every=4"),
    *("trainer.accumulate=2",),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    return tiny_data(write_corpus(folder / "corpus"), folder / "cache")


def newest(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(sorted((run / "checkpoints").glob("step_*"))[-1], "")


def test_a_continued_run_has_the_bias_of_a_whole_one_bit_for_bit(tmp_path, data):
    records = train_here(tmp_path, *RUN, *data)
    whole = newest(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "step_00000008")
    half = newest(tmp_path)
    again = train_here(tmp_path, *RUN, *data, f"resume={tmp_path}")
    assert again == records
    torch.testing.assert_close(newest(tmp_path), whole, rtol=0, atol=0)

    names = [f"model.blocks.{layer}.ffn.router.expert_bias" for layer in range(2)]
    assert not any(name.startswith("optimizer.") and "expert_bias" in name for name in whole)
    for name in names:
        # Steps up and down, of the rate each.
        steps_E = whole[name] / 0.001
        torch.testing.assert_close(steps_E, steps_E.round(), rtol=0, atol=1e-4)
        assert steps_E.abs().max() > 2
        assert not torch.equal(whole[name], half[name])
    assert all(record["train/total_loss"] == record["train/loss"] for record in records)
