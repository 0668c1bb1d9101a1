"""A search for the best value of a key: mohge-train -m hydra/sweeper=optuna."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Finished, run_forked
from tiny_runs import tiny_run, write_corpus

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra optuna")
pytestmark = pytest.mark.slow

OPTUNA = ("hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work") / "runs"
    write_corpus(folder / "corpus")
    return folder


def search(folder: Path, place: Path, *overrides: str) -> Finished:
    corpus = tiny_run(folder / "corpus", folder / "cache")
    arguments = ["-m", *OPTUNA, f"hydra.sweep.dir={place}", "trainer.max_steps=3", *corpus, *overrides]
    return run_forked("mohge-train", arguments, folder)


def found(place: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((place / "optimization_results.yaml").read_text(encoding="utf-8"))
    return loaded


def test_the_best_run_is_that_of_the_fewest_bits_per_byte(folder, tmp_path):
    space = "optim.lr=tag(log,interval(1e-4,1e-1))"
    finished = search(folder, tmp_path, "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1", space)
    assert finished.status == 0, finished.stderr
    runs = [tmp_path / str(number) for number in range(3)]
    bits = [
        json.loads((run / "status.json").read_text(encoding="utf-8"))["last"]["val/bits_per_byte"]
        for run in runs
    ]
    rates = [yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["optim"]["lr"] for run in runs]
    assert len(set(rates)) == 3
    assert all(1e-4 <= rate <= 1e-1 for rate in rates)
    best = bits.index(min(bits))
    assert found(tmp_path) == {
        "name": "optuna",
        "best_params": {"optim.lr": rates[best]},
        "best_value": bits[best],
    }


def test_runs_that_fail_are_told_and_the_search_goes_on_with_the_others(folder, tmp_path):
    finished = search(folder, tmp_path, "hydra.sweeper.n_trials=4", "optim.lr=choice(0.01,-1)")
    assert finished.status == 2
    failed = finished.stderr.count("error: optim.lr=-1")
    assert 1 <= failed <= 3
    assert found(tmp_path)["best_params"] == {"optim.lr": 0.01}
    assert "Traceback" not in finished.stderr


def test_a_search_of_which_every_run_fails_says_why_and_nothing_more(folder, tmp_path):
    finished = search(folder, tmp_path, "hydra.sweeper.n_trials=2", "experiment=compare", "seed=choice(1,2)")
    assert finished.status == 2
    assert finished.stderr.count("error: hydra/sweeper=optuna searches by the result of one run, and ") == 2
    assert "Traceback" not in finished.stderr
    assert not list(tmp_path.glob("*/status.json"))
