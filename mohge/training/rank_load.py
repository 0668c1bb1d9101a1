"""What each rank had to do in each optimizer step: tokens, routed rows, expert FLOPs, all-to-all bytes.

Shapes: S steps, L layers, E experts, G groups, N experts per group, P ranks of the ep axis, R ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mohge.config.schema import TrainConfig
from mohge.metrics import RankBalance
from mohge.parallel.mesh import Mesh
from mohge.parallel.world import gather
from mohge.training.run_folder import RunFolder

NUMBERS = ("tokens", "rows", "expert_flops", "all_to_all_bytes")


@dataclass
class RankLoad:
    """Collects the counts of this rank's tokens, step by step, until ranks compare theirs.

    Every step costs a copy of L x E counts; ranks meet only in `compare`.

    Args:
        config: of the run.
        mesh: of its ranks.
    """

    config: TrainConfig
    mesh: Mesh

    def __post_init__(self) -> None:
        self._counts: list[Tensor] = []
        self._tokens: list[int] = []

    def add(self, expert_LE: Tensor, tokens: int) -> None:
        """Keeps the counts of a step: rows of this rank's tokens for each expert, wherever it is."""
        self._counts.append(expert_LE.clone())
        self._tokens.append(tokens)

    def record(self, run: RunFolder, last_step: int) -> dict[str, float]:
        """Compares the steps up to the last, writes a line for each to rank_load.jsonl, and returns metrics.

        They are the largest over the mean of the ranks' expert FLOPs and rows in the last step. Collective.
        """
        loads = self.compare()
        if not loads:
            return {}
        routed = self.config.router.expert_top_k * self.config.model.layers
        assert all(sum(load["rows"]) == sum(load["tokens"]) * routed for load in loads), "a row is lost"
        if dist.get_rank() == 0:
            for step, load in enumerate(loads, start=last_step - len(loads) + 1):
                run.append(run.rank_load_path, {"step": step, **load})
        balance = RankBalance(len(loads[-1]["rows"]), sync_on_compute=False)
        for rank, work in enumerate(zip(loads[-1]["rows"], loads[-1]["expert_flops"], strict=True)):
            balance.update(rank, *work)
        found = balance.compute()
        return {
            "ranks/expert_flops_max_over_mean": float(found.expert_flops_max_over_mean),
            "ranks/rows_max_over_mean": float(found.rows_max_over_mean),
        }

    def compare(self) -> list[dict[str, Any]]:
        """For each step since the last call, lists over ranks of the numbers below. Collective.

        - `tokens`: read by the rank.
        - `rows`: computed by its experts, over all layers.
        - `expert_flops`: of these rows, forward and backward.
        - `all_to_all_bytes`: sent by the rank, forward and backward: rows with their weights to other ranks,
          results of rows that came from others, and the gradients of both. Recomputation sends once more.
        """
        if not self._counts:
            return []
        experts, sizes = self.config.experts, self.mesh.sizes
        sent_SLE = torch.stack(self._counts)
        P, here = sizes.expert_parallel, self.mesh.ep.get_local_rank()
        by_rank_PSLE = [torch.empty_like(sent_SLE) for _ in range(P)]
        dist.all_gather(by_rank_PSLE, sent_SLE, group=self.mesh.ep.get_group())
        # Experts of group g: N / P on each rank. (P senders, S, L, G, P holders, N / P)
        routed = torch.stack(by_rank_PSLE)
        routed = routed.view(*routed.shape[:3], experts.num_groups, P, -1)
        mine_PSG = routed[..., here, :].sum(dim=(2, 4))
        rows_SG = mine_PSG.sum(0)
        D, widths = self.config.model.d_model, torch.tensor(experts.widths, device=rows_SG.device)
        flops_S = 3 * 6 * D * (rows_SG * widths).sum(1)
        away_S = sent_SLE.sum(dim=(1, 2)) - mine_PSG[here].sum(1)
        guests_S = rows_SG.sum(1) - mine_PSG[here].sum(1)
        number, weight = (2 if self.config.trainer.precision == "bf16" else 4), 4
        trips = 3 if self.config.model.activation_checkpointing else 2  # of each row: there, and its gradient
        # A row of mine goes there with its weight, and the gradient of its result; a guest's result goes
        # back, and the gradients of the row and of its weight.
        mine = (trips * D * number) + (trips - 1) * weight
        guest = (trips * D * number) + weight
        numbers = [
            self._tokens,
            rows_SG.sum(1).tolist(),
            flops_S.tolist(),
            (away_S * mine + guests_S * guest).tolist(),
        ]
        self._counts, self._tokens = [], []
        ranks = gather(numbers)
        steps = len(numbers[0])
        return [
            {name: [rank[number][step] for rank in ranks] for number, name in enumerate(NUMBERS)}
            for step in range(steps)
        ]
