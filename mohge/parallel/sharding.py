"""Who holds which part of each parameter: experts over ep, then all parameters by FSDP2.

Shapes: N experts per group, W width of a group's experts, D model width.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

from mohge.model.transformer import TransformerLM
from mohge.moe.dispatch import AllToAllDispatcher
from mohge.moe.layer import MoELayer
from mohge.parallel.local import local_part
from mohge.parallel.mesh import Mesh


def shard_model(model: TransformerLM, mesh: Mesh) -> None:
    """Cuts every parameter of `model` among the ranks, in place, and lets tokens travel to their experts.

    - Expert stacks, (N, 2W, D) and (N, D, W), are cut along N among the ranks of ep: each holds N / ep
      experts of every width (All-size Group-decoupling Allocation). FSDP cuts them along the second axis,
      so that both cuts are even, among the ranks of dp_shard.
    - All else is cut along the first axis among dp_shard x ep ranks.
    - dp_replicate copies hold the same and average their gradients.

    Each block is one FSDP unit, and its experts another: parameters are gathered when a unit runs, in the
    forward and again in the backward pass. The embedding, final norm and head are the root unit.

    A model on the meta device stays there: materialise and initialise it afterwards.
    """
    for block in model.blocks:
        ffn = block.get_submodule("ffn")
        if isinstance(ffn, MoELayer):
            spread_experts(ffn, mesh)
            fully_shard(ffn.experts, mesh=mesh.experts, shard_placement_fn=lambda parameter: Shard(1))
        fully_shard(block, mesh=mesh.dense)
    fully_shard(model, mesh=mesh.dense)


def spread_experts(layer: MoELayer, mesh: Mesh) -> None:
    """Leaves this rank N / ep experts of every width of a layer, and lets tokens travel to the others."""
    ep = mesh.sizes.expert_parallel
    if ep == 1:
        return
    layer.dispatcher = AllToAllDispatcher(
        mesh.ep.get_group(), len(layer.experts.groups), layer.experts.num_experts
    )
    for group in layer.experts.groups:
        for name, parameter in list(group.named_parameters(recurse=False)):
            # Every rank would draw the same values: each keeps its part, and nothing is sent.
            part = distribute_tensor(parameter.detach(), mesh.ep, [Shard(0)], src_data_rank=None)
            group.register_parameter(name, nn.Parameter(part))
    layer.experts.gradient_scale = 1 / ep


def drop_gathered(model: nn.Module) -> None:
    """Leaves each rank its parts alone.

    After a forward pass without a backward pass the root unit keeps its parameters gathered; they are then
    not the tensors that the optimizer knows.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def parameter_bytes(model: nn.Module) -> int:
    """Bytes of parameters that this rank holds."""
    total = 0
    for parameter in model.parameters():
        local = local_part(parameter)
        total += local.numel() * local.element_size()
    return total
