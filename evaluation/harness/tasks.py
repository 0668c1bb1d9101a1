"""lm-eval's tasks: those that mohge-prepare has written, and its own."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind

from evaluation.harness.offline import is_local
from mohge.config.schema import LOCAL
from mohge.errors import UserError

_EXAMPLES_SEED = 1234
"""Of the solved examples before an item; lm-eval's default."""


class Tasks:
    """Finds tasks by name.

    Local tasks are looked at first: lm-eval's own, some fifteen thousand files, take as many seconds.

    Args:
        names: that are wanted.
        fewshot: solved examples before each item, by task or group, where not the task's own number.
        benchmarks: folder of local tasks.

    Raises:
        UserError: there is no task or group of one of the names.
    """

    def __init__(self, names: Sequence[str], fewshot: Mapping[str, int], benchmarks: Path | None) -> None:
        self._fewshot = fewshot
        local = str(benchmarks) if benchmarks is not None else None
        self._manager = TaskManager(include_path=local, include_defaults=False)
        unknown = [name for name in names if name not in self._manager.task_index]
        if not all(is_local(name) for name in unknown):
            self._manager = TaskManager(include_path=local)
            unknown = [name for name in names if name not in self._manager.task_index]
        for key, wrong in (
            ("tasks", unknown),
            ("fewshot", sorted(fewshot.keys() - self._manager.task_index)),
        ):
            if wrong:
                near = difflib.get_close_matches(wrong[0], list(self._manager.task_index), n=1)
                advice = f"did you mean {near[0]}?" if near else "lm-eval ls tasks lists its own"
                raise UserError(f"eval.{key}: {wrong[0]} is no task or group of lm-eval: {advice}")
        asked = set(names).union(*map(self._tasks_of, names))
        if unasked := sorted(fewshot.keys() - asked):
            raise UserError(
                f"eval.fewshot: {unasked[0]} is none of eval.tasks, nor a task of their groups: leave it out"
            )

    def label(self, name: str) -> str:
        """A task's name for people: the alias in its definition, if it has one."""
        definition = self._manager.task_index[name].cfg if name in self._manager.task_index else None
        alias = (definition or {}).get("task_alias") or (definition or {}).get("group_alias")
        return str(alias) if alias else name.removesuffix(LOCAL)

    def _tasks_of(self, name: str) -> set[str]:
        """Names of the tasks below a group or tag."""
        entry = self._manager.task_index.get(name)
        if entry is None:
            return {name}  # which the group itself defines
        if entry.kind is Kind.TAG:
            return set(entry.tags)
        if entry.kind is not Kind.GROUP:
            return {name}
        return set().union(*map(self._tasks_of, _members((entry.cfg or {}).get("task"))))

    def load(self, name: str) -> dict[str, Any]:
        """The task, or the tasks of a group, ready to be evaluated: {"tasks": …, "groups": …}.

        Args:
            name: of a task, group or tag.
        """
        loaded: dict[str, Any] = dict(self._manager.load([name]))
        for task_name, task in loaded["tasks"].items():
            number = self._fewshot.get(
                task_name, self._fewshot.get(name, task.get_config("num_fewshot") or 0)
            )
            task.set_config(key="num_fewshot", value=number)
            task.set_fewshot_seed(seed=_EXAMPLES_SEED)
        return loaded


def _members(listed: object) -> Iterator[str]:
    """Names in the definition of a group, which may define tasks and groups of its own in place."""
    for one in listed if isinstance(listed, list) else [listed]:
        if isinstance(one, Mapping):
            yield from _members(one.get("task"))
        elif isinstance(one, str):
            yield one
