"""What a comparison cannot say, said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluation.benchmarks.arms import Arm, without_seed
from evaluation.benchmarks.pairing import MISSING, partners
from evaluation.benchmarks.reading import Results

_ROUGH = 10
"""Items on which two models differ, below which a bootstrap interval is rough."""


def remarks(comparison: Mapping[str, Any], arms: Sequence[Arm], bases: Mapping[str, str | None]) -> list[str]:
    """Sentences on failures, unfair or impossible comparisons, few seeds and scores that say nothing.

    Args:
        comparison: of `comparing.compare`, all but its remarks.
        arms: that it compares.
        bases: for each arm the name of its baseline.
    """
    by_name = {arm.name: arm for arm in arms}
    compared = [(arm, by_name[base]) for arm in arms if (base := bases[arm.name]) is not None]
    found = [*_failed(comparison), *_absent(comparison), *_limited(arms), *_alike(arms), *_unknown(arms)]
    found += _one_seed(compared)
    for arm, base_arm in compared:
        found += [*_unfair(arm, base_arm), *_seeds(arm, base_arm)]
    found += [*_not_compared(comparison), *_same_difference(comparison), *_rough(comparison)]
    found += [*_guessing(comparison), *_nothing_right(comparison), *_macro(comparison)]
    return list(dict.fromkeys(found))


def _failed(comparison: Mapping[str, Any]) -> Iterator[str]:
    for checkpoint in comparison["checkpoints"]:
        for task, facts in checkpoint["tasks"].items():
            if facts["status"] == "failed":
                error = (facts["error"] or "no reason is told").rstrip(".")
                yield f"{_label(comparison, task)} failed for {checkpoint['name']}: {error}."
                continue
            if facts["metrics"][facts["primary"]]["value"] is None:
                what = f"{facts['primary']} of {checkpoint['name']}"
                yield f"{_label(comparison, task)}: {what} is not a finite number."


def _absent(comparison: Mapping[str, Any]) -> Iterator[str]:
    """Tasks that an evaluation lacks altogether, as one of another suite does."""
    found: dict[str, list[str]] = {}
    for checkpoint in comparison["checkpoints"]:
        lacking = [
            facts["label"] for task, facts in comparison["tasks"].items() if task not in checkpoint["tasks"]
        ]
        if lacking:
            found.setdefault(", ".join(lacking), []).append(_named(comparison, checkpoint))
    for labels, names in found.items():
        yield f"Evaluated without {labels}, and so not compared there: {', '.join(names)}."


def _limited(arms: Sequence[Arm]) -> Iterator[str]:
    every = [one.results for arm in arms for one in arm.evaluations]
    limits = {results.settings.limit for results in every}
    if limits != {None}:
        shown = ", ".join("all" if limit is None else f"{limit:g}" for limit in sorted(limits, key=str))
        yield f"Not all items of the tasks were asked (limit: {shown})."
    contexts = {results.settings.context for results in every}
    if len(contexts) > 1:
        shown = ", ".join(sorted(map(str, contexts)))
        yield f"Contexts differ ({shown} tokens): long items are cut differently."
    cut: Counter[str] = Counter()
    for results in every:
        for task in results.tasks.values():
            cut[task.label] = max(cut[task.label], task.cost.cut_contexts if task.cost else 0)
    if cut.total():
        shown = ", ".join(f"{label} ({n})" for label, n in cut.items() if n)
        yield f"Contexts that were cut on the left to fit the model, at most: {shown} requests."
    machines = {
        (results.settings.device, results.settings.batch_size, results.settings.ranks) for results in every
    }
    if len(machines) > 1:
        yield "Devices, batch sizes or ranks differ between the evaluations: do not compare their speed."


def _alike(arms: Sequence[Arm]) -> Iterator[str]:
    numbered = [f"{arm.name} is {arm.results.checkpoint}" for arm in arms if arm.is_numbered]
    if numbered:
        yield f"Told apart by numbers, as nothing else that is recorded does: {'; '.join(numbered)}."
    for arm in arms:
        names = dict.fromkeys(without_seed(one.results.name) for one in arm.evaluations)
        if len(names) > 1 and any(one.results.design is None for one in arm.evaluations):
            yield (
                f"{arm.name}: settings were not recorded, and runs of unlike names ({', '.join(names)}) are "
                "taken for seeds of one design; if they are not, evaluate the checkpoints again."
            )


def _unknown(arms: Sequence[Arm]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for arm in arms:
        results = arm.results
        facts = {
            "seed": results.seed,
            "corpus": results.corpus,
            "training tokens": results.training_tokens,
            "model size": results.model,
        }
        lacking = ", ".join(what for what, fact in facts.items() if fact is None)
        if lacking:
            found.setdefault(lacking, []).append(arm.name)
    for lacking, names in found.items():
        yield f"Not known, and so not compared, of {', '.join(names)}: {lacking}."


def _one_seed(compared: Sequence[tuple[Arm, Arm]]) -> Iterator[str]:
    alone = [arm.name for arm, base in compared if len(partners(arm, base)) == 1]
    if alone:
        yield (
            f"{' and '.join(alone)} {'is' if len(alone) == 1 else 'are'} compared in one training: intervals "
            "and p are about these checkpoints on other items like these, and there is no interval over "
            "seeds."
        )


def _unfair(arm: Arm, base: Arm) -> Iterator[str]:
    pairs = (
        ("architecture", arm.results.arch, base.results.arch),
        ("training tokens", arm.results.training_tokens, base.results.training_tokens),
        ("corpus", *_corpora(arm.results, base.results)),
        ("model size", arm.results.model, base.results.model),
    )
    differing = [
        f"{what} ({mine} and {theirs})"
        for what, mine, theirs in pairs
        if mine != theirs and mine is not None and theirs is not None
    ]
    if len(differing) > 1:
        yield f"{arm.name} and {base.name} differ in more than one way: {', '.join(differing)}."


def _corpora(mine: Results, theirs: Results) -> tuple[str | None, str | None]:
    """Their names, with checksums where only these differ."""
    texts = (mine.corpus_fingerprint, theirs.corpus_fingerprint)
    if mine.corpus != theirs.corpus or None in texts or texts[0] == texts[1]:
        return mine.corpus, theirs.corpus
    return f"{mine.corpus} {str(texts[0])[:8]}", f"{theirs.corpus} {str(texts[1])[:8]}"


def _seeds(arm: Arm, base: Arm) -> Iterator[str]:
    pairs = partners(arm, base)
    if not pairs:
        mine, theirs = (
            ", ".join("unknown" if seed is None else str(seed) for seed in one.seeds) for one in (arm, base)
        )
        yield (
            f"{arm.name} (seeds {mine}) and {base.name} (seeds {theirs}) have no seed in common: "
            "not compared."
        )
        return
    if len(pairs) == 1:
        seeds = [one.results.seed for one in pairs[0]]
        if seeds[0] != seeds[1] and None not in seeds:
            yield f"{arm.name} and {base.name} have different seeds ({seeds[0]} and {seeds[1]})."
    if len(pairs) == 2:
        yield (
            f"{arm.name} and {base.name} share two seeds only: t intervals are very wide (12.7 standard "
            "errors to either side); a third seed makes that 4.3."
        )
    alone = [
        f"{one.name} seed {seed}"
        for one, place in ((arm, 0), (base, 1))
        for seed in one.seeds
        if seed not in {pair[place].results.seed for pair in pairs}
    ]
    if alone:
        yield f"Without a partner of the same seed, and so not in the differences: {', '.join(alone)}."


def _not_compared(comparison: Mapping[str, Any]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for arm in comparison["arms"].values():
        for task, facts in arm["tasks"].items():
            why = facts["not_compared"]
            if why is not None and not why.startswith(MISSING):
                found.setdefault(why, []).append(_label(comparison, task))
    for why, labels in found.items():
        yield f"Not compared: {', '.join(labels)}, as {why}."


def _same_difference(comparison: Mapping[str, Any]) -> Iterator[str]:
    for name, arm in comparison["arms"].items():
        found = {_label(comparison, task): facts["difference"] for task, facts in arm["tasks"].items()}
        found["the macro average"] = (arm["macro"] or {}).get("difference")
        labels = [
            label for label, one in found.items() if one and one["basis"] == "seeds" and one["p"] is None
        ]
        if labels:
            yield (
                f"{name} less {arm['baseline']} on {', '.join(labels)}: the same in all seeds, to the last "
                "item: no t interval and no test."
            )


def _rough(comparison: Mapping[str, Any]) -> Iterator[str]:
    for name, arm in comparison["arms"].items():
        few = []
        for task, facts in arm["tasks"].items():
            difference = facts["difference"]
            on_items = difference is not None and difference["basis"] == "items"
            counts = [one["differing"] for one in difference["by_seed"]] if on_items else []
            known = [count for count in counts if count is not None]
            if known and min(known) < _ROUGH:
                few.append(f"{_label(comparison, task)} ({min(known)})")
        if few:
            yield (
                f"{name} and {arm['baseline']} differ on very few items of {', '.join(few)}: "
                "bootstrap intervals are rough there; go by p."
            )


def _guessing(comparison: Mapping[str, Any]) -> Iterator[str]:
    for verdict, said in (
        (
            "not distinguishable from guessing",
            "Not distinguishable from guessing (chance is in the 95% interval)",
        ),
        ("below", "Below guessing, which hints at answers that are preferred for their form"),
    ):
        counts: dict[str, Counter[str]] = {}
        for checkpoint in comparison["checkpoints"]:
            for task, facts in checkpoint["tasks"].items():
                if facts.get("against_chance") == verdict:
                    counts.setdefault(checkpoint["arm"], Counter())[_label(comparison, task)] += 1
        shown = []
        for arm, found in counts.items():
            seeds = len(comparison["arms"][arm]["seeds"])
            labels = [f"{label} ({n} of {seeds} seeds)" if seeds > 1 else label for label, n in found.items()]
            shown.append(f"{arm} on {', '.join(labels)}")
        if shown:
            yield f"{said}: {'; '.join(shown)}."


def _nothing_right(comparison: Mapping[str, Any]) -> Iterator[str]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for checkpoint in comparison["checkpoints"]:
        for task, facts in checkpoint["tasks"].items():
            if facts["status"] != "done" or not comparison["tasks"][task]["in_percent"]:
                continue
            score = facts["metrics"][facts["primary"]]
            if score["value"] in (0, 1) and score["low"] is not None:
                what = "no item is right" if score["value"] == 0 else "every item is right"
                ends = f"{100 * score['low']:.3g} to {100 * score['high']:.3g}%"
                found.setdefault((task, what, ends), []).append(_named(comparison, checkpoint))
    for (task, what, ends), names in found.items():
        yield (
            f"{_label(comparison, task)}: {what} in {', '.join(names)}; the standard error of 0 says "
            f"nothing, the 95% interval is {ends}."
        )


def _macro(comparison: Mapping[str, Any]) -> Iterator[str]:
    left_out = [
        facts["label"] for name, facts in comparison["tasks"].items() if name not in comparison["macro_tasks"]
    ]
    if comparison["macro_tasks"] and left_out:
        yield (
            f"Not in the macro average, which needs a score between 0 and 1 on the same items in every "
            f"evaluation: {', '.join(left_out)}."
        )


def _named(comparison: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> str:
    """The arm, with the seed where the arm has several."""
    arm = checkpoint["arm"]
    seeds = comparison["arms"][arm]["seeds"]
    return f"{arm} seed {checkpoint['seed']}" if len(seeds) > 1 else str(arm)


def _label(comparison: Mapping[str, Any], task: str) -> str:
    known = comparison["tasks"].get(task)
    return str(known["label"]) if known else task
