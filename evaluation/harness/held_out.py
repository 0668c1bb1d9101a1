"""Bits per byte of the held-out text of the corpus that a run has read, by domain.

Shapes: B batch, S sequence, V vocabulary, N windows.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from evaluation.harness.bridge import MohgeLM
from evaluation.harness.evaluating import no_held_out
from evaluation.harness.results import Found, Item, task_entry
from evaluation.harness.scoring import Pair
from evaluation.language_model import LanguageModel
from evaluation.statistics.scores import by_cluster, score, standard_error
from evaluation.tokens.source import open_own

NAME = "held_out"
_LABEL = "held-out text"


def score_held_out(lm: MohgeLM, tokens: int | None, progress: Callable[[str, int, int], None]) -> list[Found]:
    """Score windows of held-out text: facts as of a task, with a subtask for each domain.

    Args:
        lm: answers; its model is of a run.
        tokens: to score, about; None for all.
        progress: called with a label, windows scored and all windows.

    Raises:
        UserError: the corpus is gone, or is not what it was.
    """
    model = lm.language_model
    lm.on_progress(lambda done, total: progress(_LABEL, done, total))
    data = _open(model)
    sample = data.val_dataloader() if tokens is None else data.validation_sample(tokens)
    pairs, names = [], []
    clusters = [str(sample.dataset.document(number)) for some in sample.batch_sampler for number in some]
    for batch in sample:
        for window, domain in zip(batch["tokens"].tolist(), batch["domain"].tolist(), strict=True):
            pairs.append(Pair((window[0],), tuple(window[1:])))
            names.append(data.domains[domain])
    token_bytes_V = data.token_bytes_V.tolist()
    items: list[Item] = []
    counts = dict.fromkeys(data.domains, 0)
    for domain, document, pair, found in zip(names, clusters, pairs, lm.score(pairs), strict=True):
        content = hashlib.sha256(repr(pair.continuation).encode()).hexdigest()
        nats = -found.log_likelihood
        size = sum(token_bytes_V[token] for token in pair.continuation)
        metrics: dict[str, Any] = {
            "bits_per_byte": [nats / math.log(2), float(size)],
            "loss": [nats, float(len(pair.continuation))],
        }
        items.append(Item(f"{domain}/{counts[domain]}", content, metrics, requests=1, cluster=document))
        counts[domain] += 1
    usage, cut = lm.take_usage()
    subtasks = {
        domain: {"items": count, "metrics": _metrics(_of(items, domain))}
        for domain, count in counts.items()
        if count
    }
    entry = task_entry(model.config, _LABEL, items, _metrics(items), subtasks, 0, 1.0, usage, cut)
    return [Found(NAME, entry, items)]


def _open(model: LanguageModel) -> Any:
    """The data module of the corpus that the run has read."""
    if model.corpus is None:
        raise no_held_out(model.source)
    return open_own(model.source, model.config, model.corpus, False, otherwise="use eval.held_out=0")


def _of(items: Sequence[Item], domain: str) -> list[Item]:
    return [item for item in items if item.name.rpartition("/")[0] == domain]


def _metrics(items: Sequence[Item]) -> dict[str, dict[str, Any]]:
    metrics = {}
    for name in ("bits_per_byte", "loss"):
        parts_N2 = np.array([item.metrics[name] for item in items], dtype=np.float64)
        metrics[name] = {
            "value": score(parts_N2),
            "stderr": standard_error(by_cluster(parts_N2, [str(item.cluster) for item in items])),
            "aggregation": "ratio",
            "higher_is_better": False,
        }
    return metrics
