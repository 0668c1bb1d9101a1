"""Scores of evaluations, and the difference of two on the same items.

A quantity is a list of (task, metric): one for a task's metric, several for their macro average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evaluation.benchmarks.arms import Arm
from evaluation.benchmarks.reading import Evaluation
from evaluation.statistics.pairs import Pair, bootstrap_interval, difference, mcnemar, permutation_test
from evaluation.statistics.scores import is_binary, mean_of_scores_error, standard_error
from evaluation.statistics.seeds import over_seeds

Quantity = Sequence[tuple[str, str]]
Checkpoints = tuple[Evaluation, Evaluation]
"""One of an arm, and the one of its baseline that it is paired with."""


MISSING = "there is no score of"
"""Begins the obstacle that a task which one side lacks is."""


def value_of(one: Evaluation, quantity: Quantity) -> float | None:
    """The mean of the metrics' values; None where one is missing or not finite."""
    values = []
    for task, metric in quantity:
        done = one.done(task)
        found = (done.metrics or {}).get(metric) if done else None
        if found is None or not np.isfinite(found.value):
            return None
        values.append(found.value)
    return float(np.mean(values))


def error_of(one: Evaluation, quantity: Quantity) -> float | None:
    """Standard error of `value_of` over items: of the items' figures, else as the evaluation has it."""
    errors = []
    for task, metric in quantity:
        parts_N2, done = one.parts(task, metric), one.done(task)
        recorded = (done.metrics or {})[metric].stderr if done else None
        error = recorded if parts_N2 is None else standard_error(parts_N2)
        if error is None or not np.isfinite(error):
            return None
        errors.append(error)
    return mean_of_scores_error(errors)


def obstacle(one: Evaluation, other: Evaluation, task: str) -> str | None:
    """Why two evaluations of a task cannot be compared; None if they can.

    The sentence goes on after a task's name and a colon.
    """
    mine, theirs = one.done(task), other.done(task)
    if mine is None or theirs is None:
        lacking = one if mine is None else other
        return f"{MISSING} {lacking.results.name}"
    names = " and ".join(_named(one, other))
    for what, a, b in (
        ("few-shot examples", mine.fewshot, theirs.fewshot),
        ("versions of the task", mine.version, theirs.version),
        ("metrics", mine.primary, theirs.primary),
    ):
        if a != b:
            return f"{names} have different {what} ({a} and {b})"
    if one.items[task].keys != other.items[task].keys:
        sizes = "" if mine.items == theirs.items else f" ({mine.items} and {theirs.items})"
        return f"{names} answered different items{sizes}"
    if one.items[task].clusters != other.items[task].clusters:
        return f"{names} do not tell alike which items are of one text: evaluate both again"
    return None


def _named(one: Evaluation, other: Evaluation) -> tuple[str, str]:
    """Names of the runs, with the steps where they are checkpoints of one; of others of one name, paths."""
    mine, theirs = one.results, other.results
    if mine.name != theirs.name:
        return mine.name, theirs.name
    if mine.step != theirs.step:
        return f"{mine.name} at step {mine.step}", f"at step {theirs.step}"
    return mine.checkpoint, theirs.checkpoint


def summary(arm: Arm | None, quantity: Quantity) -> dict[str, Any]:
    """Score of an arm: of one checkpoint with its error over items, of several the mean over seeds.

    Args:
        arm: None where its checkpoints have no score in common.
        quantity: to look at.

    Returns:
        `score`, `by_seed` (in the order of the arm's seeds), `stderr` over items (of one checkpoint, else
        None), `over_seeds` (mean, deviation, t interval; None for one checkpoint). The score is None, and
        with it the rest, where a checkpoint has none.
    """
    values = [value_of(one, quantity) for one in arm.evaluations] if arm is not None else []
    known = [value for value in values if value is not None]
    if arm is None or len(known) < len(values):
        return {"score": None, "by_seed": [], "stderr": None, "over_seeds": None}
    several = over_seeds(known)
    return {
        "score": float(np.mean(known)),
        "by_seed": known,
        "stderr": error_of(arm.evaluations[0], quantity) if len(known) == 1 else None,
        "over_seeds": {key: one for key, one in asdict(several).items() if key != "p"} if several else None,
    }


def partners(arm: Arm, base: Arm) -> list[Checkpoints]:
    """Checkpoints of one known seed; of arms with one checkpoint each these two, whatever their seeds."""
    if len(arm.evaluations) == len(base.evaluations) == 1:
        return [(arm.evaluations[0], base.evaluations[0])]
    of_seed = {one.results.seed: one for one in base.evaluations if one.results.seed is not None}
    return [(one, of_seed[one.results.seed]) for one in arm.evaluations if one.results.seed in of_seed]


def contrast(pairs: Sequence[Checkpoints], quantity: Quantity) -> dict[str, Any] | None:
    """Difference of an arm to its baseline, both on the same items; None where there is none.

    Returns:
        `by_seed`, each the difference of two checkpoints with its bootstrap interval over items and the p of
        its test; `over_seeds`, with at least two; and what to go by: `difference`, `low`, `high`, `p`, and
        `basis`, which is `seeds` with at least two, else `items`, or None where items have no figures.
    """
    by_seed = [_on_items(one, other, quantity) for one, other in pairs]
    if not by_seed or any(found is None for found in by_seed):
        return None
    found = [one for one in by_seed if one is not None]
    several = over_seeds([one["difference"] for one in found])
    plain = None if several is None else asdict(several)
    if plain is not None:
        chosen = {"difference": plain["mean"], **{key: plain[key] for key in ("low", "high", "p")}}
        basis: str | None = "seeds"
    else:
        chosen = {key: found[0][key] for key in ("difference", "low", "high", "p")}
        basis = "items" if found[0]["p"] is not None else None
    return {**chosen, "basis": basis, "over_seeds": plain, "by_seed": found}


def _on_items(one: Evaluation, other: Evaluation, quantity: Quantity) -> dict[str, Any] | None:
    """The difference of two checkpoints, with interval and test where items have figures."""
    mine, theirs = value_of(one, quantity), value_of(other, quantity)
    if mine is None or theirs is None:
        return None
    found: dict[str, Any] = {
        "seed": one.results.seed,
        "baseline_seed": other.results.seed,
        "difference": mine - theirs,
        **dict.fromkeys(("low", "high", "p", "test", "items", "differing")),
    }
    pairs: list[Pair] = []
    for task, metric in quantity:
        a_N2, b_N2 = one.parts(task, metric), other.parts(task, metric)
        if a_N2 is None or b_N2 is None:
            return found
        pairs.append((a_N2, b_N2))
    low, high = bootstrap_interval(pairs)
    p, test = _test(pairs)
    return found | {
        "difference": difference(pairs),
        "low": low,
        "high": high,
        "p": p,
        "test": test,
        "items": sum(len(a_N2) for a_N2, _ in pairs),
        "differing": int(sum((a_N2 != b_N2).any(1).sum() for a_N2, b_N2 in pairs)),
    }


def _test(pairs: Sequence[Pair]) -> tuple[float, str]:
    """p and the name of the test that fits."""
    if len(pairs) == 1 and all(map(is_binary, pairs[0])):
        a_N2, b_N2 = pairs[0]
        return mcnemar(a_N2[:, 0], b_N2[:, 0]), "exact McNemar"
    p, exact = permutation_test(pairs)
    return p, "exact permutation" if exact else "permutation, 9,999 random swaps"
