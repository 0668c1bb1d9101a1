"""bench=likelihood: our scoring of continuations against lm-eval's class for transformers, same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from mohge.bench.exported import END, OURS, against_the_best, peers, untrained
from mohge.bench.progress import say
from mohge.bench.rows import Measured, Row
from mohge.bench.step import NO_PEERS
from mohge.config.bench_schema import LikelihoodBenchConfig
from mohge.config.schema import TrainConfig
from mohge.config.targets import build
from mohge.errors import RunError

NOTE = (
    "tokens are those that each continuation and its context have together, but for the last; a context that "
    "several continuations share counts for each of them, also where it is computed once"
)
_CLOSE = 1e-3
"""Largest difference of log-likelihoods, in nats, that rounding may make."""

Pair = tuple[list[int], list[int]]


def measure_likelihood(config: TrainConfig, bench: LikelihoodBenchConfig, device: torch.device) -> Measured:
    """Rows of the libraries: contexts with several continuations, as of multiple choice, then with one each.

    Raises:
        RunError: log-likelihoods differ.
    """
    longest = bench.context_tokens[1] + bench.choice_tokens[1]
    config, ours = untrained(config, longest, device)
    theirs = {name: _in_lm_eval(model, config, bench.batch) for name, model in peers(config, ours).items()}
    measured = Measured(notes=[NOTE] if theirs else [NOTE, NO_PEERS])
    for shape, choices in (("choices", bench.choices), ("single", 1)):
        pairs = _pairs(config, bench, choices)
        ways: dict[str, Callable[[], Sequence[float]]] = {
            OURS: build("bench.ours", bench.ours.target, ours, pairs, bench.batch)
        }
        ways |= {name: partial(_score, model, pairs) for name, model in theirs.items()}
        measured.rows += _rows(config, bench, shape, ways, sum(len(c) + len(w) - 1 for c, w in pairs), device)
    return measured


def _pairs(config: TrainConfig, bench: LikelihoodBenchConfig, choices: int) -> list[Pair]:
    """As many pairs for any number of choices."""
    drawn = torch.Generator().manual_seed(config.seed)

    def ids(least: int, most: int) -> list[int]:
        length = int(torch.randint(least, most + 1, (), generator=drawn))
        return torch.randint(1, config.model.vocab_size, (length,), generator=drawn).tolist()

    contexts = [ids(*bench.context_tokens) for _ in range(bench.questions * bench.choices // choices)]
    return [(context, ids(*bench.choice_tokens)) for context in contexts for _ in range(choices)]


def _rows(
    config: TrainConfig,
    bench: LikelihoodBenchConfig,
    shape: str,
    ways: dict[str, Callable[[], Sequence[float]]],
    tokens: int,
    device: torch.device,
) -> list[Row]:
    say(f"likelihood {shape}: {', '.join(ways)}, {bench.rounds} rounds")
    found = {name: torch.tensor(way(), dtype=torch.float64) for name, way in ways.items()}
    for name, values in found.items():
        difference = float((values - found[OURS]).abs().max())
        if difference > _CLOSE:
            raise RunError(f"log-likelihoods of {name} differ from ours by up to {difference:.2g}")
    return against_the_best(ways, tokens, "likelihood", shape, config, bench, device)


def _in_lm_eval(model: Any, config: TrainConfig, batch: int) -> Any:
    """The model in lm-eval's own class."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(config.model.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(words, [])), eos_token=f"w{END}", pad_token=f"w{END}"
    )
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, max_length=config.model.context)


def _score(model: Any, pairs: Sequence[Pair]) -> list[float]:
    # Texts tell lm-eval which requests are one; they have none here.
    requests = [((str(number), ""), *pair) for number, pair in enumerate(pairs)]
    return [value for value, _ in model._loglikelihood_tokens(requests, disable_tqdm=True)]
