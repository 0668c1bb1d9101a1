"""Arms of a comparison: evaluations of checkpoints that differ in seed alone; and the baseline among them."""

from __future__ import annotations

import itertools
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
    is_numbered: bool = False
    """Whether nothing but a number in its name tells it from another."""

    @property
    def results(self) -> Results:
        """Of the first seed; the design is that of all."""
        return self.evaluations[0].results

    @property
    def seeds(self) -> list[int | None]:
        """Of each evaluation; None where it is not known."""
        return [evaluation.results.seed for evaluation in self.evaluations]


@dataclass(frozen=True)
class _Part:
    """One thing that evaluations of different designs may differ in."""

    key: Callable[[Results], Hashable]
    label: Callable[[Results], str]
    exact: Callable[[Results], str] | None = None
    """The label where the rounded one is the same for different keys."""


def _widths(results: Results) -> str:
    return "widths " + "-".join(map(str, results.widths)) if results.widths else "dense"


def _tokens(results: Results, shown: Callable[[float], str]) -> str:
    seen = results.training_tokens
    return "unknown training" if seen is None else f"{shown(seen)} tokens"


def _total(results: Results, shown: Callable[[float], str]) -> str:
    return f"{shown(results.parameters.total)} parameters"


def _active(results: Results, shown: Callable[[float], str]) -> str:
    return f"{shown(results.parameters.active)} active parameters"


def short(value: float) -> str:
    """Four digits and a unit, such as 3.190M; the exact value is in comparison.json."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:#.4g}".rstrip(".") + unit
    return f"{value:.0f}"


def _whole(value: float) -> str:
    return f"{value:,}"


def without_seed(name: str) -> str:
    """A run's name without its seed: `nano-mohge` of `nano-mohge-seed1`."""
    return re.sub(r"[-_ ]?seed[=_]?\d+", "", name)


def _plain_name(results: Results) -> str:
    return without_seed(results.name)


_PARTS = (
    _Part(lambda results: results.arch, lambda results: results.arch),
    _Part(lambda results: results.model, lambda results: results.model or "unknown size"),
    _Part(lambda results: results.corpus, lambda results: results.corpus or "unknown corpus"),
    _Part(
        lambda results: results.training_tokens,
        lambda results: _tokens(results, short),
        lambda results: _tokens(results, _whole),
    ),
    _Part(lambda results: results.widths, _widths),
    _Part(
        lambda results: results.parameters.total,
        lambda results: _total(results, short),
        lambda results: _total(results, _whole),
    ),
    _Part(
        lambda results: results.parameters.active,
        lambda results: _active(results, short),
        lambda results: _active(results, _whole),
    ),
    _Part(
        lambda results: results.corpus_fingerprint,
        lambda results: f"text {(results.corpus_fingerprint or 'unknown')[:8]}",
        lambda results: f"text {results.corpus_fingerprint or 'unknown'}",
    ),
    _Part(lambda results: results.design, _plain_name),
    _Part(_plain_name, _plain_name),
)
"""What makes a design, each with how it is named; the first that tell arms apart make their names."""
_TEXT, _DESIGN = _PARTS[-3:-1]
"""Checksums of the corpus and of all settings, which not all evaluations know."""
_ARCH, _LIKENESS = _PARTS[0], (*_PARTS[1:4], _TEXT)
_OUTSIDE = _PARTS[:-3]
"""What results.json says of the model itself."""


def arms_of(evaluations: Sequence[Evaluation]) -> list[Arm]:
    """Evaluations grouped by design, in order of appearance, seeds in order.

    An arm is named by what tells it from the others: `mohge`, `nano mohge` where there are several sizes;
    where nothing that is known does, by a number. No two have one name. An evaluation whose settings were
    not recorded belongs to the one design that is like it in all else, and one whose seed is not known is an
    arm by itself.

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
    groups = [part for group in _grouped(evaluations, _OUTSIDE) for part in _designs(group)]
    for group in groups:
        twins = _same_seed(group)
        if twins is not None:
            first, second = (one.folder for one in twins)
            raise UserError(
                f"{first} and {second} are of one design ({group[0].results.arch}) and seed "
                f"{twins[0].results.seed}, and nothing tells them apart: give one, or runs of other names"
            )
        group.sort(key=lambda one: one.results.seed or 0)
    return _named(groups)


def _designs(group: Sequence[Evaluation]) -> list[list[Evaluation]]:
    """Parts of a group of models that look alike: by settings, and by name where seeds are still the same."""
    unknown = [[one] for one in group if one.results.seed is None]
    seeded = [one for one in group if one.results.seed is not None]
    parts = [seeded] if seeded else []
    for checksum in (_DESIGN, _TEXT):
        parts = [finer for part in parts for finer in _split(part, checksum)]
    told = [part for part in _PARTS if part is not _TEXT]  # which not all know, and so tells no two apart
    finer = [_grouped(part, told) if _same_seed(part) else [part] for part in parts]
    return [*(part for found in finer for part in found), *unknown]


def _split(part: list[Evaluation], checksum: _Part) -> list[list[Evaluation]]:
    """By a checksum, if several are known; one that is not known is then by itself."""
    known = {checksum.key(one.results) for one in part} - {None}
    return _grouped(part, [checksum]) if len(known) > 1 else [part]


def _named(groups: Sequence[list[Evaluation]]) -> list[Arm]:
    firsts = [group[0].results for group in groups]
    kept = [_ARCH, *_telling(firsts)]
    if len(groups) > 1 and len({results.arch for results in firsts}) == 1:
        kept = kept[1:] or kept
    columns = [_labels(part, firsts) for part in kept]
    names = [" ".join(dict.fromkeys(labels)) for labels in zip(*columns, strict=True)]
    numbered = [names.count(name) > 1 for name in names]
    taken = set(names)
    for place, name in enumerate(names):
        if numbered[place]:
            names[place] = next(new for n in itertools.count(1) if (new := f"{name} ({n})") not in taken)
            taken.add(names[place])
    assert len(set(names)) == len(groups), "names of arms are keys"
    return [
        Arm(name, tuple(group), number) for name, group, number in zip(names, groups, numbered, strict=True)
    ]


def _labels(part: _Part, firsts: Sequence[Results]) -> list[str]:
    """Of each arm: rounded figures, or exact ones if rounding makes two of them equal."""
    labels = list(map(part.label, firsts))
    if part.exact is not None and len(set(labels)) < len(set(map(part.key, firsts))):
        return list(map(part.exact, firsts))
    return labels


def baselines_of(arms: Sequence[Arm], asked: str | None) -> dict[str, str | None]:
    """For each arm the name of the arm that it is compared with; None for a baseline itself.

    Where several arms are called what is asked for, each arm gets the one most like it in size, corpus and
    training.

    Args:
        arms: of `arms_of`.
        asked: an arm's name, an architecture, a run's name, or the path of a run, a checkpoint or an
            evaluation; None for architecture moe, or the first arm if there is none.

    Raises:
        UserError: nothing of the name is there, or several arms that are alike in size, corpus and training.
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
    if asked is not None:
        _check_one_is_meant(asked, chosen)
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


def _check_one_is_meant(asked: str, chosen: Sequence[Arm]) -> None:
    """Refuses a word for arms that no arm can be more or less like: the order of checkpoints would decide."""
    for first, second in itertools.combinations(chosen, 2):
        if all(part.key(first.results) == part.key(second.results) for part in _LIKENESS):
            raise UserError(
                f"baseline={asked} means {_place(first)} as well as {_place(second)}, which are not seeds of "
                "one configuration: give the folder of one run"
            )


def _place(arm: Arm) -> str:
    return arm.results.run or arm.results.checkpoint


def _paths(one: Evaluation) -> set[str]:
    named = (one.results.run, one.results.checkpoint, str(one.folder))
    return {_absolute(path) for path in named if path is not None}


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _likeness(arm: Arm, base: Arm) -> int:
    pairs = [(part.key(arm.results), part.key(base.results)) for part in _LIKENESS]
    return sum(mine == theirs and mine is not None for mine, theirs in pairs)


def _grouped(evaluations: Sequence[Evaluation], parts: Sequence[_Part]) -> list[list[Evaluation]]:
    groups: dict[Hashable, list[Evaluation]] = {}
    for one in evaluations:
        groups.setdefault(tuple(part.key(one.results) for part in parts), []).append(one)
    return list(groups.values())


def _telling(firsts: Sequence[Results]) -> list[_Part]:
    """Parts of the design, after the architecture, that are needed to tell groups apart."""
    kept: list[_Part] = []
    seen: list[tuple[Hashable, ...]] = [(results.arch,) for results in firsts]
    for part in _PARTS[1:]:
        finer = [(*before, part.key(results)) for before, results in zip(seen, firsts, strict=True)]
        if len(set(finer)) > len(set(seen)):
            kept.append(part)
        seen = finer
    return kept


def _same_seed(group: Sequence[Evaluation]) -> tuple[Evaluation, Evaluation] | None:
    """Two evaluations of a group that have one seed, if there are; seeds that are not known are not one."""
    seen: dict[int, Evaluation] = {}
    for one in group:
        seed = one.results.seed
        if seed is None:
            continue
        if seed in seen:
            return seen[seed], one
        seen[seed] = one
    return None
