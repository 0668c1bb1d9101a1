"""The guide to a new router, followed to the letter in an empty folder."""

from __future__ import annotations

import importlib
import inspect
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guide_files import guide_commands, write_guide
from hydra.core.global_hydra import GlobalHydra
from tiny_runs import TINY_MODEL, tiny_data, write_corpus

from mohge.apps import plan, sweep, train
from mohge.config.load import group_choices
from mohge.training.run_folder import RunFolder

MAINS = {"mohge-plan": plan.main, "mohge-train": train.main, "mohge-sweep": sweep.main}
SMALL = (*TINY_MODEL, "experts.widths=[8]", "experts.per_group=4", "experts.shared_width=8", "logger=none")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The newcomer's folder, where Python looks for modules."""
    folder = tmp_path_factory.mktemp("place")
    written = write_guide(folder)
    assert {"my_routers.py", "test_my_routers.py", "presets/arch/sigmoid.yaml"} < set(written)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in ("my_routers", "test_my_routers"):
        sys.modules.pop(name, None)


@pytest.fixture
def call(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(command: str, *more: str) -> None:
        program, *arguments = shlex.split(command)
        monkeypatch.chdir(place)
        monkeypatch.setattr(sys, "argv", [program, *arguments, *more])
        GlobalHydra.instance().clear()
        MAINS[program]()

    return run


def command(program: str, *fragments: str) -> str:
    """The first one of the guide that has these fragments."""
    return next(
        one for one in guide_commands() if one.startswith(program) and all(part in one for part in fragments)
    )


def test_it_is_new() -> None:
    assert "sigmoid" not in group_choices("arch")
    assert [one.split()[0] for one in guide_commands()] == [
        *("python", "export", "mohge-plan", "mohge-train", "mohge-train", "mohge-sweep")
    ]


@pytest.mark.usefixtures("place")
def test_its_own_tests_pass() -> None:
    module = importlib.import_module("test_my_routers")
    tests = [test for name, test in inspect.getmembers(module) if name.startswith("test_")]
    assert len(tests) == 4
    for test in tests:
        test()


def test_the_plan_is_that_of_the_standard_moe(call: Callable[..., None], capsys) -> None:
    totals = []
    for arch in ("sigmoid", "moe"):
        call(command("mohge-plan").replace("arch=sigmoid", f"arch={arch}"), "format=json")
        totals.append(json.loads(capsys.readouterr().out)["parameters"])
    assert totals[0] == totals[1]


def test_others_can_be_matched_to_it(call: Callable[..., None], capsys) -> None:
    plan_of_it = command("mohge-plan")
    call(plan_of_it, "format=json")
    total = json.loads(capsys.readouterr().out)["parameters"]["total"]
    hmoe = plan_of_it.replace("arch=sigmoid", "arch=hmoe")
    call(hmoe, "match=total", "match.to=sigmoid", "format=json")
    assert json.loads(capsys.readouterr().out)["parameters"]["total"] == pytest.approx(total, rel=0.005)


def test_it_trains(call: Callable[..., None], place: Path) -> None:
    data = tiny_data(write_corpus(place / "corpus"), place / "cache")
    for arch in ("sigmoid", "moe"):
        trained = command("mohge-train").replace("arch=sigmoid", f"arch={arch}")
        more = ("router.expert_top_k=2", "trainer.max_steps=3", "callbacks=none", f"paths.run_dir={arch}")
        call(trained, *SMALL, *data, *more)
    runs = [RunFolder(place / arch) for arch in ("sigmoid", "moe")]
    sigmoid, moe = (run.read_status()["last"]["train/loss"] for run in runs)
    assert sigmoid != moe, "the class has decided"
    assert sigmoid == pytest.approx(moe, rel=0.1)
    stored = runs[0].read_config()
    assert (stored["arch_name"], stored["router"]["_target_"]) == ("sigmoid", "my_routers.SigmoidRouter")


def test_it_trains_on_two_ranks(call: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """How it does so is tested with all architectures, in test_parity."""
    launched = []
    monkeypatch.setattr(train, "launch", lambda *asked: launched.append(asked))
    call(command("mohge-train", "parallel=ep"), "logger=none", "paths.run_dir=never")
    ((_, (config, _), ranks),) = launched
    assert (config.router.target, ranks) == ("my_routers.SigmoidRouter", 2)


def test_it_is_an_arm_of_a_sweep(call: Callable[..., None], capsys) -> None:
    call(command("mohge-sweep"), "show=true")
    assert "│ sigmoid " in capsys.readouterr().out, "the plan's own name is no arm"
