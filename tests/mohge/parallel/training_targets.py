"""What the ranks of the tests do: a few optimizer steps of a tiny model, in this mesh or alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from composing import composed
from torch.distributed.tensor import DTensor

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.parallel.mesh import build_mesh
from mohge.parallel.sharding import parameter_bytes
from mohge.parallel.sizes import MeshSizes
from mohge.training.checkpoint import TENSORS, VerifiedCheckpointIO, load_tensors
from mohge.training.module import LanguageModule
from mohge.training.run_folder import RunFolder
from mohge.training.tensors import make_moments, training_tensors

TINY = (
    *("model.d_model=32", "model.layers=2", "model.heads=4", "model.kv_heads=2", "model.vocab_size=96"),
    *("model.context=16", "data.batch_sequences=8", "trainer.max_steps=5", "trainer.accumulate=2"),
    *("optim.warmup_fraction=0", "optim.lr=1e-3", "logger=none", "callbacks=none"),
)
MOHGE = (
    *("arch=mohge", "experts.widths=[8,16,24,32]", "experts.per_group=4", "experts.shared_width=16"),
    *("router.group_top_k=2", "router.expert_top_k=3", "loss.group_weight=0.01", "loss.group_start=0"),
    *("loss.intra_weight=0.01", "loss.balance_weight=0.01", "loss.z_weight=0.001"),
)
MOE = (
    *("arch=moe", "experts.widths=[16]", "experts.per_group=8", "experts.shared_width=16"),
    *("router.expert_top_k=2", "loss.balance_weight=0.01", "loss.z_weight=0.001"),
)
CLIP = 0.5


def mesh_overrides(sizes: tuple[int, int, int]) -> list[str]:
    names = ("dp_replicate", "dp_shard", "expert_parallel")
    return [
        "parallel=fsdp_ep",
        *(f"parallel.{name}={size}" for name, size in zip(names, sizes, strict=True)),
    ]


def config_of(*overrides: str) -> TrainConfig:
    return typed(TrainConfig, composed(*TINY, *overrides))


def micro_batch(config: TrainConfig, number: int, index: int, count: int) -> torch.Tensor:
    """This rank's part of a made-up micro-batch."""
    generator = torch.Generator().manual_seed(number)
    shape = (config.data.batch_sequences, config.data.context + 1)
    tokens_BS = torch.randint(0, config.model.vocab_size, shape, generator=generator)
    return tokens_BS.chunk(count)[index]


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Loop:
    """The steps that Lightning would make the module do, without Lightning."""

    def __init__(self, arm: tuple[str, ...] | TrainConfig, sizes: tuple[int, int, int] | None) -> None:
        if not isinstance(arm, TrainConfig):
            arm = config_of(*arm, *mesh_overrides(sizes or (1, 1, 1)))
        self.config = arm
        mesh = None if sizes is None else build_mesh(MeshSizes(*sizes), "cpu")
        self.index, self.count = (dist.get_rank(), dist.get_world_size()) if sizes else (0, 1)
        self.module = LanguageModule(self.config, RunFolder(Path("unused")), 5, mesh)
        self.trainer = SimpleNamespace(
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
            world_size=self.count,
            global_step=0,
            fit_loop=SimpleNamespace(batch_idx=0),
        )
        self.module._trainer = self.trainer
        self.module.configure_model()
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.trainer.optimizers = [self.optimizer]
        self.norms: list[float] = []

    def step(self) -> dict[str, float]:
        """One optimizer step of `trainer.accumulate` micro-batches; the means that a run would record."""
        module, accumulate = self.module, self.config.trainer.accumulate
        for micro in range(accumulate):
            number = self.trainer.global_step * accumulate + micro
            batch = {"tokens": micro_batch(self.config, number, self.index, self.count)}
            with torch.autocast("cpu", torch.bfloat16, enabled=self.config.trainer.precision == "bf16"):
                loss = module.training_step(batch, micro)
            (loss / accumulate).backward()
        module.configure_gradient_clipping(self.optimizer, CLIP)
        self.norms.append(float(module._grad_norm))
        self.gradients = {
            name: whole(p.grad).clone() for name, p in module.model.named_parameters() if p.grad is not None
        }
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.trainer.global_step += 1
        self.counts_here = module.step_counts.expert_LE.clone()
        if module._rank_load is not None:
            module._rank_load.add(module.step_counts.expert_LE, module.step_counts.tokens)
        if self.config.router.bias_rate:
            module._move_biases()
        module.step_counts.add_over_ranks()
        module.step_counts.check()
        return module._means() | module._auxiliary_means()


def steps(
    arm: tuple[str, ...] | TrainConfig, sizes: tuple[int, int, int] | None, count: int = 5
) -> dict[str, Any]:
    """Losses, norms, gradients of each step, parameters and buffers after them, and what this rank held.

    Args:
        arm: overrides, or the configuration that they make.
        sizes: of the mesh; None in one process.
        count: of steps.
    """
    loop = Loop(arm, sizes)
    losses, gradients = [], []
    for _ in range(count):
        losses.append(loop.step())
        gradients.append(loop.gradients)
    model = loop.module.model
    parameters = {name: whole(p.detach()).clone() for name, p in model.named_parameters()}
    parameters |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    first = loop.index == 0
    return {
        "losses": losses,
        "norms": loop.norms,
        "counts": loop.module.step_counts.expert_LE.clone(),
        "gradients": gradients if first else None,
        "parameters": parameters if first else None,
        "bytes": parameter_bytes(model),
    }


def steps_of_each(arms: list[TrainConfig], sizes: tuple[int, int, int], count: int) -> list[dict[str, Any]]:
    """`steps` of one model after another: ranks that start once are soon done."""
    return [steps(arm, sizes, count) for arm in arms]


def loads(overrides: tuple[str, ...], sizes: tuple[int, int, int]) -> dict[str, Any]:
    """What ranks say of two steps, and what this one really handed to the exchange in them."""
    sent = 0

    def counted(output: Any, input: Any, receive: Any = None, send: Any = None, **settings: Any) -> Any:
        nonlocal sent
        if send is not None:  # not the counts, which travel in equal parts
            here = dist.get_rank(settings["group"])
            away = sum(send) - send[here]
            sent += away * input[:1].numel() * input.element_size() if len(input) else 0
        return exchange(output, input, receive, send, **settings)

    exchange, dist.all_to_all_single = dist.all_to_all_single, counted
    loop = Loop(overrides, sizes)
    counts = []
    for _ in range(2):
        loop.step()
        counts.append(loop.counts_here)
    return {"loads": loop.module._rank_load.compare(), "sent": sent, "counts": torch.stack(counts)}


def save_after_two_steps(overrides: tuple[str, ...], sizes: tuple[int, int, int], folder: Path) -> list[Any]:
    """Two steps, a checkpoint in `folder`, and the losses of the step after it."""
    loop = Loop(overrides, sizes)
    loop.step()
    loop.step()
    tensors = training_tensors(loop.module.model, loop.optimizer)
    VerifiedCheckpointIO().save_checkpoint({"global_step": 2, TENSORS: tensors}, folder)
    return [loop.step()]


def through_a_checkpoint(
    overrides: tuple[str, ...], sizes: tuple[int, int, int], folder: Path
) -> tuple[list[Any], list[Any]]:
    """The losses of the step after a checkpoint, of who saved it and of who went on from it."""
    return save_after_two_steps(overrides, sizes, folder), go_on(overrides, sizes, folder)


def go_on(
    overrides: tuple[str, ...], sizes: tuple[int, int, int], folder: Path, again: Path | None = None
) -> list[Any]:
    """The losses of the step after a checkpoint; before it, the same is saved in `again`."""
    loop = Loop((*overrides, "seed=7"), sizes)  # other weights than those that were saved
    make_moments(loop.optimizer, 2)
    tensors = training_tensors(loop.module.model, loop.optimizer)
    load_tensors(folder, tensors)
    if again is not None:
        VerifiedCheckpointIO().save_checkpoint({"global_step": 2, TENSORS: tensors}, again)
    loop.trainer.global_step = 2
    return [loop.step()]
