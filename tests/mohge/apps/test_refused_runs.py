"""Wrong input that shows only once the heavy libraries are there: data, machine, store, checkpoint, disk.

The commands are forked from a process that has imported those, since each would take seconds to start.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run_command, run_forked
from refusals import assert_refused, contents
from tiny_runs import tiny_run, write_corpus

pytestmark = pytest.mark.slow

RUN = (*tiny_run(Path("corpus"), Path("cache")), "trainer.max_steps=30", "trainer.checkpoint_every=10")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, and that corpus prepared."""
    folder = tmp_path_factory.mktemp("work") / "prepared"
    write_corpus(folder / "corpus")
    assert run_forked("mohge-prepare", RUN, folder).status == 0
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A working folder of the test's own."""
    return shutil.copytree(prepared, tmp_path / "work", copy_function=shutil.copy2)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def outside_cache(folder: Path) -> dict[str, bytes | None]:
    return {name: content for name, content in contents(folder).items() if not name.startswith("cache")}


def temporary(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".lock", ".partial", ".tmp")]


TEXTS = {
    "latin": ({"a.txt": "Gr\u00fc\u00dfe\n".encode("latin-1") * 50}, ["a.txt is not UTF-8", "iconv"]),
    "broken": ({"a.jsonl": b'{"text": "a"}\n{"text": \n'}, ["a.jsonl, line 2, is not JSON"]),
    "fields": ({"a.jsonl": b'{"body": "a"}\n'}, ["no text in field 'text'", "'body'", "data.text_field"]),
    "blank": ({"a.txt": b"  \n\n"}, ["/blank holds no text"]),
    "short": ({"a.txt": b"one", "b.txt": b"two"}, ["fewer than one window of data.context=32"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_cannot_be_used_is_named(tmp_path, name):
    files, fragments = TEXTS[name]
    folder = tmp_path / "work"
    folder.mkdir()
    write(folder, {f"{name}/{file}": content for file, content in files.items()})
    before = outside_cache(folder)
    assert_refused(run_forked("mohge-train", [*RUN, f"data.path={name}"], folder), fragments)
    assert outside_cache(folder) == before
    assert not temporary(folder)


OTHERS = [
    ("data._target_=nowhere.Data", ["data._target_=nowhere.Data cannot be imported"]),
    ("data._target_=datamodules.Nothing", ["data._target_=datamodules.Nothing cannot be imported"]),
    ("callbacks.plots={_target_:callbacks.Nothing}", ["callbacks.plots._target_=callbacks.Nothing"]),
    ("callbacks.plots={_target_:math.sqrt}", ["callbacks.plots._target_=math.sqrt cannot be called"]),
    ("logger=mlflow logger.tracking_uri=sqlite:///corpus/prose/0.txt", ["logger.tracking_uri="]),
    ("logger=mlflow logger.tracking_uri=sqlite:////proc/none/x.db", ["logger.tracking_uri=", "logger=none"]),
    ("logger=mlflow logger.tracking_uri=http://127.0.0.1:9", ["http://127.0.0.1:9", "logger=csv"]),
    ("experts.kernel=native experts.widths=[17,30]", ["experts.kernel=native: ", "use experts.kernel=auto"]),
    pytest.param(
        "trainer.accelerator=cuda",
        ["trainer.accelerator=cuda", "no usable GPU"],
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
    ),
]


@pytest.mark.parametrize(("overrides", "fragments"), OTHERS)
def test_what_the_run_cannot_be_built_from_is_named(folder, overrides, fragments):
    before = contents(folder)
    assert_refused(run_forked("mohge-train", [*RUN, *overrides.split()], folder), fragments)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("tokens.bin", lambda content: content[:-100], "bytes instead of"),
        ("documents.npy", lambda content: content[:-1] + bytes([content[-1] ^ 1]), "wrong checksum"),
        ("manifest.json", lambda content: content[: len(content) // 2], "is damaged"),
    ],
    ids=["truncated", "altered", "manifest"],
)
def test_a_damaged_store_is_named_with_its_remedy(folder, name, damage, reason):
    (store,) = (folder / "cache" / "tokens").iterdir()
    path = store / name
    path.write_bytes(damage(path.read_bytes()))
    before = contents(folder)
    assert_refused(
        run_forked("mohge-train", RUN, folder), [str(path), reason, f"delete {store}", "mohge-prepare"]
    )
    assert contents(folder) == before
    shutil.rmtree(store)
    assert run_forked("mohge-train", [*RUN, "trainer.max_steps=1"], folder).status == 0


@pytest.mark.parametrize("ranks", [[], ["parallel=ep", "trainer.devices=2"]], ids=["one rank", "two ranks"])
def test_a_run_that_left_no_intact_checkpoint_is_not_continued(folder, ranks):
    assert run_forked("mohge-train", [*RUN, "paths.run_dir=run"], folder).status == 0
    saved = sorted((folder / "run" / "checkpoints").iterdir())
    for path in saved:
        (path / "state.ckpt").write_bytes(b"nonsense")
    before = contents(folder)
    finished = run_forked("mohge-train", ["resume=run", *ranks], folder)
    assert_refused(
        finished,
        [*(f"{path.name} is damaged" for path in saved), "no intact one is left: start the run anew"],
    )
    assert contents(folder) == before


def test_a_loss_that_is_not_finite_is_a_failure_of_the_run(folder):
    steep = ("optim.lr=1e30", "optim.warmup_fraction=0", "trainer.clip=null", "trainer.checkpoint_every=1")
    finished = run_forked("mohge-train", [*RUN, *steep, "paths.run_dir=run"], folder)
    assert finished.status == 1
    (sentence,) = finished.stderr.splitlines()
    assert sentence.startswith("error: ")
    status = json_of(folder / "run" / "status.json")
    assert f"in step {status['step'] + 1} (micro-batch {status['step'] + 1}, " in sentence
    assert f"checkpoints/step_{status['step']:08d}: try a lower optim.lr" in sentence
    assert status["state"] == "failed"


@pytest.mark.parametrize("limit", [0, 1_000, 9_000, 16_000])
@pytest.mark.parametrize("command", ["mohge-prepare", "mohge-train"])
def test_a_disk_too_full_for_the_corpus_keeps_none_of_it(tmp_path, command, limit):
    folder = tmp_path / "work"
    write_corpus(folder / "corpus")
    before = outside_cache(folder)
    run = run_forked if limit else run_command  # a fork could not even print to its file
    finished = run(command, RUN, folder, file_limit=limit)
    assert_refused(finished, ["cannot write", "free s"])
    assert outside_cache(folder) == before
    assert not [path for path in folder.glob("cache/*/*") if not path.name.startswith("text_files-")]
    assert not temporary(folder)
    assert not list(folder.glob("cache/tokens/*"))


@pytest.mark.parametrize(
    ("limit", "refused"),
    [
        (200, "config.yaml"),
        (1_000, "config.yaml"),
        (3_000, "metrics.jsonl"),
        (8_000, "checkpoints/step_00000010"),
        (60_000, "checkpoints/step_00000010"),
        (150_000, "checkpoints/step_00000010"),
    ],
)
def test_a_disk_too_full_for_the_run_leaves_whole_files(folder, limit, refused):
    before = contents(folder)
    finished = run_forked("mohge-train", [*RUN, "paths.run_dir=run"], folder, file_limit=limit)
    assert_refused(finished, ["cannot write ", f"/run/{refused}", "free space"])
    assert not temporary(folder)
    run = folder / "run"
    if refused == "config.yaml":
        assert contents(folder) == before
        return
    assert json_of(run / "status.json")["state"] == "failed"
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        assert json.loads(line)["train/loss"] > 0
    assert not list(run.glob("checkpoints/step_*"))
    # With space again it goes on, from the start if it must.
    assert run_forked("mohge-train", ["resume=run"], folder).status == 0
    assert json_of(run / "status.json")["state"] == "finished"


@pytest.mark.parametrize("limit", [4_000, 100_000, 300_000])
def test_a_disk_too_full_for_the_tracking_store_keeps_none_of_it(folder, limit):
    before = contents(folder)
    finished = run_forked("mohge-train", [*RUN, "logger=mlflow"], folder, file_limit=limit)
    assert_refused(finished, ["logger.tracking_uri=sqlite:///", "disk I/O error", "logger=none"])
    assert {name for name in contents(folder) if name not in before} <= {"outputs"}


def json_of(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded
