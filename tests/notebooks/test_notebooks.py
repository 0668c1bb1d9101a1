"""Notebooks are pairs that agree, and each runs on a small, fresh quickstart run, which it finds itself."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from commands import run_command
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from tiny_runs import TINY_MODEL, tiny_data, write_corpus

from mohge.errors import UserError
from notebooks.found import latest_runs

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = ("anatomy_of_routing", "parameters_and_flops", "reading_a_sweep")
LONGEST = 20
"""Lines of a cell, about what a screen shows beside its prose."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder from which the quickstart was called: of a tiny model, on a tiny corpus."""
    folder = tmp_path_factory.mktemp("place")
    overrides = [
        *("experiment=quickstart", *TINY_MODEL, "model.layers=2"),
        *tiny_data(write_corpus(folder / "corpus"), folder / "cache"),
        *("data.batch_sequences=16", "trainer.max_tokens=40000", "logger=none", "callbacks.plots=null"),
    ]
    done = run_command("mohge-train", overrides, folder, environment={"OMP_NUM_THREADS": "1"})
    assert done.status == 0, done.stderr
    return folder


@pytest.fixture(autouse=True)
def _one_thread_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of kernels, and of what they start: tests run side by side."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> KernelSpecManager:
    """This Python as a kernel, whatever kernels are installed."""
    folder = tmp_path_factory.mktemp("kernels")
    write_kernel_spec(str(folder / "this"))
    return KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)


def read_pair(name: str) -> tuple[str, Any]:
    """The text of the .py file, and the .ipynb file."""
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    return text, nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str, place: Path, kernels: KernelSpecManager) -> str:
    """Runs the .py file of a pair as a notebook, keeps a copy with outputs, and returns what it printed."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    manager = AsyncKernelManager(kernel_name="this", kernel_spec_manager=kernels)
    resources = {"metadata": {"path": str(place)}}
    NotebookClient(notebook, km=manager, timeout=300, resources=resources).execute()
    nbformat.write(notebook, place / f"{name}.ipynb")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_these_are_all_notebooks():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_both_files_of_a_pair_hold_the_same_cells(name):
    text, notebook = read_pair(name)
    assert jupytext.writes(notebook, "py:percent") == text, f"call jupytext --sync notebooks/{name}.py"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.mark.parametrize("name", NAMES)
def test_prose_comes_first_and_cells_are_short(name):
    _, notebook = read_pair(name)
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= LONGEST, cell.source


def leave_run(folder: Path, arch: str, age: int, state: str = "finished") -> Path:
    """What `latest_runs` looks at of a run that ended `age` seconds ago."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"arch_name: {arch}\n")
    status = folder / "status.json"
    status.write_text(json.dumps({"state": state}))
    written = status.stat().st_mtime - age
    os.utime(status, (written, written))
    return folder


def test_the_latest_finished_runs_are_found_from_a_folder_below(tmp_path, monkeypatch):
    monkeypatch.delenv("MOHGE_RUNS", raising=False)
    outputs, below = tmp_path / "outputs", tmp_path / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    for name, age in (("old", 500), ("new", 400)):
        for arch in ("mohge", "moe"):
            leave_run(outputs / "quickstart" / name / arch, arch, age)
    alone = leave_run(outputs / "nano-mohge" / "a", "mohge", age=300)
    leave_run(outputs / "nano-mohge" / "b", "mohge", age=200, state="running")
    for arch in ("mohge", "moe"):
        leave_run(outputs / "multirun" / "several" / arch, arch, age=100)
        leave_run(outputs / "sweeps" / "x" / "cells" / f"of_{arch}", arch, age=50)
    (outputs / "sweeps" / "x" / "sweep.json").write_text("{}")
    new = outputs / "quickstart" / "new"
    assert latest_runs("mohge") == [alone]
    assert latest_runs("moe") == [new / "moe"]
    assert latest_runs("moe", "mohge") == [new / "moe", new / "mohge"]


def test_who_has_no_runs_is_told_how_to_make_some(tmp_path, monkeypatch):
    monkeypatch.setenv("MOHGE_RUNS", str(tmp_path / "mine"))
    with pytest.raises(UserError, match=r"mine holds no finished run of mohge beside moe: .*`make train`"):
        latest_runs("mohge", "moe")
    leave_run(tmp_path / "mine" / "mohge", "mohge", age=0)
    with pytest.raises(UserError, match="make train"):
        latest_runs("mohge", "moe")


@pytest.mark.slow
def test_the_anatomy_of_routing(place, kernels, monkeypatch):
    monkeypatch.delenv("MOHGE_RUNS", raising=False)  # outputs/ of the current folder is found
    printed = execute("anatomy_of_routing", place, kernels)
    assert "4 groups of 4 experts, of widths [48, 80, 112, 144]" in printed
    # The context cuts the text to 32 tokens, and each token has 4 experts.
    assert "Rows of each layer: [128, 128]; tokens x K = 32 x 4 = 128." in printed
    assert re.search(r"Idle experts: .* \(of 32, in \d+ logged steps\)\.", printed)
    assert "Rows of numbers (and of all tokens):" in printed
    assert "Numbers go most often to width" in printed
    (analysis,) = (place / "outputs").glob("quickstart/*/mohge/tokens/step_*/tokens.json")
    assert analysis.is_file()


@pytest.mark.slow
def test_parameters_and_flops(place, kernels, monkeypatch):
    monkeypatch.setenv("MOHGE_RUNS", str(place / "outputs"))
    printed = execute("parameters_and_flops", place, kernels)
    # By hand: 32 experts of 3 x 32 x 96 on average, against 3 x 32 x 128; both have as much of the rest, but
    # for group routers of 2 layers x 4 x 32.
    saved = 32 * 3 * 32 * (128 - 96) - 2 * 4 * 32
    moe = re.search(r"parameters +([\d.]+) k +([\d.]+) k\n", printed)
    assert moe is not None
    assert float(moe[2]) - float(moe[1]) == pytest.approx(saved / 1000, abs=0.11)  # of four digits each
    # A row of width 48: 6 x 32 x 48 FLOPs.
    assert re.search(r"\n +48 +4,608 +9,216 +38%\n", printed)
    assert re.search(r"active_parameters: expected 103\.2 k, measured [\d.]+ k", printed)
    assert re.search(r"rank 0 holds widths 48, 48, 48, 48: \d+ MFLOP", printed)


@pytest.mark.slow
def test_reading_a_sweep(place, kernels, monkeypatch):
    monkeypatch.setenv("MOHGE_RUNS", str(place / "outputs"))
    printed = execute("reading_a_sweep", place, kernels)
    assert re.search(r"4 seeds of mohge and moe, [\d,]+ tokens each\.", printed)
    table = re.search(r"validation, bits per byte +([\d.]+) ± [\d.]+ +([\d.]+) ± ", printed)
    difference = re.search(r"Mean difference: ([-+][\d.]+) bits per byte, 95% interval", printed)
    assert table is not None
    assert difference is not None
    assert float(table[1]) - float(table[2]) == pytest.approx(float(difference[1]), abs=2e-4)
    sweep = list((place / "outputs" / "multirun").glob("*/*/moe/status.json"))
    assert len(sweep) == 4
