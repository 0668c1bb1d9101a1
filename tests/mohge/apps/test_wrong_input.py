"""Wrong input: one sentence, exit status 2, and nothing left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from commands import run_light
from refusals import assert_refused, contents

CONFIG_SECONDS = 2.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with things to get wrong."""
    files = {
        "binary/a.txt": b"text\0text" * 50,
        "pictures/a.png": b"\x89PNG",
        "file": b"",
        "not_a_tokenizer.json": b"{}",
        "word_level.json": _word_level_tokenizer(),
        "damaged_run/config.yaml": b"model: [",
        "taken/config.yaml": b"seed: 1\n",
        "sweep/sweep.json": b"{}",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "empty").mkdir()
    return tmp_path


def _word_level_tokenizer() -> bytes:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).to_str().encode()


CONFIG_MISTAKES = [
    # unknown keys and choices
    ("mohge-train", "model.d_modl=64", ["model.d_modl", "did you mean model.d_model?"]),
    ("mohge-train", "+router.group_topk=2", ["router.group_topk", "did you mean router.group_top_k?"]),
    ("mohge-train", "+colour=blue", ["unknown key colour"]),
    ("mohge-train", "archi=moe", ["archi", "did you mean arch"]),
    (
        "mohge-train",
        "arch=mohgee",
        ["arch=mohgee", "deepseek, dense, ", "did you mean mohge?"],
    ),
    ("mohge-train", "experiment=quickstrat", ["experiment=quickstrat", "did you mean quickstart?"]),
    ("mohge-train", "sweep=smoke", ["sweep belongs to mohge-sweep: use that command"]),
    ("mohge-train", "eval.limit=5", ["eval.limit belongs to mohge-eval: use that command"]),
    ("mohge-train", "experts/nano=moe", ["experts/nano is no key: write experts=nano/CHOICE"]),
    ("mohge-train", "router=top_k", ["write router=MODEL/top_k", "such as router=nano/top_k"]),
    ("mohge-plan", "model=huge", ["model=huge", "nano", "tiny"]),
    ("mohge-plan", "model=[nano,tiny]", ["model is not one size", "nano"]),
    # wrong types and values
    ("mohge-train", "model.d_model=wide", ["model.d_model='wide'", "whole number"]),
    ("mohge-train", "model.layers=2.5", ["model.layers=2.5", "whole number"]),
    ("mohge-train", "trainer.max_steps=true", ["trainer.max_steps=true", "a number"]),
    ("mohge-train", "experts.widths=64", ["experts.widths=64", "a list such as [64,128]"]),
    ("mohge-train", "optim.lr=-1", ["optim.lr=-1", "greater than 0"]),
    ("mohge-train", "optim.lr=inf", ["optim.lr=inf", "finite"]),
    ("mohge-train", "data.validation_fraction=1.5", ["data.validation_fraction=1.5", "less than 1"]),
    ("mohge-train", "trainer.precision=fp8", ["trainer.precision='fp8'", "'fp32' or 'bf16'"]),
    ("mohge-train", "seed=null", ["seed=None", "whole number"]),
    ("mohge-plan", "format=xml", ["format='xml'", "'table' or 'json'"]),
    # malformed overrides
    ("mohge-train", "trainer.max_steps", ["'trainer.max_steps'", "key=value"]),
    ("mohge-train", "experts.widths=[1", ["'experts.widths=[1'", "key=value"]),
    ("mohge-train", "data.path=~/x", ["'data.path=~/x' cannot be read", "that has ~", "'key=\"value\"'"]),
    ("mohge-train", "seed=1,2", ["'seed=[1,2]' for a list", "'seed=\"1,2\"' for one text", "mohge-train -m"]),
    (
        "mohge-train",
        "hydra.sweeper.max_batch_size=x",
        ["hydra.sweeper.max_batch_size=x is not valid", "Integer"],
    ),
    ("mohge-train", "arch=moe,mohge", ["arch=moe,mohge names several", "give one, or use mohge-train -m"]),
    ("mohge-plan", "--config-name foo", ["--config-name foo does not exist: leave it out"]),
    ("mohge-plan", "--config-dir nowhere", ["nowhere' not found; give a folder that exists"]),
    ("mohge-train", "seed=${nowhere}", ["seed", "nowhere"]),
    # combinations that cannot work
    ("mohge-train", "model.heads=7", ["model.heads=7", "model.d_model=128"]),
    ("mohge-train", "router.expert_top_k=9", ["router.expert_top_k=9", "at most 8"]),
    ("mohge-train", "router.group_top_k=5", ["router.group_top_k=5", "4 groups"]),
    ("mohge-train", "experts.groups=3", ["experts.groups=3", "[48, 80, 112, 144]"]),
    # meshes: more of them in tests/mohge/parallel/test_sizes.py
    ("mohge-train", "trainer.devices=2", ["trainer.devices=2", "parallel=single", "use trainer.devices=1"]),
    ("mohge-train", "parallel=ep", ["trainer.devices does not say", "use trainer.devices=1, 2 or 4"]),
    ("mohge-plan", "parallel=ep trainer.devices=3", ["experts.per_group=4", "trainer.devices=1, 2 or 4"]),
    ("mohge-train", "parallel=ddp trainer.devices=3", ["data.batch_sequences=16", "3 ranks"]),
    ("mohge-train", "parallel=ddp trainer.devices=2 trainer.nodes=2", ["trainer.nodes=2", "by torchrun"]),
    ("mohge-train", "parallel=fsdp_ep trainer.devices=999999937", ["=999999937", "2, 4, 8 or 16"]),
    ("mohge-train", "parallel=ddp trainer.devices=0", ["trainer.devices=0", "greater than 0"]),
    (
        "mohge-train",
        "parallel=ep trainer.devices=2 parallel.placement=pairs",
        ["parallel.placement=pairs", "use parallel.placement=all_size"],
    ),
    ("mohge-train", "data.context=512", ["data.context=512", "model.context=256"]),
    ("mohge-train", "data=text_files", ["data.path"]),
    # folders and files
    ("mohge-train", "resume=nowhere", ["nowhere", "holds no run"]),
    ("mohge-train", "resume=damaged_run", ["damaged_run/config.yaml is damaged"]),
    ("mohge-train", "resume=sweep", ["resume=sweep is a sweep", "mohge-sweep"]),
    ("mohge-train", "paths.run_dir=taken", ["paths.run_dir=taken holds a run already", "resume=taken"]),
    ("mohge-train", "paths.run_dir=file/run", ["file/run", "paths.run_dir"]),
    ("mohge-train", "paths.output_dir=file", ["file/nano-mohge", "Not a directory"]),
    ("mohge-train", "paths.cache_dir=file", ["data.cache_dir=file", "file is a file"]),
    ("mohge-plan", "output=file/plan.json", ["cannot write file/plan.json"]),
    ("mohge-train", "data.check=nowhere.check", ["data.check=nowhere.check", "cannot be imported"]),
    ("mohge-train", "data=text_files data.path=nowhere", ["data.path=nowhere does not exist"]),
    ("mohge-train", "data=text_files data.path=empty", ["data.path=empty holds no .txt, .md or .jsonl"]),
    ("mohge-train", "data=text_files data.path=pictures", ["data.path=pictures holds no .txt"]),
    ("mohge-train", "data=text_files data.path=binary", ["binary/a.txt is binary"]),
    ("mohge-prepare", "data=text_files data.path=binary", ["binary/a.txt is binary"]),
    ("mohge-train", "data.tokenizer=nowhere.json", ["data.tokenizer=nowhere.json cannot be read"]),
    ("mohge-train", "data.tokenizer=not_a_tokenizer.json", ["not_a_tokenizer.json is not a tokenizer"]),
    ("mohge-prepare", "data.tokenizer=word_level.json", ["not a byte-level BPE", "WordLevel"]),
    ("mohge-train", "model.vocab_size=100", ["vocab_size=100"]),
]


@pytest.mark.parametrize(
    ("command", "overrides", "fragments"), CONFIG_MISTAKES, ids=[f"{c} {o}" for c, o, _ in CONFIG_MISTAKES]
)
def test_a_wrong_configuration_is_refused_before_anything_heavy(folder, command, overrides, fragments):
    assert_refused_early(folder, command, overrides, fragments, {})


TORCHRUN = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
SRUN = {
    **{"SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_TASKS_PER_NODE": "2,1"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
}
LAUNCHED_MISTAKES = [
    (TORCHRUN, "", ["a launch of 2 ranks", "parallel=single", "use parallel=ddp, fsdp, ep or fsdp_ep"]),
    (TORCHRUN, "parallel=ddp trainer.devices=4", ["trainer.devices=4", "use trainer.devices=2"]),
    (TORCHRUN, "parallel=ddp paths.cache_dir=file", ["data.cache_dir=file", "file is a file"]),
    (TORCHRUN, "-m parallel=ddp seed=1", ["one run", "without -m", "trainer.devices=N"]),
    (TORCHRUN, "parallel=ddp experiment=compare", ["one run", "one arm at a time", "trainer.devices=N"]),
    (TORCHRUN | {"RANK": "a"}, "parallel=ddp", ["RANK='a' is not a number", "unset it"]),
    (TORCHRUN | {"LOCAL_RANK": "1"}, "parallel=ddp", ["LOCAL_RANK=1", "--nproc-per-node"]),
    (SRUN, "parallel=ddp", ["SLURM_STEP_TASKS_PER_NODE=2,1", "--ntasks-per-node=N"]),
]


@pytest.mark.parametrize(("environment", "overrides", "fragments"), LAUNCHED_MISTAKES)
def test_a_rank_of_another_launcher_refuses_as_early(folder, environment, overrides, fragments):
    assert_refused_early(folder, "mohge-train", overrides, fragments, environment)


def assert_refused_early(
    folder: Path, command: str, overrides: str, fragments: list[str], environment: dict[str, str]
) -> None:
    before = contents(folder)
    cache = [] if command == "mohge-plan" or "cache_dir" in overrides else ["paths.cache_dir=cache"]
    finished = run_light(command, [*overrides.split(), *cache], folder, environment)
    assert_refused(finished, fragments)
    if "-m" in overrides:
        shutil.rmtree(folder / "outputs" / "multirun")  # Hydra's own notes of a multirun
        (folder / "outputs").rmdir()
    assert contents(folder) == before
    assert not (folder / "cache").exists()
    assert finished.cpu_seconds < CONFIG_SECONDS
    assert "mohge.config.schema" in finished.imported, "the list of imports works"
    starts_processes = "multiprocessing.popen_forkserver"
    assert finished.imported.isdisjoint({"torch", "lightning", "mlflow", "datasets", starts_processes})
