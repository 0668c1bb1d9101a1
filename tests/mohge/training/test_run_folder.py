from __future__ import annotations

import json

import pytest

from mohge.errors import UserError
from mohge.training.run_folder import RunFolder, after_record


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def test_a_folder_holds_a_run_once_its_configuration_is_there(run):
    assert not run.exists
    assert run.read_status() == {}
    with pytest.raises(UserError, match=r"holds no run \(config.yaml is missing\)"):
        run.read_config()
    run.write_config({"seed": 1, "model": {"name": "nano"}})
    assert run.exists
    assert run.read_config() == {"seed": 1, "model": {"name": "nano"}}


@pytest.mark.parametrize("content", ["{a: [", "- a list", ""])
def test_a_damaged_configuration_is_named(run, content):
    run.path.mkdir()
    (run.path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"config\.yaml is damaged"):
        run.read_config()


def test_status_fields_are_replaced_one_by_one(run):
    run.update_status(state="running", step=1)
    run.update_status(step=2)
    assert run.read_status() == {"state": "running", "step": 2}
    assert [path.name for path in run.path.iterdir()] == ["status.json"]


@pytest.mark.parametrize("text", ["", '{"state": "run', "[]"])
def test_a_damaged_status_is_named(run, text):
    run.path.mkdir()
    (run.path / "status.json").write_text(text)
    with pytest.raises(UserError, match=r"status\.json is damaged: delete it"):
        run.read_status()


def test_a_status_is_of_the_records_that_are_left(run):
    """A run that goes on from its second step; its status may be lost, or tell of the third."""
    records = [
        {"step": 1, "tokens": 8, "val/bits_per_byte": 2.5, "train/lr": 0.1},
        {"step": 2, "tokens": 16, "val/bits_per_byte": 2.75},
        {"step": 3, "tokens": 24, "val/bits_per_byte": 2.25},
    ]
    run.path.mkdir()
    for record in records:
        run.append(run.metrics_path, record)
        run.update_status(**after_record(run.read_status(), record))
    assert run.read_status()["best"] == {"step": 3, "val/bits_per_byte": 2.25}
    run.update_status(seed=7)
    run.forget_after(2)
    run.renew_status()
    told = {
        "step": 2,
        "tokens": 16,
        "last": {"val/bits_per_byte": 2.75, "train/lr": 0.1},
        "best": {"step": 1, "val/bits_per_byte": 2.5},
    }
    assert run.read_status() == {"seed": 7, **told}
    (run.path / "status.json").unlink()
    run.renew_status()
    assert run.read_status() == told
    run.forget_after(0)
    run.renew_status()
    assert run.read_status() == {}


def test_overrides_come_back(run):
    run.write_json("overrides.json", ["model=tiny", "seed=2"])
    assert run.read_overrides() == ["model=tiny", "seed=2"]
    (run.path / "overrides.json").unlink()
    with pytest.raises(UserError, match=r"overrides\.json is missing"):
        run.read_overrides()


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_forgetting_keeps_the_steps_before_and_drops_half_a_line(run):
    run.path.mkdir()
    lines = [{"step": step, "train/loss": 1.0 / step} for step in range(1, 8)]
    whole = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics_path.write_text(whole + '{"step": 8, "train/lo')  # killed while it wrote
    for path in (run.routing_path, run.routing_steps_path):
        path.write_text(json.dumps({"step": 5}) + "\n")
    run.forget_after(7)
    assert records(run.metrics_path) == lines
    run.forget_after(4)
    assert records(run.metrics_path) == lines[:4]
    assert records(run.routing_path) == records(run.routing_steps_path) == []
    run.forget_after(0)
    assert run.metrics_path.read_text() == ""


def test_forgetting_without_records_makes_no_file(run):
    run.path.mkdir()
    run.forget_after(3)
    assert list(run.path.iterdir()) == []


def test_a_line_that_the_disk_refuses_is_not_left_by_half(run, monkeypatch):
    run.path.mkdir()
    run.append(run.metrics_path, {"step": 1})
    with monkeypatch.context() as patched:
        patched.setattr("mohge.training.run_folder.json.dumps", lambda record: "x" * 10_000)
        patched.setattr("pathlib.Path.open", _short_open(run.metrics_path))
        with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No space left on device; free"):
            run.append(run.metrics_path, {"step": 2})
    run.append(run.metrics_path, {"step": 3})
    assert records(run.metrics_path) == [{"step": 1}, {"step": 3}]


def _short_open(path):
    """A file that takes ten characters and then no more."""

    class Short:
        def __enter__(self):
            return self

        def __exit__(self, *failure):
            return None

        def write(self, text):
            with open(path, "a", encoding="utf-8") as file:
                file.write(text[:10])
            raise OSError(28, "No space left on device")

    return lambda *arguments, **settings: Short()


def test_leftovers_of_a_killed_process_are_removed(run):
    (run.checkpoints_dir / ".step_00000005.77.tmp").mkdir(parents=True)
    (run.checkpoints_dir / ".step_00000005.77.tmp" / "state.ckpt").write_text("half")
    (run.path / ".status.json.77.tmp").write_text("{")
    run.update_status(state="running")
    run.remove_leftovers()
    left = sorted(path.name for path in run.path.rglob("*"))
    assert left == ["checkpoints", "status.json"]
