"""Installed from a wheel into another folder, the commands work there too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny_runs import read_metrics, tiny_run, write_corpus

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PACKAGES = {"mohge", "datamodules", "callbacks", "evaluation", "notebooks", "conf"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the source, so that the build leaves nothing there."""
    folder = tmp_path_factory.mktemp("wheel")
    unwanted = shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=unwanted)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *build], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel unpacked and its scripts, beside the dependencies of this environment."""
    target = tmp_path_factory.mktemp("installed")
    install = ["install", "--no-deps", "--no-index", "--quiet", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    return target


def call(installed: Path, command: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # -P and PYTHONPATH: the wheel's packages come first, and neither the folder nor the source tree counts.
    return subprocess.run(
        [sys.executable, "-P", str(installed / "bin" / command), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_packages_with_their_configuration_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    metadata = {name for name in top if name.endswith(".dist-info")}
    assert len(metadata) == 1
    assert top - metadata == PACKAGES
    shipped = {name for name in names if name.endswith(".yaml")}
    assert shipped == {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    native = {"mohge/moe/native/experts.c", "mohge/moe/native/product.h"}
    assert native <= set(names)
    page = {f"evaluation/report/page.{kind}" for kind in ("html", "css", "js")}
    page |= {f"evaluation/report/{name}.html" for name in ("frame", "parts")}
    page |= {f"evaluation/{report}/page.html" for report in ("benchmarks", "sweeps")}
    script = "conf/slurm/train.sbatch"
    assert page | {script} <= set(names)
    strays = {name for name in names if not name.endswith((".py", ".yaml"))} - native - page - {script}
    assert all(name.split("/")[0] in metadata for name in strays)
    assert not [name for name in names if "test" in name]


def test_the_commands_work_from_another_folder(installed, tmp_path):
    module = subprocess.run(
        [sys.executable, "-P", "-c", "import mohge, conf, datamodules; print(mohge.__file__, conf.__file__)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(name).is_relative_to(installed) for name in module.stdout.split())

    explained = call(installed, "mohge-train", "--help", cwd=tmp_path)
    assert explained.stdout.startswith("Trains one language model"), explained.stderr
    planned = call(installed, "mohge-plan", "format=json", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["parameters"]["total"] > 0

    arguments = [*tiny_run(write_corpus(tmp_path / "corpus"), tmp_path / "cache"), "trainer.max_steps=2"]
    trained = call(installed, "mohge-train", *arguments, "paths.run_dir=run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert [record["step"] for record in read_metrics(tmp_path / "run")] == [1, 2]
    environment = json.loads((tmp_path / "run" / "environment.json").read_text(encoding="utf-8"))
    assert environment["git"] == {"revision": None, "dirty": None}
    assert environment["versions"]["mohge"] != "not installed"
