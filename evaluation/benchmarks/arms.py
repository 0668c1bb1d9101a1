"""Arms of a comparison: evaluations of checkpoints that differ in seed alone; and the baseline among them."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.benchmarks.reading import Evaluation, Results
from mohge.errors import UserError

_BASELINE = "moe"
"""The architecture that is the baseline where none is named."""


@dataclass(frozen=True)
class Arm:
    """Evaluations of one design, by seed."""

    name: str
    evaluations: tuple[Evaluation, ...]

    @property
    def results(self) -> Results:
        """Of the first seed; the design is that of all."""
        return self.evaluations[0].results

    @property
    def seeds(self) -> list[int | None]:
        """Of each evaluation; None where it is not known."""
        return [evaluation.results.seed for evaluation in self.evaluations]


def short(value: float) -> str:
    """Four digits and a unit, such as 3.190M; the exact value is in comparison.json."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:#.4g}".rstrip(".") + unit
    return f"{value:.0f}"


def _widths(results: Results) -> str:
    return "widths " + "-".join(map(str, results.widths)) if results.widths else "dense"


def _tokens(results: Results) -> str:
    seen = results.training_tokens
    return "unknown training" if seen is None else f"{short(seen)} tokens"


_DESIGN: tuple[tuple[Callable[[Results], Hashable], Callable[[Results], str]], ...] = (
    (lambda results: results.arch, lambda results: results.arch),
    (lambda results: results.model, lambda results: results.model or "unknown size"),
    (lambda results: results.corpus, lambda results: results.corpus or "unknown corpus"),
    (lambda results: results.training_tokens, _tokens),
    (lambda results: results.widths, _widths),
    (lambda results: results.parameters, lambda results: f"{short(results.parameters.total)} parameters"),
    (lambda results: _without_seed(results.name), lambda results: _without_seed(results.name)),
)
"""What makes a design, each with how it is named; the first that tell arms apart make their names."""
_ARCH_ALONE = 1
_NAME = len(_DESIGN) - 1
"""A run's name counts only where all else and the seed are the same."""


def arms_of(evaluations: Sequence[Evaluation]) -> list[Arm]:
    """Evaluations grouped by design, in order of appearance, seeds in order.

    An arm is named by what tells it from the others: `mohge`, `nano mohge` where there are several sizes.

    Raises:
        UserError: two evaluations of one checkpoint, or of two that differ in nothing that is known.
    """
    checkpoints: dict[str, Path] = {}
    for one in evaluations:
        other = checkpoints.setdefault(_absolute(one.results.checkpoint), one.folder)
        if other is not one.folder:
            raise UserError(
                f"{other} and {one.folder} are evaluations of one checkpoint, {one.results.checkpoint}: "
                "give one"
            )
    groups = _grouped(evaluations, _NAME)
    finer = [_grouped(group, _NAME + 1) if _same_seed(group) else [group] for group in groups]
    groups = [group for parts in finer for group in parts]
    for group in groups:
        twins = _same_seed(group)
        if twins is not None:
            first, second = (one.folder for one in twins)
            raise UserError(
                f"{first} and {second} are of one design ({group[0].results.arch}) and seed "
                f"{twins[0].results.seed}, and nothing tells them apart: give one, or runs of other names"
            )
    kept = [_DESIGN[0][1], *_telling([group[0].results for group in groups])]
    firsts = [group[0].results for group in groups]
    if len(groups) > 1 and len({results.arch for results in firsts}) == 1:
        kept = kept[1:]
    return [
        Arm(
            " ".join(dict.fromkeys(label(group[0].results) for label in kept)),
            tuple(sorted(group, key=lambda one: (one.results.seed is None, one.results.seed or 0))),
        )
        for group in groups
    ]


def baselines_of(arms: Sequence[Arm], asked: str | None) -> dict[str, str | None]:
    """For each arm the name of the arm that it is compared with; None for a baseline itself.

    Where the baseline's architecture has several arms, each arm gets the one most like it in size, corpus and
    training.

    Args:
        arms: of `arms_of`.
        asked: an arm's name, an architecture, a run's name, or the path of a run, a checkpoint or an
            evaluation; None for architecture moe, or the first arm if there is none.

    Raises:
        UserError: nothing of the name is there.
    """
    if asked is None:
        chosen = [arm for arm in arms if arm.results.arch == _BASELINE] or [arms[0]]
    else:
        chosen = next(
            (found for known in _KNOWN if (found := [arm for arm in arms if known(arm, asked)])), []
        )
    if not chosen:
        names = ", ".join(dict.fromkeys([*(arm.name for arm in arms), *(arm.results.arch for arm in arms)]))
        raise UserError(f"baseline={asked} is not among the evaluations: choose one of {names}, or a run")
    return {
        arm.name: None if arm in chosen else max(chosen, key=lambda base: _likeness(arm, base)).name
        for arm in arms
    }


_KNOWN: tuple[Callable[[Arm, str], bool], ...] = (
    lambda arm, asked: arm.name == asked,
    lambda arm, asked: arm.results.arch == asked,
    lambda arm, asked: any(one.results.name == asked for one in arm.evaluations),
    lambda arm, asked: any(_absolute(asked) in _paths(one) for one in arm.evaluations),
)


def _paths(one: Evaluation) -> set[str]:
    named = (one.results.run, one.results.checkpoint, str(one.folder))
    return {_absolute(path) for path in named if path is not None}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _likeness(arm: Arm, base: Arm) -> int:
    parts = [key for key, _ in _DESIGN[1:4]]
    return sum(key(arm.results) == key(base.results) for key in parts)


def _grouped(evaluations: Sequence[Evaluation], parts: int) -> list[list[Evaluation]]:
    groups: dict[Hashable, list[Evaluation]] = {}
    for one in evaluations:
        groups.setdefault(tuple(key(one.results) for key, _ in _DESIGN[:parts]), []).append(one)
    return list(groups.values())


def _telling(firsts: Sequence[Results]) -> list[Callable[[Results], str]]:
    """Labels, after the architecture's, of the parts of the design that are needed to tell groups apart."""
    kept: list[Callable[[Results], str]] = []
    seen: list[tuple[Hashable, ...]] = [(results.arch,) for results in firsts]
    for key, label in _DESIGN[_ARCH_ALONE:]:
        finer = [(*before, key(results)) for before, results in zip(seen, firsts, strict=True)]
        if len(set(finer)) > len(set(seen)):
            kept.append(label)
        seen = finer
    return kept


def _same_seed(group: Sequence[Evaluation]) -> tuple[Evaluation, Evaluation] | None:
    """Two evaluations of a group that have one seed, if there are."""
    seen: dict[int | None, Evaluation] = {}
    for one in group:
        if one.results.seed in seen:
            return seen[one.results.seed], one
        seen[one.results.seed] = one
    return None


def _without_seed(name: str) -> str:
    return re.sub(r"[-_ ]?seed[=_]?\d+", "", name)
