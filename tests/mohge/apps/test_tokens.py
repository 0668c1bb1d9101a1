"""mohge-tokens as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import run_forked
from refusals import assert_refused, assert_refused_at_once, contents
from tiny_runs import TINY_MODEL, tiny_data, tiny_run, write_corpus

STEP = "step_00000002"
STEPS = ("trainer.max_steps=2", "trainer.checkpoint_every=2")


def train(folder: Path, run: str, overrides: list[str]) -> None:
    finished = run_forked("mohge-train", [*overrides, *STEPS, f"paths.run_dir={run}"], folder)
    assert finished.status == 0, finished.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a run, and one of a dense model."""
    folder = tmp_path_factory.mktemp("work") / "trained"
    corpus, cache = Path("corpus"), Path("cache")
    write_corpus(folder / "corpus")
    train(folder, "run", tiny_run(corpus, cache))
    quiet = ("logger=none", "callbacks=none")
    train(folder, "dense", ["arch=dense", *TINY_MODEL, *tiny_data(corpus, cache), *quiet])
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A working folder of the test's own, with copies of the runs; the corpus is where it was."""
    for run in ("run", "dense"):
        shutil.copytree(trained / run, tmp_path / "work" / run)
    return tmp_path / "work"


def test_it_prints_tables_findings_and_where_the_files_are(folder):
    finished = run_forked("mohge-tokens", ["checkpoint=run", "tokens=1000"], folder)
    assert (finished.status, finished.stderr) == (0, "")
    made = folder / "run" / "tokens" / STEP
    result = json.loads((made / "tokens.json").read_text(encoding="utf-8"))
    said = " ".join(finished.stdout.split())
    for sentence in (*result["findings"], f"Folder: {made} with tokens.json, text.html"):
        assert " ".join(sentence.split()) in said
    for words in (f"{result['tokens']:,} held-out tokens of text_files", "lists", "prose", "punctuation"):
        assert words in said
    for group in result["difficulty"][-1]["groups"]:
        row = f"{group['width']} │ {group['share']:.1%} │ {group['frequency']['mean']:.2f} ("
        assert row in said


def test_json_is_one_object_and_nothing_else(folder):
    finished = run_forked(
        "mohge-tokens", ["checkpoint=run", "output=mine", "tokens=300", "format=json"], folder
    )
    assert (finished.status, finished.stderr) == (0, "")
    assert json.loads(finished.stdout) == json.loads((folder / "mine" / "tokens.json").read_text("utf-8"))
    assert not (folder / "run" / "tokens").exists()


def test_other_texts_have_folders_of_their_own(folder):
    (folder / "letter.txt").write_text("dear reader, 12 words\n" * 40)
    (folder / "poems" / "short").mkdir(parents=True)
    for number in range(9):
        (folder / "poems" / "short" / f"{number}.txt").write_text(f"poem {number} has words " * 30)
    other = ["data=text_files", "data.path=poems", "paths.cache_dir=other_cache", "tokens=200"]
    for overrides in (["text=letter.txt"], other):
        finished = run_forked("mohge-tokens", ["checkpoint=run", *overrides], folder)
        assert finished.status == 0, finished.stderr
    tokens = folder / "run" / "tokens"
    assert (folder / "other_cache").is_dir()
    found = {
        name: json.loads((tokens / name / STEP / "tokens.json").read_text())
        for name in ("letter", "text_files")
    }
    assert (found["letter"]["corpus"], found["letter"]["split"]) == ("letter.txt", "text")
    assert [domain["domain"] for domain in found["text_files"]["domains"]] == ["short"]


def test_a_second_analysis_does_not_overwrite_the_first(folder):
    assert run_forked("mohge-tokens", ["checkpoint=run", "tokens=100"], folder).status == 0
    before = contents(folder)
    finished = run_forked("mohge-tokens", ["checkpoint=run", "tokens=100"], folder)
    assert_refused(finished, [f"run/tokens/{STEP} exists", "delete it, or give another output=DIR"])
    assert contents(folder) == before


MISTAKES = [
    ("", ["checkpoint has no value: give one with checkpoint=VALUE"]),
    ("checkpoint=nowhere", ["checkpoint=nowhere does not exist", "give a run's folder"]),
    ("checkpoint=run output=taken", ["taken exists and is not an empty folder", "output=DIR"]),
    ("checkpoint=run arch=moe", ["arch=moe has no effect", "leave it out"]),
    ("checkpoint=run text=nowhere.txt", ["text=nowhere.txt is no file", "UTF-8"]),
    ("checkpoint=run text=taken", ["text=taken is no file"]),
    ("checkpoint=run text=taken/file data=debian_docs", ["text=taken/file are two texts: give one"]),
    ("checkpoint=run data=text_files", ["data.path"]),
    ("checkpoint=run data=text_files data.path=nowhere", ["data.path=nowhere does not exist"]),
    ("checkpoint=run data.split=all", ["data.split=all has no effect without another corpus", "data=NAME"]),
    (
        "checkpoint=run data=python_stdlib data.context=8",
        ["data.context=8 has no effect", "the run's own tokenizer"],
    ),
    ("checkpoint=run tokens=0", ["tokens=0", "greater than 0"]),
    ("checkpoint=run format=xml", ["format='xml'", "'table' or 'json'"]),
]


@pytest.mark.parametrize(("overrides", "fragments"), MISTAKES, ids=[overrides for overrides, _ in MISTAKES])
def test_wrong_input_is_refused_before_anything_heavy(tmp_path, overrides, fragments):
    for name in ("run/checkpoints/step_00000001", "taken"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("run/config.yaml", "taken/file"):
        (tmp_path / name).write_text("seed: 1\n")
    imported = assert_refused_at_once("mohge-tokens", overrides.split(), tmp_path, fragments)
    assert "mohge.training.checkpoint_choice" in imported


@pytest.mark.parametrize(
    ("content", "fragments"),
    [(b"caf\xe9", ["text=text is not UTF-8 (byte 3)"]), (b" \n", ["text=text is empty: give a file"])],
)
def test_a_text_that_is_none_is_refused(folder, content, fragments):
    (folder / "text").write_bytes(content)
    before = contents(folder)
    assert_refused(run_forked("mohge-tokens", ["checkpoint=run", "text=text"], folder), fragments)
    assert contents(folder) == before


def test_a_dense_model_is_refused(folder):
    before = contents(folder)
    finished = run_forked("mohge-tokens", ["checkpoint=dense"], folder)
    assert_refused(finished, [f"dense/checkpoints/{STEP} is of a dense model", "a model with experts"])
    assert contents(folder) == before


def test_a_run_without_its_corpus_is_refused(folder, trained):
    gone = [trained / "corpus", trained / "cache"]
    for path in gone:
        path.rename(path.with_suffix(".gone"))
    try:
        before = contents(folder)
        finished = run_forked("mohge-tokens", ["checkpoint=run"], folder)
        assert_refused(finished, [f"{trained / 'corpus'} does not exist"])
        assert contents(folder) == before
    finally:
        for path in gone:
            shutil.rmtree(path, ignore_errors=True)
            path.with_suffix(".gone").rename(path)


def test_a_full_disk_leaves_nothing(folder):
    before = contents(folder)
    finished = run_forked("mohge-tokens", ["checkpoint=run", "tokens=300"], folder, file_limit=5_000)
    assert_refused(
        finished, [f"cannot write {folder / 'run' / 'tokens' / STEP}", "File too large", "free space"]
    )
    assert contents(folder) == before
