"""Who goes where: the analysis of a run's newest checkpoint, read or, where there is none, made."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.run_data import RunData, read_object
from mohge.errors import RunError, UserError
from mohge.training.checkpoint_names import list_checkpoints
from mohge.training.run_folder import RunFolder

FORMAT = "mohge-tokens-1"


@dataclass(frozen=True)
class Analysis:
    """Content of a tokens.json, with where it is."""

    run: str
    folder: Path
    data: dict[str, Any]

    @property
    def widths(self) -> list[int]:
        """W_g of each group."""
        widths: list[int] = self.data["widths"]
        return widths

    @property
    def overall(self) -> dict[str, Any]:
        """The difficulty table over all layers."""
        table: dict[str, Any] = next(row for row in self.data["difficulty"] if row["layer"] is None)
        return table

    def part(self, name: str) -> dict[str, Any] | None:
        """One part of text, such as `number`; None if no token was one."""
        return next((row for row in self.data["parts"] if row["part"] == name), None)

    def all_shares(self) -> list[float]:
        """Share of all rows that each group computed: the parts' shares, weighted by their tokens."""
        parts = self.data["parts"]
        total = sum(part["tokens"] for part in parts)
        return [
            sum(part["tokens"] * part["shares"][group] for part in parts) / total
            for group in range(len(self.widths))
        ]


def analysis_of(run: RunData, tokens: int, place: str) -> Analysis | None:
    """The analysis of a run's newest checkpoint, else a new one, else the newest there is.

    Args:
        run: any; a dense one has none.
        tokens: how many to look at in a new one; 0 makes none.
        place: such as `2 of 30`, to tell the user who waits.

    Raises:
        UserError: the analysis is damaged, or none can be made of the checkpoint.
    """
    folder = RunFolder(run.path)
    if not run.config.experts.num_experts:
        return None
    saved = [path.name for path in list_checkpoints(folder.checkpoints_dir)]
    made = sorted(path.parent.name for path in folder.tokens_dir.glob("step_*/tokens.json"))
    if tokens and saved and saved[-1] not in made:
        return _make(run, tokens, place)
    return _read(run, folder.tokens_dir / made[-1]) if made else None


def _make(run: RunData, tokens: int, place: str) -> Analysis:
    # Late: the model and its runtime take seconds to import.
    from evaluation.tokens import analyse
    from mohge.training.checkpoint_choice import choose_checkpoint

    checkpoint = choose_checkpoint(str(run.path))
    output = RunFolder(run.path).tokens_dir / checkpoint.name
    if not (output / "tokens.json").exists():  # the newest intact checkpoint may not be the newest
        print(
            f"run {place}, {run.name}: looking where {tokens:,} tokens go at {checkpoint.name} "
            "(tokens=0 leaves this out) …",
            file=sys.stderr,
        )
        try:
            analyse(checkpoint, tokens, output, progress=sys.stderr.isatty())
        except (RunError, RuntimeError, OSError) as error:
            raise UserError(f"{checkpoint} cannot be analysed ({error}): try mohge-tokens") from error
    return _read(run, output)


def _read(run: RunData, folder: Path) -> Analysis:
    path = folder / "tokens.json"
    data = read_object(path)
    if data.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {data.get('format')}, not {FORMAT}: delete {folder}, and report again"
        )
    lacking = [
        name for name in ("widths", "difficulty", "domains", "parts", "experts", "texts") if name not in data
    ]
    if lacking:
        raise UserError(f"{path} is damaged (it has no {lacking[0]}): delete {folder}, and report again")
    return Analysis(run.name, folder, data)
