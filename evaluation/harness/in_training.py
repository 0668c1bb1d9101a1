"""A suite on a model that is in training, for `callbacks.benchmarks`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from evaluation.harness.offline import prepare_libraries
from evaluation.harness.ranks import connected_ranks
from evaluation.harness.suite import run_suite
from evaluation.language_model import LanguageModel, as_in_training
from mohge.config.schema import BenchmarksCallbackConfig, TrainConfig
from mohge.config.targets import build
from mohge.model.transformer import TransformerLM
from mohge.training.checkpoint_names import checkpoint_name
from mohge.training.run_folder import RunFolder


class InTraining:
    """Runs the suite that `callbacks.benchmarks` names, on all ranks of the run.

    Args:
        cfg: suite and batch size.
        train: configuration of the run.

    Raises:
        UserError: the benchmarks are not prepared, or a task does not exist.
    """

    def __init__(self, cfg: BenchmarksCallbackConfig, train: TrainConfig) -> None:
        self._cfg, self._train = cfg, train
        self._benchmarks: Path | None = None
        if cfg.suite.needs_benchmarks:
            cache = train.paths.cache_dir
            self._benchmarks = build("callbacks.benchmarks", cfg.find_tasks, cache, field="find_tasks")
        prepare_libraries(cfg.suite.tasks)
        from evaluation.harness.tasks import Tasks  # late, since it imports lm-eval

        Tasks(cfg.suite.tasks, cfg.suite.fewshot, self._benchmarks)  # now, and not hours into the run

    def __call__(
        self, model: TransformerLM, data: Any, run: RunFolder, step: int, folder: Path
    ) -> dict[str, Any]:
        """Score the model, and write `folder`. Collective.

        Args:
            model: of the run, in evaluation mode; this rank's part, if it is sharded.
            data: module of the run's corpus.
            run: folder of the run.
            step: optimizer steps done.
            folder: for results.json and samples.

        Returns:
            The content of results.json.
        """
        # A copy: the settings of the other are those of the corpus.
        tokenizer = as_in_training(Tokenizer.from_str(data.tokenizer.to_str()))
        unsaved = _Unsaved(
            config=self._train,
            model=model,
            tokenizer=tokenizer,
            end_token_id=data.end_token_id,
            source=run.checkpoints_dir / checkpoint_name(step),
            step=step,
            tokens=step * self._train.tokens_per_step,
            run=run,
            corpus=data.manifest.fingerprint,
        )
        return run_suite(
            unsaved,
            self._cfg.suite,
            folder,
            batch_size=self._cfg.batch_size,
            benchmarks=self._benchmarks,
            ranks=connected_ranks(lockstep=True),
            keep_answers=False,
        )


class _Unsaved(LanguageModel):
    """A model whose answers stay in memory, and need no name: maybe no rank has all of its weights."""

    @cached_property
    def digest(self) -> str:
        """The same on all ranks."""
        return "in training"
