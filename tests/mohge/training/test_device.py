"""What a run computes on: a GPU that it knows, else the processor."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric.accelerators.mps import MPSAccelerator
from tiny_runs import tiny_run, train_here, write_corpus

from mohge.config.schema import TrainerConfig
from mohge.errors import UserError
from mohge.training.device import device_of


def test_a_gpu_is_taken_where_there_is_one_and_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of(TrainerConfig(), ranks=2).type == "cuda"
    assert device_of(TrainerConfig(accelerator="cpu"), ranks=4).type == "cpu"
    with pytest.raises(UserError, match=r"trainer.devices=4 and this machine has 2 GPUs"):
        device_of(TrainerConfig(), ranks=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"trainer.accelerator=cuda, and this machine has no usable GPU"):
        device_of(TrainerConfig(accelerator="cuda"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be taken")
def test_apples_gpu_is_left_alone(monkeypatch, tmp_path):
    """Lightning would take it unasked, and it has no float64, in which choices are counted."""
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    corpus = write_corpus(tmp_path / "corpus")
    run = tiny_run(corpus, tmp_path / "cache")
    assert len(train_here(tmp_path / "run", *run, "trainer.max_steps=1")) == 1
