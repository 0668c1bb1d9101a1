"""The same command on GPUs with NCCL; skipped where there are fewer than two."""

from __future__ import annotations

import pytest
import torch
from commands import run_forked
from tiny_runs import read_metrics, tiny_run, write_corpus

needs_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@needs_gpus
@pytest.mark.parametrize("parallel", ["ddp", "fsdp", "ep"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_gpus_train_as_one_does(tmp_path, parallel, precision):
    tiny = tiny_run(write_corpus(tmp_path / "texts"), tmp_path / "cache")
    shared = [
        *tiny,
        "callbacks=default",
        "trainer.max_steps=8",
        "trainer.accelerator=cuda",
        f"trainer.precision={precision}",
    ]
    for name, mesh in (("one", []), ("two", [f"parallel={parallel}", "trainer.devices=2"])):
        arguments = [*shared, *mesh, f"paths.run_dir={tmp_path / name}"]
        finished = run_forked("mohge-train", arguments, tmp_path)
        assert finished.status == 0, finished.stderr
    losses = [[record["train/loss"] for record in read_metrics(tmp_path / name)] for name in ("one", "two")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4 if precision == "fp32" else 2e-2)


@needs_gpus
def test_a_checkpoint_of_two_gpus_goes_on_on_a_cpu(tmp_path):
    tiny = tiny_run(write_corpus(tmp_path / "texts"), tmp_path / "cache")
    run = tmp_path / "run"
    gpus = [*tiny, "trainer.max_steps=4", "parallel=ep", "trainer.devices=2", f"paths.run_dir={run}"]
    assert run_forked("mohge-train", gpus, tmp_path).status == 0
    more = [f"resume={run}", "parallel=single", "trainer.accelerator=cpu", "trainer.max_steps=8"]
    assert run_forked("mohge-train", more, tmp_path).status == 0
    assert [record["step"] for record in read_metrics(run)] == list(range(1, 9))
