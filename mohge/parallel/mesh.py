"""The device mesh (dp_replicate, dp_shard, ep), and the views of it that parameters are laid out on."""

from __future__ import annotations

from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mohge.parallel.sizes import MeshSizes


@dataclass(frozen=True)
class Mesh:
    """All ranks, seen in the ways that parts of the model need.

    Attributes:
        sizes: of the three axes.
        root: (dp_replicate, dp_shard, ep); neighbouring ranks are neighbours along ep.
        ep: ranks that share the experts of a layer, between which tokens travel.
        dense: for FSDP of everything but the experts: dp_shard x ep, copied dp_replicate times.
        experts: for FSDP of one ep rank's experts: dp_shard, copied dp_replicate times.
    """

    sizes: MeshSizes
    root: DeviceMesh
    ep: DeviceMesh
    dense: DeviceMesh
    experts: DeviceMesh


def build_mesh(sizes: MeshSizes, device_type: str) -> Mesh:
    """Lays the ranks of the default process group out as a mesh. Collective.

    Args:
        sizes: of the axes; their product is the number of ranks.
        device_type: "cpu" or "cuda".
    """
    replicate, shard, ep = sizes.dp_replicate, sizes.dp_shard, sizes.expert_parallel
    root = init_device_mesh(
        device_type, (replicate, shard, ep), mesh_dim_names=("dp_replicate", "dp_shard", "ep")
    )
    # A mesh of its own, with the ranks in the same order: to slice a flattened axis out of the root mesh is
    # deprecated.
    dense = init_device_mesh(
        device_type, (replicate, sizes.dense_shard), mesh_dim_names=("dp_replicate", "fsdp")
    )
    if replicate == 1:
        return Mesh(sizes, root, root["ep"], dense["fsdp"], root["dp_shard"])
    return Mesh(sizes, root, root["ep"], dense, root["dp_replicate", "dp_shard"])
