"""One pass of a model over windows of text, without gradients.

Shapes: B batch, S sequence, P positions, T = B * S, L layers, G groups, K experts per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from evaluation.tokens.record import Pairs, Record
from mohge.config.schema import TrainConfig
from mohge.model.transformer import TransformerLM
from mohge.moe.decision import RoutingDecision

_PENDING = 1 << 20
"""Pairs that are kept before equal ones are put together: bounds the memory of a long text."""


def scan(
    model: TransformerLM,
    config: TrainConfig,
    batches: Iterable[dict[str, Tensor]],
    domains: tuple[str, ...],
    advance: Callable[[int], None],
) -> Record:
    """Score and route every token of the batches.

    Args:
        model: with experts; it is put in evaluation mode.
        config: of the model.
        batches: {"tokens": int64 (B, S+1), "domain": int64 (B,)}.
        domains: their names.
        advance: called with the number of tokens after each batch.
    """
    device = next(model.parameters()).device
    model.eval()
    experts = config.experts
    pairs = [_PairCounts(config.model.vocab_size) for _ in range(config.model.layers)]
    tokens: list[np.ndarray] = []
    losses: list[np.ndarray] = []
    groups: list[np.ndarray] = []
    lengths: list[int] = []
    domain: list[int] = []
    with torch.no_grad():
        for batch in batches:
            tokens_BS = batch["tokens"].to(device)
            inputs_BS = tokens_BS[:, :-1]
            output = model(inputs_BS, tokens_BS[:, 1:], reduction="none")
            inputs_T = inputs_BS.flatten().cpu().numpy()
            for layer, decision in zip(pairs, output.decisions, strict=True):
                layer.add(decision.expert_ids_TK.cpu().numpy(), inputs_T)
            tokens.append(inputs_T.astype(np.int32))
            losses.append(output.loss.flatten().float().cpu().numpy())
            groups.append(np.stack([_groups_TG(decision) for decision in output.decisions], axis=1))
            lengths += [inputs_BS.shape[1]] * inputs_BS.shape[0]
            domain += batch["domain"].tolist()
            advance(inputs_T.size)
    return Record(
        tokens_P=np.concatenate(tokens),
        loss_P=np.concatenate(losses),
        sequence_P=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        domain_N=np.array(domain),
        groups_PLG=np.concatenate(groups),
        pairs=tuple(layer.result() for layer in pairs),
        domains=domains,
        widths=experts.widths,
        per_group=experts.per_group,
    )


def _groups_TG(decision: RoutingDecision) -> np.ndarray:
    """Experts of each group that a token chose: uint8 (T, G)."""
    group_TK = decision.expert_ids_TK // decision.experts_per_group
    zeros_TG = torch.zeros(
        decision.num_tokens, decision.num_groups, dtype=torch.uint8, device=group_TK.device
    )
    return zeros_TG.scatter_add_(1, group_TK, torch.ones_like(group_TK, dtype=torch.uint8)).cpu().numpy()


class _PairCounts:
    """Counts pairs of an expert and a token, of one layer."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def add(self, expert_TK: np.ndarray, token_T: np.ndarray) -> None:
        """Count the experts of each token."""
        keys, rows = np.unique(expert_TK * self._vocab_size + token_T[:, None], return_counts=True)
        self._keys.append(keys)
        self._rows.append(rows)
        if len(self._keys) > 1 and sum(map(len, self._keys)) > _PENDING:
            self._merge()

    def result(self) -> Pairs:
        """All that was counted."""
        self._merge()
        (keys,), (rows,) = self._keys, self._rows
        return Pairs(expert=keys // self._vocab_size, token=keys % self._vocab_size, rows=rows)

    def _merge(self) -> None:
        keys, place = np.unique(np.concatenate(self._keys), return_inverse=True)
        rows = np.bincount(place, weights=np.concatenate(self._rows)).astype(np.int64)
        self._keys, self._rows = [keys], [rows]
