"""The table: machine on top, ratios first, and what is missing explained."""

from __future__ import annotations

from rich.console import Console

from mohge.bench.rows import Row
from mohge.bench.table import render
from mohge.bench.timing import Timing

MACHINE = {
    "gpu": None,
    "cpu": "Some CPU [R]",
    "cores": 2,
    "memory_bytes": 2**34,
    "bf16_instructions": [],
    "torch": "2.13.0",
}
RESULT = {
    "bench": "experts",
    "machine": MACHINE,
    "revision": {"revision": "0123456789", "dirty": True},
    "date": "2026-01-31T12:00:00+00:00",
    "notes": ["a note"],
}


def row(kernel: str, ratio: float | None, seconds: float, **figures) -> Row:
    timing = None if ratio is None else Timing([seconds])
    shared = {"bench": "experts", "shape": "small", "dtype": "fp32", "threads": 1, "against": "dense"}
    return Row(kernel=kernel, ratio=ratio, timing=timing, **shared, **figures)


def shown(*rows: Row) -> list[str]:
    console = Console(width=80, file=None, record=True)
    with console.capture() as capture:
        console.print(render(RESULT, rows))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_table_of_kernels():
    lines = shown(
        row("dense", 1.0, 0.1234, gflops=100.0),
        row("loop", 1.25, 1.5, gflops=80.04, peak_bytes=3 * 2**20, peak_ratio=1.0, peak_against="loop"),
        row("grouped", None, 0, note="it cannot"),
    )
    assert lines[0] == "Some CPU [R] · 2 cores · 16 GiB · bf16 instructions: none"
    assert lines[1] == "torch 2.13.0 · revision 0123456 with changes · 2026-01-31T12:00:00+00:00"
    assert "experts · small · fp32 · 1 thread" in lines
    assert "ratios to dense" in lines
    cells = [line.split() for line in lines]
    assert ["ratio", "ms", "25%", "75%", "GFLOP/s", "MiB", "peak", "ratio"] in cells
    assert ["dense", "1.000", "123", "123", "123", "100.0"] in cells
    assert ["loop", "1.250", "1500", "1500", "1500", "80.0", "3.0", "1.00"] in cells
    assert "grouped: it cannot" in lines
    assert lines[-1] == "a note"


def test_values_of_a_series_share_a_table_and_other_dtypes_do_not():
    def growth(shape: str, dtype: str) -> Row:
        return Row(
            bench="growth", shape=shape, dtype=dtype, kernel="loop", ratio=1.0, against="x=1", threads=2,
            unit="seconds per token", timing=Timing([1e-3]),
        )  # fmt: skip

    lines = shown(growth("x=1", "fp32"), growth("x=2", "fp32"), growth("x=1", "bf16"))
    assert [line for line in lines if line.endswith("2 threads")] == [
        f"experts · x · {dtype} · 2 threads" for dtype in ("fp32", "bf16")
    ]
    assert lines.count("ratios of seconds per token to x=1") == 2
    assert [line.split()[0] for line in lines if line.strip().startswith("x=")] == ["x=1", "x=2", "x=1"]
