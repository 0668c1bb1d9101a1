"""Our models as a model of lm-eval, by the name `mohge`."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from evaluation.generation import Generated, Sampling, generate
from evaluation.harness.answers import Answers
from evaluation.harness.ranks import Ranks, connected_ranks
from evaluation.harness.requests import encode, encode_pairs, sampling
from evaluation.harness.scoring import NOTHING, Pair, Score, Usage, batches_of, fit, score_batch
from evaluation.language_model import LanguageModel, load_language_model
from mohge.errors import RunError, UserError
from mohge.parallel.ranks import found_rank, this_rank

BATCH_SIZE = 32
_VERSION = 1
"""Of what is computed from a request: to be raised when the same request gets another answer."""
_NEW_TOKENS = 256
"""Of a generation whose task does not say how many, as in lm-eval's own models."""


@register_model("mohge")
class MohgeLM(TemplateLM):
    """A model that lm-eval can ask.

    All ranks of the process group, if there is one, get the same requests, share the work, and return the
    same answers: to lm-eval each looks like a single process.

    Args:
        checkpoint: as `load_language_model` takes it.
        batch_size: sequences of a forward pass; "auto" takes 32.
        max_batch_size: unused; lm-eval's command line passes it.
        max_length: tokens of context, at most and by default the model's own.
        max_gen_toks: new tokens of a generation whose task does not say how many.
        device: lm-eval's command line says cuda:0 by default, which becomes cpu where there is no GPU.
        cache: file that keeps answers, so that nothing is asked twice.
        language_model: a model in memory, instead of a checkpoint.
        ranks: that share the work; by default those of the process group.

    Raises:
        UserError: no model can be loaded, or an argument cannot be.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        *,
        batch_size: int | str | None = None,
        max_batch_size: int | str | None = None,
        max_length: int | None = None,
        max_gen_toks: int = _NEW_TOKENS,
        device: str | None = None,
        cache: str | None = None,
        language_model: LanguageModel | None = None,
        ranks: Ranks | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        if unknown:
            raise UserError(
                f"model mohge has no argument {next(iter(unknown))}: it takes checkpoint, max_length, "
                "max_gen_toks and cache"
            )
        if language_model is None:
            if checkpoint is None:
                raise UserError("model mohge needs a checkpoint: add --model_args checkpoint=RUN_DIR")
            language_model = load_language_model(str(checkpoint), _device(device))
        context = language_model.config.model.context
        if max_length is not None and not 1 < int(max_length) <= context:
            raise UserError(f"max_length={max_length} is not between 2 and the model's context of {context}")
        self.language_model = language_model
        self.model = language_model.model
        self.max_length = int(max_length or context)
        self.max_gen_toks = int(max_gen_toks)
        self.batch_size = (
            BATCH_SIZE if batch_size is None or str(batch_size).startswith("auto") else int(batch_size)
        )
        self._device = self.model.embedding.weight.device
        self.ranks = ranks or connected_ranks(lockstep=False)
        self._progress: Callable[[int, int], None] = lambda done, total: None
        self._usage, self._cut = NOTHING, 0
        known = f"{_VERSION} {language_model.digest} {self.max_length} {self._device.type}"
        self._answers = Answers(None, known)
        if cache is not None:  # of the first rank, which reads and writes answers for all
            self.ranks.first(lambda: self._open(Path(cache), known))

    def _open(self, path: Path, known: str) -> None:
        self._answers = Answers(path, known)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a document."""
        return self.language_model.end_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before an empty context."""
        return self.language_model.prefix_token_id

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in lm-eval's own caches of rendered requests."""
        return f"mohge-{self.language_model.tokenizer.get_vocab_size()}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text, after what the model wants before every text, unless that is not wanted."""
        (ids,) = self.language_model.encode([string])
        return ids if add_special_tokens is False else [*self.language_model.begin, *ids]

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """The text of ids."""
        return self.language_model.decode(tokens)

    def on_progress(self, progress: Callable[[int, int], None]) -> None:
        """From now on, tell how many of the requests of a call have been answered, and how many there are."""
        self._progress = progress

    def close(self) -> None:
        """Let go of the file of answers."""
        self._answers.close()

    def take_usage(self) -> tuple[Usage, int]:
        """What all answers since the last call took, those that were kept included, and how many were cut.

        Cut are requests whose context was too long.
        """
        taken = self._usage, self._cut
        self._usage, self._cut = NOTHING, 0
        return taken

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation after its context, and whether it is the greedy one."""
        pairs = encode_pairs(self.language_model, [request.args for request in requests])
        return self._loglikelihood_tokens([(("", ""), *pair) for pair in pairs])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of each request's text, in windows that do not overlap."""
        pairs, owners = [], []
        for owner, ids in enumerate(encode(self.language_model, [request.args[0] for request in requests])):
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, context_len=1)
            for context, continuation in map(make_disjoint_window, windows):
                pairs.append(Pair(tuple(context), tuple(continuation)))
                owners.append(owner)
        sums = [0.0] * len(requests)
        for owner, score in zip(owners, self.score(pairs), strict=True):
            sums[owner] += score.log_likelihood
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A text after each request's context, up to a stop string, the end token or a number of tokens."""
        texts: list[str] = [""] * len(requests)
        by_settings: dict[Sampling, list[int]] = {}
        for index, request in enumerate(requests):
            settings = sampling(request.args[1], self.max_length, self.max_gen_toks)
            by_settings.setdefault(settings, []).append(index)
        for settings, indices in by_settings.items():
            prompts = self._prompts([requests[index].args[0] for index in indices], settings)
            for index, text in zip(indices, self._generate(prompts, settings), strict=True):
                texts[index] = text
        return texts

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """Score pairs of any lengths; what is known already is not computed."""
        self._cut += sum(pair.positions > self.max_length for pair in pairs)
        fitting = [(owner, part) for owner, pair in enumerate(pairs) for part in fit(pair, self.max_length)]
        parts = [part for _, part in fitting]
        keys = [self._answers.key("score", part.context, part.continuation) for part in parts]

        def compute(some: Sequence[Pair]) -> list[Any]:
            return [_plain(score) for score in score_batch(self.model, some, lockstep=self.ranks.lockstep)]

        found = self._answer(
            keys,
            lambda missing: batches_of([parts[index] for index in missing], self.batch_size),
            lambda batch: compute([parts[index] for index in batch]),
            lambda: compute([Pair((self.eot_token_id,), (self.eot_token_id,))]),
        )
        scores = [Score(0.0, greedy=True, usage=NOTHING)] * len(pairs)
        for (owner, _), answer in zip(fitting, found, strict=True):
            before, part = scores[owner], _score(answer)
            scores[owner] = Score(
                before.log_likelihood + part.log_likelihood,
                before.greedy and part.greedy,
                before.usage + part.usage,
            )
        self._count(dict(zip(keys, (_score(answer).usage for answer in found), strict=True)))
        return scores

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = [Pair(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        return [(score.log_likelihood, score.greedy) for score in self.score(pairs)]

    def _prompts(self, contexts: Sequence[str], settings: Sampling) -> list[list[int]]:
        """Ids of contexts, cut on the left where new tokens would not fit into the model's context."""
        room = max(1, self.max_length - settings.max_new_tokens)
        prompts = self.language_model.prompts(contexts)
        self._cut += sum(len(prompt) > room for prompt in prompts)
        return [prompt[-room:] for prompt in prompts]

    def _generate(self, prompts: Sequence[list[int]], settings: Sampling) -> list[str]:
        plain = [settings.max_new_tokens, settings.temperature, settings.top_k, settings.top_p, settings.stop]
        # The place of a prompt among its equals is part of its name: samples of one prompt differ.
        again: Counter[tuple[int, ...]] = Counter()
        keys = []
        for prompt in prompts:
            keys.append(self._answers.key("generate", prompt, plain, settings.seed, again[tuple(prompt)]))
            again[tuple(prompt)] += 1 if settings.temperature else 0
        order = [Pair(tuple(prompt), (0,)) for prompt in prompts]
        answers = self._answer(
            keys,
            lambda missing: batches_of([order[index] for index in missing], self.batch_size),
            lambda batch: self._generate_batch(
                [prompts[index] for index in batch],
                [int(keys[index][:15], 16) for index in batch],  # what is drawn depends on the request alone
                settings,
            ),
            lambda: self._generate_batch([], [], settings),
        )
        self._count(dict(zip(keys, (_usage(answer[1:]) for answer in answers), strict=True)))
        return [answer[0] for answer in answers]

    def _count(self, usages: dict[str, Usage]) -> None:
        """Add what requests took, by their keys: equal ones are computed once."""
        for usage in usages.values():
            self._usage += usage

    def _answer(
        self,
        keys: Sequence[str],
        batches: Callable[[list[int]], list[list[int]]],
        compute: Callable[[list[int]], list[Any]],
        idle: Callable[[], object],
    ) -> list[Any]:
        """The answers of all keys; those that are not kept are computed by all ranks together.

        Args:
            keys: of the requests.
            batches: cuts indices of requests into batches of them, given as places in its argument.
            compute: answers a batch of indices.
            idle: forward passes of a rank without a batch.
        """
        asked = hashlib.sha256("".join(keys).encode()).hexdigest()
        if len(set(self.ranks.meet("a list of requests", asked))) > 1:
            raise RunError("ranks have different requests: do all machines have the same benchmarks?")
        found = self.ranks.first(lambda: self._answers.find(keys))
        missing = list({key: index for index, key in enumerate(keys) if key not in found}.values())
        self._progress(len(keys) - len(missing), len(keys))

        def keep(batch: list[int], answers: list[Any]) -> None:
            new = [(keys[index], answer) for index, answer in zip(batch, answers, strict=True)]
            self.ranks.first(lambda: self._answers.add(new))
            found.update(new)
            self._progress(min(len(keys), len(found)), len(keys))

        cut = [[missing[place] for place in batch] for batch in batches(missing)]
        self.ranks.rounds(cut, compute, keep, idle)
        self._progress(len(keys), len(keys))  # equal requests were answered once
        return [found[key] for key in keys]

    def _generate_batch(
        self, prompts: Sequence[list[int]], indices: Sequence[int], settings: Sampling
    ) -> list[Any]:
        started = time.perf_counter()
        usages = [NOTHING] * len(prompts)

        def observe(rows: Sequence[int], counts_RG: torch.Tensor, tokens_R: Sequence[int]) -> None:
            for row, counts, tokens in zip(rows, counts_RG.tolist(), tokens_R, strict=True):
                usages[row] += Usage(tokens, 0.0, tuple(counts))

        made: list[Generated] = generate(
            self.model,
            self.language_model.tokenizer,
            prompts,
            settings,
            end_token_id=self.eot_token_id,
            indices=indices,
            observe=observe,
            agree=self.ranks.any if self.ranks.lockstep else None,
        )
        share = (time.perf_counter() - started) / max(1, sum(usage.tokens for usage in usages))
        return [
            [one.text, usage.tokens, share * usage.tokens, usage.choices_G]
            for one, usage in zip(made, usages, strict=True)
        ]


def _plain(score: Score) -> list[Any]:
    """As it is kept."""
    usage = score.usage
    return [score.log_likelihood, score.greedy, usage.tokens, usage.seconds, usage.choices_G]


def _score(plain: list[Any]) -> Score:
    return Score(plain[0], plain[1], _usage(plain[2:]))


def _usage(plain: list[Any]) -> Usage:
    tokens, seconds, choices_G = plain
    return Usage(tokens, seconds, tuple(choices_G))


def _device(named: str | None) -> str:
    """What lm-eval's command line asks for, as far as it is there; of several ranks each has a GPU."""
    if named is not None and not named.startswith("cuda"):
        return named
    if not torch.cuda.is_available():
        return "cpu"
    return (named or "cuda") if found_rank() is None else f"cuda:{this_rank().local_index}"
