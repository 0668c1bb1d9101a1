"""What is known of the runs: everything that their folders hold, each with what is wrong with it told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from evaluation.report.answers import answers
from evaluation.report.curves import StepShare, step_shares
from evaluation.report.facts import over_seeds, run_alarms, run_facts
from evaluation.report.ranks import RankBalance, rank_balance
from evaluation.report.who import Analysis, analysis_of
from evaluation.run_data import RunData, read_object

T = TypeVar("T")


class Attempt(Protocol):
    """Calls a function for a run; None if it raised UserError, which was told."""

    def __call__(self, run: RunData, action: Callable[[], T]) -> T | None:
        """The function's result."""


@dataclass
class Gathered:
    """All that is known of the runs."""

    runs: Sequence[RunData]
    facts: list[dict[str, Any]] = field(default_factory=list)
    answers: list[list[dict[str, str]]] = field(default_factory=list)
    shares: dict[str, list[StepShare]] = field(default_factory=dict)
    alarms: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    balances: list[RankBalance] = field(default_factory=list)
    analyses: list[Analysis] = field(default_factory=list)
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def seeds(self) -> list[dict[str, Any]]:
        """Mean and deviation over seeds."""
        return over_seeds(self.facts)

    def results(self) -> list[dict[str, Any]]:
        """For each run its figures, answers, balance of ranks, and where its tokens were looked at."""
        balances = {balance.run: balance.as_dict() for balance in self.balances}
        analyses = {analysis.run: str(analysis.folder) for analysis in self.analyses}
        return [
            {
                **fact,
                "answers": said,
                "rank_balance": balances.get(fact["name"]),
                "tokens_analysis": analyses.get(fact["name"]),
            }
            for fact, said in zip(self.facts, self.answers, strict=True)
        ]


def gather(runs: Sequence[RunData], ranks: int, tokens: int, attempt: Attempt) -> Gathered:
    """Reads and computes what the page shows.

    Args:
        runs: to report.
        ranks: of the replay of runs that had one process.
        tokens: of new analyses; 0 makes none.
        attempt: calls what may fail for one run.
    """
    gathered = Gathered(runs)
    for number, run in enumerate(runs, start=1):
        place = f"{number} of {len(runs)}"
        alarms = attempt(run, partial(run_alarms, run)) or []
        balance = attempt(run, partial(rank_balance, run, ranks))
        analysis = attempt(run, partial(analysis_of, run, tokens, place))
        shares = attempt(run, partial(step_shares, run))
        path = run.path / "environment.json"
        environment = attempt(run, partial(read_object, path)) if path.exists() else None
        facts = run_facts(run, alarms)
        gathered.facts.append(facts)
        gathered.answers.append(answers(run, facts, balance, analysis))
        gathered.alarms[run.name] = alarms
        gathered.environments |= {run.name: environment} if environment else {}
        gathered.shares[run.name] = shares or []
        gathered.balances += [balance] if balance else []
        gathered.analyses += [analysis] if analysis else []
    return gathered
