"""Lightning's part in a run of several ranks: one strategy for every mesh."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy
from torch.optim import Optimizer

from mohge.parallel.mesh import Mesh
from mohge.parallel.ranks import Rank


class MeshStrategy(ModelParallelStrategy):
    """Trains on a mesh whose process group is there already; the module shards itself on it.

    Checkpoints hold no tensors here: the module hands them to the checkpoint plugin, which every rank calls.

    Args:
        mesh: of all ranks.
    """

    def __init__(self, mesh: Mesh) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1)
        self.mesh = mesh

    def setup_environment(self) -> None:
        """Takes the ranks as they are; Lightning would lay them out as (data, tensor)."""
        self._setup_distributed()
        self._device_mesh = self.mesh.root
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self._device_mesh

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every rank reads data of its own."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Saves by the checkpoint plugin, on every rank."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Loads all but tensors by the checkpoint plugin, on every rank."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)


class RankEnvironment(ClusterEnvironment):
    """Tells Lightning which rank this is, whoever started it.

    Args:
        rank: of this process.
    """

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self._rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Unused: the ranks have met before."""
        return os.environ.get("MASTER_ADDR", "127.0.0.1")

    @property
    def main_port(self) -> int:
        """Unused: the ranks have met before."""
        return int(os.environ.get("MASTER_PORT", 0))

    @staticmethod
    def detect() -> bool:
        """It is given, not detected."""
        return False

    def world_size(self) -> int:
        """Ranks."""
        return self._rank.world

    def set_world_size(self, size: int) -> None:
        """It is what it is."""

    def global_rank(self) -> int:
        """Of this process."""
        return self._rank.index

    def set_global_rank(self, rank: int) -> None:
        """It is what it is."""

    def local_rank(self) -> int:
        """Among the processes of this machine."""
        return self._rank.local_index

    def node_rank(self) -> int:
        """Number of this machine."""
        return self._rank.node
