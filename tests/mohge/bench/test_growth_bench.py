"""bench=growth: four series, each beside its first value."""

from __future__ import annotations

import pytest
from tiny_benches import GROWTH, bench_config, by_name

from mohge.bench.run import measure


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows(precision: str):
    overrides = (*GROWTH, f"trainer.precision={precision}", "experts.kernel=loop")
    result, _ = measure(bench_config(*overrides), [])
    rows = by_name(result["rows"], "shape")
    units = {
        "experts": ("seconds", (4, 8), (1, 1)),
        "tokens": ("seconds per token", (32, 64), (32, 64)),
        "sequence": ("seconds", (16, 32), (1, 1)),
        "layers": ("seconds per layer", (1, 2), (1, 2)),
    }
    assert list(rows) == [f"{name}={value}" for name, (_, values, _) in units.items() for value in values]
    for name, (unit, (first, second), (by_first, by_second)) in units.items():
        base, grown = rows[f"{name}={first}"], rows[f"{name}={second}"]
        assert base["ratio"] == 1.0
        assert base["against"] == grown["against"] == f"{name}={first}"
        assert base["unit"] == grown["unit"] == unit
        cost = (grown["median_seconds"] / by_second) / (base["median_seconds"] / by_first)
        assert grown["ratio"] == pytest.approx(cost)
        tokens = second if name == "tokens" else 64
        assert grown["tokens_per_second"] == pytest.approx(tokens / grown["median_seconds"])
        assert grown["kernel"] == "loop"
        assert grown["dtype"] == precision
