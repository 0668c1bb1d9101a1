"""Cells whose training is a script of a few lines, so that a worker's part can be seen in milliseconds."""

from __future__ import annotations

import sys
from pathlib import Path

from mohge.sweep.cells import Cell
from mohge.sweep.worker import Job

_SCRIPT = r"""
import json, os, signal, sys, time
from pathlib import Path

given = dict(item.split("=", 1) for item in sys.argv[1:])
folder = Path((given.get("paths.run_dir") or given["resume"]).strip("'"))
kind_path = folder.parent / f"{folder.name}.kind"
if "kind" in given:
    kind_path.write_text(given["kind"])
kind = kind_path.read_text()

def note(**facts):
    folder.mkdir(exist_ok=True)
    for name in ("config.yaml", "environment.json"):
        (folder / name).write_text("{}")
    (folder / "status.json").write_text(json.dumps(facts))

print("args", *sys.argv[1:])
print("cell", os.environ["MOHGE_SWEEP_CELL"])
note(state="running", step=1)
with open(folder / "begun", "a") as file:
    print(os.getpid(), file=file)
if kind == "hang":
    def leave(number, frame):
        note(state="interrupted", step=3)
        sys.exit(143)
    signal.signal(signal.SIGTERM, leave)
    (folder / "hangs").touch()
    time.sleep(60)
if kind == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "refuse" or (kind == "refuse_once" and "resume" not in given):
    note(state="failed", step=1)
    sys.exit("error: the lamp is out: light it")
if kind == "break":
    raise KeyError("lamp")
note(state="finished", step=10, last={"val/bits_per_byte": 2.5})
"""


def write_script(folder: Path) -> tuple[str, ...]:
    """The command of the training that does what its cell's one override, kind=…, says."""
    script = folder / "fake_training.py"
    script.write_text(_SCRIPT, encoding="utf-8")
    return sys.executable, str(script)


def cell(name: str, kind: str = "finish") -> Cell:
    """A cell that is named like its arm and its id."""
    return Cell(id=name, arm=name, seed=1, name=f"nano-{name}-seed1", steps=10, overrides=[f"kind={kind}"])


def job(
    folder: Path, *cells: Cell, invocation: str = "first", retry: bool = False, line: Path | None = None
) -> Job:
    """What a worker gets."""
    return Job(
        folder=str(folder),
        cells=list(cells),
        invocation=invocation,
        retry=retry,
        presets=None,
        lifeline=None if line is None else str(line),
    )
