from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from corpus_samples import Configure, words

from datamodules.checks import check
from datamodules.corpora.hf import HubDataset
from datamodules.prepare import prepare
from datamodules.store import open_store
from mohge.errors import UserError

datasets = pytest.importorskip("datasets")
ROWS = [{"text": words(number, 50), "topic": f"a/{number % 2}", "number": number} for number in range(30)]


@pytest.fixture
def dataset_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `load_dataset` reads it: JSON lines in one split."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return folder


def hub(configure: Configure, path: Path | str, **fields: Any) -> Any:
    return configure(name="hf", path=str(path), **fields)


def test_a_local_folder_is_streamed_and_prepared(configure: Configure, dataset_folder: Path) -> None:
    cfg = hub(configure, dataset_folder, domain_field="topic")
    check(cfg)
    manifest = open_store(prepare(cfg, progress=False), "remedy").manifest
    assert manifest.domains == ("a_0", "a_1")
    assert manifest.corpus.documents == {"a_0": 15, "a_1": 15}
    assert sum(manifest.corpus.bytes.values()) == sum(len(row["text"].encode()) for row in ROWS)
    assert manifest.corpus.sources[0].name == str(dataset_folder)


def test_a_saved_dataset_is_read_too(configure: Configure, tmp_path: Path) -> None:
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    saved.save_to_disk(tmp_path / "both")
    saved["train"].save_to_disk(tmp_path / "one")
    for name in ("both", "one"):
        documents = HubDataset(hub(configure, tmp_path / name)).documents(progress=False)
        assert [document.text for document in documents] == [row["text"] for row in ROWS]
    with pytest.raises(UserError, match=r"data.split=test \(its splits are train\)"):
        next(HubDataset(hub(configure, tmp_path / "both", split="test")).documents(progress=False))


def test_reading_stops_at_max_bytes(configure: Configure, dataset_folder: Path) -> None:
    documents = list(HubDataset(hub(configure, dataset_folder, max_bytes=3000)).documents(progress=False))
    size = sum(len(document.text.encode()) for document in documents)
    assert 2000 < size <= 3000
    assert Counter(document.domain for document in documents) == {"text": len(documents)}


def test_an_interrupted_stream_continues_where_it_stopped(
    configure: Configure, dataset_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.corpora.journal._ROWS_PER_STATE", 4)
    cfg = hub(configure, dataset_folder)
    parse, parsed = HubDataset._parse, list[int]()

    def interrupted(self: HubDataset, row: dict[str, Any], number: int) -> tuple[str, str]:
        if number == 10:
            raise ConnectionError("gone")
        return counted(self, row, number)

    def counted(self: HubDataset, row: dict[str, Any], number: int) -> tuple[str, str]:
        parsed.append(number)
        return parse(self, row, number)

    monkeypatch.setattr(HubDataset, "_parse", interrupted)
    with pytest.raises(UserError, match="was interrupted: check the network and run the command again"):
        prepare(cfg, progress=False)
    monkeypatch.setattr(HubDataset, "_parse", counted)
    prepare(cfg, progress=False)
    assert parsed == [*range(10), *range(8, 30)], "the last recorded position is behind row 7"
    (documents,) = Path(cfg.cache_dir).glob("corpora/*/documents.jsonl")
    texts = [json.loads(line)["text"] for line in documents.read_text("utf-8").splitlines()]
    assert texts == [row["text"] for row in ROWS]
    assert not list(Path(cfg.cache_dir).glob("downloads/hf/*"))


def test_identity_follows_files_and_settings(configure: Configure, dataset_folder: Path) -> None:
    before = HubDataset(hub(configure, dataset_folder)).identity()
    assert HubDataset(hub(configure, dataset_folder)).identity() == before
    assert HubDataset(hub(configure, dataset_folder, max_bytes=3000)).identity() != before
    (dataset_folder / "more.jsonl").write_text('{"text": "x"}')
    assert HubDataset(hub(configure, dataset_folder)).identity() != before


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"split": "test"}, r"data.split=test \(.*\): correct one"),
        (
            {"text_field": "body"},
            r"row 0 of data.path=.* has no text in column 'body' \(its columns are 'text', ",
        ),
        ({"text_field": "number"}, r"no text in column 'number'"),
        ({"domain_field": "kind"}, r"column 'kind' .* set data.domain_field"),
    ],
)
def test_wrong_settings_are_named(
    configure: Configure, dataset_folder: Path, fields: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as caught:
        prepare(hub(configure, dataset_folder, **fields), progress=False)
    assert "\n" not in str(caught.value)


def test_checks_name_what_is_missing(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data=hf needs data\.path=NAME"):
        check(configure(name="hf"))
    with pytest.raises(UserError, match="is not a folder"):
        check(hub(configure, tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"data\.path=.*empty cannot be opened"):
        prepare(hub(configure, tmp_path / "empty"), progress=False)
