"""What a benchmark hands out: rows of figures."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from mohge.bench.timing import Timing


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure beside what it is compared with. What does not apply is None."""

    bench: str
    """Name of the benchmark."""
    shape: str
    """What was computed."""
    dtype: str
    """Number format of the products: fp32 or bf16."""
    kernel: str | None = None
    """Value of experts.kernel, or `dense` for the dense bound."""
    peer: str | None = None
    """Library or model, where those are compared."""
    part: str | None = None
    """Part of a step."""
    ratio: float | None
    """Of the median time, or of what `unit` says, to that of `against`."""
    against: str
    """Kernel, peer, shape or part of the same run that `ratio` refers to."""
    timing: Timing | None = None
    """Seconds of the rounds; None where nothing was timed."""
    unit: str | None = None
    """What the ratio is of, where that is not the median itself."""
    threads: int
    """Threads that torch computed with; those of a mesh are shared among its ranks."""
    ranks: int | None = None
    """Processes that made the step together, where they are compared with one."""
    threads_per_rank: int | None = None
    """Threads of each of them."""
    gflops: float | None = None
    """1e9 floating-point operations per second, of matrix products."""
    tokens_per_second: float | None = None
    """Tokens per median second."""
    forward_seconds: float | None = None
    """Part of the median that the forward pass took."""
    peak_bytes: int | None = None
    """Most memory held at once, above what was held before."""
    peak_ratio: float | None = None
    """Of `peak_bytes` to that of `peak_against`."""
    peak_against: str | None = None
    """Kernel, peer or part that `peak_ratio` refers to."""
    parameters: int | None = None
    """Parameters of the model."""
    flops_ratio: float | None = None
    """Work of the routed rows, measured, to that of `against`."""
    waiting_share: float | None = None
    """Part of a rank's time in which it is blocked in waits for collectives, the mean over ranks."""
    sent_bytes: int | None = None
    """Bytes that a rank sends, planned; of the rank that sends most."""
    note: str | None = None
    """Why there are no figures."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, without those that do not apply; ratio and median_seconds are always there,
        and null where there is none.
        """
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "timing"}
        times = self.timing.as_dict() if self.timing else {}
        given = {name: value for name, value in values.items() if value is not None}
        return {"ratio": None, "median_seconds": None} | given | times


@dataclass
class Measured:
    """What one benchmark found."""

    rows: list[Row] = field(default_factory=list)
    """Figures, in the order to show them."""
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader of the figures must know."""

    def add(self, other: Measured) -> None:
        """Append another's rows, and the notes that are new."""
        self.rows += other.rows
        self.notes += [note for note in other.notes if note not in self.notes]
