"""bench=callbacks: one training that is watched in turns."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_benches import QUICK, bench_config, by_name
from tiny_runs import tiny_run, write_corpus

from mohge.bench.run import measure
from mohge.errors import UserError

CALLBACKS = ("bench=callbacks", *QUICK, "callbacks=default", "trainer.log_every=2")


def test_every_way_to_watch_has_its_turns(tmp_path: Path):
    corpus = write_corpus(tmp_path / "corpus")
    overrides = (*tiny_run(corpus, tmp_path / "cache"), *CALLBACKS)
    result, rows = measure(bench_config(*overrides, "trainer.accumulate=2"), [])
    named = by_name(result["rows"], "part")
    assert list(named) == ["nothing", "counts", "brief", "detailed", "pictures"]
    assert all(row.against == "nothing" for row in rows)
    assert named["nothing"]["ratio"] == 1
    seconds = {row.part: row.timing.seconds for row in rows}
    for way in ("counts", "brief", "detailed"):
        assert len(seconds[way]) == 2, "rounds, without the warm-up"
        ratios = [a / b for a, b in zip(seconds[way], seconds["nothing"], strict=True)]
        assert named[way]["ratio"] == pytest.approx(sum(ratios) / 2)  # the median of two
    thousand_steps = 1000 * sum(seconds["nothing"]) / 2
    pictures = named["pictures"]
    assert pictures["ratio"] == pytest.approx(pictures["median_seconds"] / thousand_steps)
    assert pictures["median_seconds"] > 0.05, "three pictures were drawn"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [(("callbacks=none",), "use callbacks=default"), (("arch=dense",), "arch=dense has none")],
)
def test_nothing_to_watch(overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        measure(bench_config(*CALLBACKS, *overrides), [])
