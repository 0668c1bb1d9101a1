"""mohge-export as a user runs it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Finished, run_forked
from refusals import assert_refused, assert_refused_at_once, contents
from safetensors import safe_open
from tiny_runs import tiny_run, write_corpus
from tokenizers import Tokenizer

from mohge.interchange import end_token_id, load_transformers
from mohge.training.checkpoint import read_tensors
from mohge.training.export import load_exported
from mohge.training.tensors import WEIGHTS

STEPS = 4
RUN = (f"trainer.max_steps={STEPS}", "trainer.checkpoint_every=2", "optim.lr=1e-3")
MESH = ("parallel=fsdp_ep", "trainer.devices=4", "trainer.accelerator=cpu")


def train(folder: Path, run: str, *more: str) -> Path:
    overrides = [*tiny_run(Path("corpus"), Path("cache")), *RUN, *more, f"paths.run_dir={run}"]
    finished = run_forked("mohge-train", overrides, folder)
    assert finished.status == 0, finished.stderr
    return folder / run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and a run of one process."""
    folder = tmp_path_factory.mktemp("work") / "trained"
    write_corpus(folder / "corpus")
    train(folder, "run")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A working folder of the test's own, with a copy of the run; the corpus is where it was."""
    shutil.copytree(trained / "run", tmp_path / "work" / "run")
    return tmp_path / "work"


def exported(folder: Path, *overrides: str) -> dict[str, Any]:
    """What export.json says of the folder that the command names."""
    finished = run_forked("mohge-export", list(overrides), folder)
    assert (finished.status, finished.stderr) == (0, "")
    return facts(folder, finished)


def facts(folder: Path, finished: Finished) -> dict[str, Any]:
    made = re.search(r"^Folder: (\S+) with", finished.stdout, flags=re.MULTILINE)
    assert made is not None, finished.stdout
    found: dict[str, Any] = json.loads((folder / made[1] / "export.json").read_text(encoding="utf-8"))
    return found


def test_it_writes_weights_configuration_and_tokenizer(folder):
    finished = run_forked("mohge-export", ["checkpoint=run"], folder)
    assert (finished.status, finished.stderr) == (0, "")
    made = folder / "run" / "export" / "step_00000004"
    names = {"model.safetensors", "config.json", "tokenizer.json", "export.json"}
    assert {path.name for path in made.iterdir()} == names
    with safe_open(made / "model.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        assert file.metadata()["format"] == "pt"
    trained = read_tensors(folder / "run" / "checkpoints" / "step_00000004", WEIGHTS)
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], trained[name]) for name in trained)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert "head.weight" not in weights, "it is the embedding"

    parameters = sum(tensor.numel() for tensor in weights.values())
    for words in (f"step {STEPS}", f"{parameters:,} parameters", str(made), "load_exported"):
        assert words in finished.stdout
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    assert (config["format"], config["step"], config["tokens"]) == ("mohge-export-1", STEPS, STEPS * 4 * 32)
    assert config["config"]["model"]["d_model"] == 32
    assert Tokenizer.from_file(str(made / "tokenizer.json")).get_vocab_size() == 300
    assert len({path.stat().st_mode for path in made.iterdir()}) == 1, "others may read all or nothing"


@pytest.mark.parametrize(("format", "name"), [("mohge", "TransformerLM"), ("hf", "MohgeForCausalLM")])
def test_facts_are_written_beside_the_model(folder, format, name):
    result = exported(folder, "checkpoint=run", "output=a/model", f"format={format}")
    made = folder / "a" / "model"
    assert (result["format"], result["class"], result["checkpoint"]) == (format, name, "step_00000004")
    assert str(folder) not in (made / "export.json").read_text(), "they may be published"
    assert result["bytes"] == (made / "model.safetensors").stat().st_size
    assert result["files"] == sorted(path.name for path in made.iterdir())
    assert (result["step"], result["tokens"]) == (STEPS, STEPS * 4 * 32)


def test_the_folder_for_transformers_holds_the_same_model(folder):
    finished = run_forked("mohge-export", ["checkpoint=run", "format=hf"], folder)
    assert (finished.status, finished.stderr) == (0, "")
    made = folder / "run" / "export" / "step_00000004_hf"
    assert f"AutoModelForCausalLM.from_pretrained({str(made)!r}, trust_remote_code=True)" in finished.stdout
    assert {path.name for path in made.iterdir()} == set(facts(folder, finished)["files"])
    exported(folder, "checkpoint=run")
    config, ours = load_exported(folder / "run" / "export" / "step_00000004")
    found, loaded = load_transformers(made)
    assert found == config
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in ours.state_dict().items())
    tokenizers = [(folder / "run/export" / name / "tokenizer.json") for name in (made.name, "step_00000004")]
    assert tokenizers[0].read_bytes() == tokenizers[1].read_bytes()
    assert end_token_id(made) == 0


def test_several_checkpoints_by_one_command(folder):
    names = "run/checkpoints/step_00000002,run/checkpoints/step_00000004/manifest.json"
    finished = run_forked("mohge-export", ["-m", f"checkpoint={names}"], folder)
    assert finished.status == 0, finished.stderr
    for step in (2, 4):
        config = json.loads((folder / f"run/export/step_0000000{step}/config.json").read_text())
        assert config["step"] == step


def test_a_checkpoint_of_four_ranks_is_exported_by_one_process(trained, tmp_path):
    run = train(trained, "spread", *MESH)
    assert len(list((run / "checkpoints" / "step_00000004").glob("shard-*"))) == 4
    spread, alone = tmp_path / "spread", tmp_path / "alone"
    assert "tokenizer.json" in exported(trained, "checkpoint=spread", f"output={spread}")["files"]
    exported(trained, "checkpoint=run", f"output={alone}")
    (config, ours), (_, theirs) = load_exported(spread), load_exported(alone)
    assert config.parallel.name == "fsdp_ep", "as it was trained"
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=1e-5)
    before = read_tensors(trained / "run" / "checkpoints" / "step_00000002", WEIGHTS)
    moved = max(float((tensor - before[name]).abs().max()) for name, tensor in ours.state_dict().items())
    assert moved > 1e-4, "or agreement would mean nothing"


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_taken(folder):
    newest = folder / "run" / "checkpoints" / "step_00000004"
    (newest / "state.ckpt").write_bytes(b"nonsense")
    finished = run_forked("mohge-export", ["checkpoint=run"], folder)
    assert finished.status == 0
    assert facts(folder, finished)["step"] == 2
    (line,) = finished.stderr.splitlines()
    assert "step_00000004 is damaged (state.ckpt has" in line
    assert "using run/checkpoints/step_00000002" in line


def corpus_gone(run: Path) -> None:
    facts = json.loads((run / "data.json").read_text())
    (run / "data.json").write_text(json.dumps({**facts, "folder": "nowhere"}))


def corpus_changed(run: Path) -> None:
    facts = json.loads((run / "data.json").read_text())
    store = shutil.copytree(facts["folder"], run / "store")
    (store / "tokenizer.json").write_text("{}")
    (run / "data.json").write_text(json.dumps({**facts, "folder": str(store)}))


@pytest.mark.parametrize(("change", "reason"), [(corpus_gone, "is gone"), (corpus_changed, "has changed")])
def test_without_its_corpus_the_tokenizer_is_left_out_and_that_is_said(folder, change, reason):
    change(folder / "run")
    finished = run_forked("mohge-export", ["checkpoint=run"], folder)
    assert finished.status == 0
    assert facts(folder, finished)["files"] == ["config.json", "export.json", "model.safetensors"]
    (line,) = finished.stderr.splitlines()
    assert line.startswith("tokenizer.json is left out: ")
    assert reason in line
    finished = run_forked("mohge-export", ["checkpoint=run", "format=hf"], folder)
    assert_refused(finished, ["step_00000004 cannot be exported with format=hf", reason, "use format=mohge"])
    assert not (folder / "run/export/step_00000004_hf").exists()


def test_a_checkpoint_copied_out_of_its_run(folder):
    shutil.copytree(folder / "run" / "checkpoints" / "step_00000002", folder / "best")
    assert_refused(run_forked("mohge-export", ["checkpoint=best"], folder), ["no run's folder", "output=DIR"])
    finished = run_forked("mohge-export", ["checkpoint=best", "output=model"], folder)
    assert facts(folder, finished)["step"] == 2
    assert "tokenizer.json is left out" in finished.stderr


MISTAKES = [
    ("", ["checkpoint has no value: give one with checkpoint=VALUE"]),
    ("checkpoint=nowhere", ["checkpoint=nowhere does not exist", "give a run's folder"]),
    ("checkpoint=empty", ["checkpoint=empty is neither a run nor a checkpoint"]),
    ("checkpoint=run/config.yaml", ["checkpoint=run/config.yaml is neither a run nor a checkpoint"]),
    ("checkpoint=run/checkpoints", ["checkpoint=run/checkpoints is neither", "checkpoints/step_…"]),
    (
        "checkpoint=sweep",
        ["checkpoint=sweep is a sweep of several runs", "sweep/cells/ID", "report sweep=sweep"],
    ),
    ("checkpoint=both", ["checkpoint=both is a comparison of several runs", "both/moe, both/mohge"]),
    ("checkpoint=run output=taken", ["taken exists and is not an empty folder", "output=DIR"]),
    ("checkpoint=run output=taken/file", ["taken/file exists and is not an empty folder"]),
    ("checkpoint=run arch=moe", ["arch=moe has no effect", "leave it out"]),
    ("checkpoint=run +colour=blue", ["unknown key colour"]),
    ("checkpont=run", ["unknown key checkpont; did you mean checkpoint?"]),
    ("checkpoint=run format=xml", ["format='xml'", "'mohge' or 'hf'"]),
]


@pytest.mark.parametrize(("overrides", "fragments"), MISTAKES, ids=[overrides for overrides, _ in MISTAKES])
def test_wrong_input_is_refused_before_anything_heavy(tmp_path, overrides, fragments):
    for name in ("run/checkpoints/step_00000001", "empty", "taken", "both", "sweep"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("run/config.yaml", "taken/file"):
        (tmp_path / name).write_text("seed: 1\n")
    (tmp_path / "sweep/sweep.json").write_text("{}")
    (tmp_path / "both/config.yaml").write_text("comparison: {arms: {moe: [arch=moe], mohge: []}}\n")
    imported = assert_refused_at_once("mohge-export", overrides.split(), tmp_path, fragments)
    assert "mohge.training.checkpoint_choice" in imported


def test_a_damaged_checkpoint_that_was_named_is_refused(folder):
    for shard in folder.glob("run/checkpoints/*/shard-*"):
        os.truncate(shard, 100)
    before = contents(folder)
    finished = run_forked("mohge-export", ["checkpoint=run/checkpoints/step_00000002/state.ckpt"], folder)
    assert_refused(finished, ["step_00000002/state.ckpt is damaged (shard-", "has 100 bytes"])
    finished = run_forked("mohge-export", ["checkpoint=run"], folder)
    assert_refused(finished, ["step_00000004 is damaged", "step_00000002 is damaged", "no intact one"])
    assert contents(folder) == before


def test_a_run_that_has_saved_nothing_is_refused(folder):
    shutil.rmtree(folder / "run" / "checkpoints")
    finished = run_forked("mohge-export", ["checkpoint=run"], folder)
    assert_refused(finished, ["checkpoint=run is a run that has saved nothing", "resume=run"])


def test_a_second_export_does_not_overwrite_the_first(folder):
    exported(folder, "checkpoint=run")
    before = contents(folder)
    finished = run_forked("mohge-export", ["checkpoint=run"], folder)
    assert_refused(finished, ["run/export/step_00000004 exists", "delete it, or give another output=DIR"])
    assert contents(folder) == before


@pytest.mark.parametrize("limit", [300, 5_000])
def test_a_full_disk_leaves_nothing(folder, limit):
    before = contents(folder)
    finished = run_forked("mohge-export", ["checkpoint=run"], folder, file_limit=limit)
    assert_refused(finished, ["cannot write ", "run/export/step_00000004", "File too large", "free space"])
    assert contents(folder) == before
