"""A MoE layer whose experts are spread over ranks, under routings that no router would choose."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from mohge.config.schema import ExpertsConfig, Kernel, RouterConfig
from mohge.moe.decision import RoutingDecision
from mohge.moe.layer import MoELayer
from mohge.parallel.mesh import build_mesh
from mohge.parallel.sharding import spread_experts
from mohge.parallel.sizes import MeshSizes

D, WIDTHS, N, K = 16, (16, 32, 48), 4, 2  # whole vectors, so that all kernels can compute them
E, T = len(WIDTHS) * N, 12
"""Tokens of each rank, unless the routing says otherwise."""

Routing = list[list[tuple[int, ...]]]
"""For each rank, the experts of each of its tokens."""


def routings(ranks: int) -> dict[str, Routing]:
    """Twenty of them: one expert, one rank, one group, none of a group, no tokens, and uneven mixtures."""
    everyone = range(ranks)
    groups = [list(range(g * N, (g + 1) * N)) for g in range(len(WIDTHS))]

    def of_rank(rank: int) -> list[int]:
        share = N // ranks
        return [g * N + rank * share + n for g in range(len(WIDTHS)) for n in range(share)]

    def drawn(seed: int, pool: list[int], tokens: list[int]) -> Routing:
        rng = random.Random(seed)
        return [[tuple(rng.sample(pool, K)) for _ in range(count)] for count in tokens]

    even = [T] * ranks
    return {
        "all tokens to one expert, the first": [[(0,)] * T for _ in everyone],
        "all tokens to one expert, the last": [[(E - 1,)] * T for _ in everyone],
        "all tokens to two experts": [[(3, 7)] * T for _ in everyone],
        "none to the narrow group": drawn(1, groups[1] + groups[2], even),
        "none to the middle group": drawn(2, groups[0] + groups[2], even),
        "none to the wide group": drawn(3, groups[0] + groups[1], even),
        "one group alone": drawn(4, groups[1], even),
        "all tokens to the first rank": drawn(5, of_rank(0), even),
        "all tokens to the last rank": drawn(6, of_rank(ranks - 1), even),
        "each rank to itself": [drawn(7 + r, of_rank(r), [T])[0] for r in everyone],
        "each rank to its neighbour": [drawn(17 + r, of_rank((r + 1) % ranks), [T])[0] for r in everyone],
        "no tokens on the first rank": drawn(8, list(range(E)), [0, *even[1:]]),
        "no tokens but on the last rank": drawn(9, list(range(E)), [0] * (ranks - 1) + [T]),
        "no tokens at all": [[] for _ in everyone],
        "one token": drawn(10, list(range(E)), [1] + [0] * (ranks - 1)),
        "uneven numbers of tokens": drawn(11, list(range(E)), [1 + 7 * r for r in everyone]),
        "every expert of a token": [[tuple(range(E))] * 3 for _ in everyone],
        "even": drawn(12, list(range(E)), even),
        "one expert each": [[(t % E,) for t in range(T)] for _ in everyone],
        "a large batch": drawn(13, list(range(E)), [300] * ranks),
    }


def decide(experts: list[tuple[int, ...]], top_k: int, seed: int) -> RoutingDecision:
    """A decision for these experts, with weights of its own."""
    generator = torch.Generator().manual_seed(seed)
    ids_TK = torch.tensor(experts, dtype=torch.int64).view(len(experts), top_k)
    weights_TK = torch.rand(ids_TK.shape, generator=generator).requires_grad_()
    logits_TE = torch.zeros(len(experts), E)
    groups_TG = torch.zeros(len(experts), len(WIDTHS), dtype=torch.bool).scatter_(1, ids_TK // N, True)
    return RoutingDecision(
        expert_ids_TK=ids_TK,
        weights_TK=weights_TK,
        expert_logits_TE=logits_TE,
        joint_probability_TE=logits_TE,
        group_weights_TG=groups_TG.float(),
        group_mask_TG=groups_TG,
        group_logits_TG=None,
        group_top_k=None,
    )


def make_layer(kernel: Kernel) -> MoELayer:
    torch.manual_seed(0)
    experts = ExpertsConfig(widths=WIDTHS, per_group=N, shared=1, shared_width=8, kernel=kernel)
    return MoELayer(D, experts, RouterConfig(kind="top_k", expert_top_k=K))


def tokens_of(rank: int, count: int) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(100 + rank)).requires_grad_()


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def forward_and_backward(layer: MoELayer, routing: Routing, rank: int) -> dict[str, Any]:
    """Output and gradients of this rank's tokens, for the mean over ranks of a made-up loss."""
    top_k = len(next((token for tokens in routing for token in tokens), (0,) * K))
    x_TD, decision = tokens_of(rank, len(routing[rank])), decide(routing[rank], top_k, rank)
    y_TD = layer.compute(x_TD, decision)
    pull_TD = torch.randn(y_TD.shape, generator=torch.Generator().manual_seed(200 + rank))
    (y_TD * pull_TD).sum().backward()
    return {"y": y_TD.detach(), "x": x_TD.grad, "weights": decision.weights_TK.grad}


def spread(kernel: Kernel, ranks: int) -> dict[str, dict[str, Any]]:
    """All routings on `ranks` ranks."""
    mesh, rank = build_mesh(MeshSizes(expert_parallel=ranks), "cpu"), dist.get_rank()
    layer = make_layer(kernel)
    spread_experts(layer, mesh)
    results = {}
    for name, routing in routings(ranks).items():
        results[name] = forward_and_backward(layer, routing, rank)
        results[name] |= {key: whole(p.grad) for key, p in layer.experts.named_parameters()}
        layer.zero_grad()
    return results


def together(kernel: Kernel, ranks: int) -> dict[str, list[dict[str, Any]]]:
    """The same in one process, rank after rank; expert gradients are the means over ranks."""
    layer = make_layer(kernel)
    results = {}
    for name, routing in routings(ranks).items():
        results[name] = [forward_and_backward(layer, routing, rank) for rank in range(ranks)]
        gradients = {key: p.grad / ranks for key, p in layer.experts.named_parameters()}
        results[name] = [result | gradients for result in results[name]]
        layer.zero_grad()
    return results
