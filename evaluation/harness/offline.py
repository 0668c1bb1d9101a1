"""Settings of the libraries below lm-eval, which they read when they are imported."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from mohge.config.schema import LOCAL


def is_local(name: str) -> bool:
    """Whether a task reads what mohge-prepare has written."""
    return name.endswith(LOCAL)


def prepare_libraries(tasks: Sequence[str]) -> None:
    """Keeps lm-eval and datasets quiet, and, if all tasks are local, off the network.

    Call it before they are imported.

    Args:
        tasks: names of tasks that will be run.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("lm_eval", "datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if all(is_local(name) for name in tasks):
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
