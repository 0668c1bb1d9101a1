from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from corpus_samples import Configure, words

from datamodules.checks import check
from datamodules.corpora.text_files import TextFiles
from datamodules.prepare import prepare
from mohge.errors import UserError


def test_sub_folders_are_domains(configure: Configure, folder: Path) -> None:
    (folder / "loose.txt").write_text("loose")
    (folder / ".hidden.txt").write_text("not read")
    (folder / "picture.png").write_bytes(b"\0\1")
    (folder / "prose" / "deep").mkdir()
    (folder / "prose" / "deep" / "a.txt").write_text("deep down")
    documents = list(TextFiles(configure(path=str(folder))).documents(progress=False))
    assert Counter(document.domain for document in documents)["prose"] == 13
    assert {document.text: document.domain for document in documents}["loose"] == "text"
    assert not any("not read" in document.text for document in documents)


def test_a_folder_that_moves_gives_the_same_documents(configure: Configure, folder: Path) -> None:
    before = list(TextFiles(configure(path=str(folder))).documents(progress=False))
    moved = folder.rename(folder.parent / "elsewhere")
    assert list(TextFiles(configure(path=str(moved))).documents(progress=False)) == before
    assert "prose/00.md" in {document.key for document in before}


def test_a_glob_and_a_file_are_one_domain(configure: Configure, folder: Path) -> None:
    documents = list(TextFiles(configure(path=str(folder / "**" / "0*.md"))).documents(progress=False))
    assert {document.domain for document in documents} == {"text"}
    assert len(documents) == 8
    assert TextFiles(configure(path=str(folder / "prose" / "00.md"))).files == [folder / "prose" / "00.md"]


def test_json_lines_may_name_their_domain(configure: Configure, folder: Path) -> None:
    cfg = configure(path=str(folder / "lines"), domain_field="topic")
    documents = list(TextFiles(cfg).documents(progress=False))
    assert Counter(document.domain for document in documents) == {"t0": 10, "t1": 10}
    assert len({document.key for document in documents}) == 20


def test_a_single_file_is_cut_and_its_end_held_out(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    text = "\n\n".join(words(number, 40).replace("\n\n", "\n") for number in range(60))
    path.write_text(text, encoding="utf-8")
    cfg = configure(path=str(path))
    documents = list(TextFiles(cfg).documents(progress=False))
    assert 10 <= len(documents) <= 25
    assert "".join(document.text for document in documents) == text
    prepare(cfg, progress=False)


@pytest.mark.parametrize(
    "text", ["words of one line " * 4000, "一行沒有空格的字" * 4000, "字" * 7000 + "\n\nend"]
)
def test_a_single_file_of_one_line_is_cut_too(configure: Configure, tmp_path: Path, text: str) -> None:
    path = tmp_path / "book.txt"
    path.write_text(text, encoding="utf-8")
    cfg = configure(path=str(path))
    pieces = [document.text for document in TextFiles(cfg).documents(progress=False)]
    assert "".join(pieces) == text
    assert 10 <= len(pieces) <= 25
    assert " " not in text or all(piece.endswith(" ") for piece in pieces)


def test_byte_order_mark_and_windows_lines(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    documents = TextFiles(configure(path=str(tmp_path))).documents(progress=False)
    assert "".join(document.text for document in documents) == "one\ntwo\n"


def test_identity_follows_content_and_fields(configure: Configure, folder: Path) -> None:
    cfg = configure(path=str(folder))
    before = TextFiles(cfg).identity()
    assert TextFiles(cfg).identity() == before
    assert TextFiles(configure(path=str(folder), domain_field="topic")).identity() != before
    same_files_in_one_domain = configure(path=str(folder / "**" / "*"))
    assert TextFiles(same_files_in_one_domain).files == TextFiles(cfg).files
    assert TextFiles(same_files_in_one_domain).identity() != before
    state = (folder / "prose" / "00.md").stat()
    os.utime(folder / "prose" / "00.md", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert TextFiles(cfg).identity() != before


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "fields", "expected"),
    [
        ({}, {}, r"data.path=.*/in holds no .txt, .md or .jsonl file"),
        ({"a.png": b"x"}, {}, r"holds no .txt, .md or .jsonl file"),
        ({"a.txt": b" \n ", "b.txt": b""}, {}, r"data=text_files data.path=.* holds no text"),
        ({"a.txt": b"good", "b.txt": b"PK\0\1"}, {}, r"b.txt is binary or UTF-16"),
        ({"a.txt": "h\u00e9llo".encode("latin-1")}, {}, r"a.txt is not UTF-8 text"),
        ({"a.jsonl": '{"text": "x"}\n{"text": '}, {}, r"a.jsonl, line 2, is not JSON"),
        ({"a.jsonl": "3\n"}, {}, r"a.jsonl, line 1, is not a JSON object"),
        ({"a.jsonl": '{"body": "x"}'}, {}, r"in field 'text' \(its fields are 'body'\): set data.text"),
        ({"a.jsonl": '{"text": 3}'}, {}, r"line 1, has no text in field 'text'"),
        ({"a.jsonl": '{"text": "x"}'}, {"domain_field": "kind"}, r"in field 'kind' .* set data.domain_field"),
        ({"a.jsonl": '{"text": "x\\ud800"}'}, {}, r"a.jsonl:1 holds an unpaired surrogate"),
        ({"a.jsonl": '{"text": "only one"}'}, {}, r"domain 'text' of the corpus is too small"),
    ],
)  # fmt: skip
def test_wrong_files_are_named_in_one_sentence(
    configure: Configure, tmp_path: Path, content: dict[str, Any], fields: dict[str, Any], expected: str
) -> None:
    (tmp_path / "in").mkdir()
    for name, text in content.items():
        write(tmp_path / "in" / name, text)
    cfg = configure(path=str(tmp_path / "in"), **fields)
    with pytest.raises(UserError, match=expected) as caught:
        prepare(cfg, progress=False)
    assert str(caught.value).count("\n") == 0
    assert not list(Path(cfg.cache_dir).glob("tokens/*[!k]/*"))


def test_checks_need_no_preparation(configure: Configure, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs data\.path=PATH"):
        check(configure())
    with pytest.raises(UserError, match=r"data.path=.*/absent does not exist"):
        check(configure(path=str(tmp_path / "absent")))
    with pytest.raises(UserError, match="is binary"):
        check(configure(path=str(write(tmp_path / "a.txt", b"\0"))))
    with pytest.raises(UserError, match=r"data\.vocab_size=100 is too small"):
        check(configure(path=str(tmp_path), vocab_size=100))
    with pytest.raises(UserError, match=r"data.cache_dir=.* is a file"):
        check(configure(path=str(tmp_path), cache_dir=str(write(tmp_path / "file", "x") / "cache")))
    assert not (tmp_path / "cache").exists()
    records = [json.dumps({"text": words(number, 30)}) for number in range(5)]
    check(configure(path=str(write(tmp_path / "b.jsonl", "\n".join(records)))))
