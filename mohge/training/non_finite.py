"""What to say when a run's numbers are no longer finite."""

from __future__ import annotations

from mohge.config.schema import TrainConfig
from mohge.errors import NonFiniteError
from mohge.training.checkpoint import find_damage
from mohge.training.checkpoint_names import list_checkpoints
from mohge.training.run_folder import RunFolder


def non_finite(
    what: str, value: float, place: tuple[int, int], config: TrainConfig, run: RunFolder
) -> NonFiniteError:
    """The error of a loss or norm that is infinite or not a number: where, from what data, what to try.

    Args:
        what: its name.
        value: of it.
        place: steps done, and micro-batches of the step under way done.
        config: of the run.
        run: its folder, whose newest whole checkpoint is named.
    """
    steps, micro_batches = place
    sequences = config.data.batch_sequences
    first = (steps * config.trainer.accumulate + micro_batches) * sequences
    # Without checksums: other ranks wait meanwhile, and would take this one to hang.
    newest_first = reversed(list_checkpoints(run.checkpoints_dir))
    saved = next((path for path in newest_first if not find_damage(path, checksums=False)), None)
    last = f"the last good checkpoint is {saved}" if saved else "there is no checkpoint yet"
    return NonFiniteError(
        f"{what} became {value} in step {steps + 1} (micro-batch {first // sequences + 1}, training "
        f"sequences {first} to {first + sequences - 1}); {last}: try a lower optim.lr or trainer.clip, or "
        "trainer.precision=fp32"
    )
