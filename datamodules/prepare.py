"""From a corpus to a token store, in two stages that are each made once and kept in the cache.

    CACHE/corpora/NAME-DIGEST/   documents.jsonl, manifest.json       digest of what determines the text
    CACHE/tokens/NAME-DIGEST/    the store of `datamodules.store`      digest of the text and the settings

A stage is written into a temporary folder and renamed when it is whole, under a lock: an interrupted
preparation leaves nothing that could be taken for a result, and two processes do not collide.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from datamodules.cache import cache_folder, documents_folder, documents_identity, remedy, tokens_folder
from datamodules.corpora.base import Corpus
from datamodules.corpora.select import build_corpus
from datamodules.documents import DOCUMENTS_NAME, DocumentIndex, DocumentWriter, index_documents
from datamodules.files import digest, disk_errors, staged, write_text
from datamodules.manifests import (
    MANIFEST_NAME,
    CorpusManifest,
    Count,
    FileRecord,
    Manifest,
    Split,
    manifest_text,
    read_manifest,
)
from datamodules.progress import Advance, bytes_bar
from datamodules.splits import held_out, shuffled, within_budget
from datamodules.store import INDEX_DTYPE, INDEX_NAME, TOKENIZER_NAME, TOKENS_NAME
from datamodules.tokenizer import (
    encode,
    find_end_token,
    load_tokenizer,
    normalised,
    token_bytes,
    train_tokenizer,
    vocabulary_size,
)
from mohge.config.schema import DataConfig
from mohge.errors import UserError
from mohge.files import locked, sha256_of

_RECIPE = 1
"""Raised whenever the same corpus and settings would give other tokens."""
_TOKENIZER_SAMPLE_BYTES = 16 << 20
"""Text that a tokenizer is trained on, at most: the first training documents, which are shuffled."""
_BATCH_BYTES = 2 << 20
"""Text that is encoded at once: enough for all cores, little enough for memory."""


def prepare(cfg: DataConfig, *, progress: bool) -> Path:
    """Make what is missing; returns the folder of the token store.

    Raises:
        UserError: wrong input, or a disk that cannot take the result.
    """
    corpus = build_corpus(cfg)
    with disk_errors(cache_folder(cfg)):
        documents = _prepare_documents(cfg, corpus, progress=progress)
        return _prepare_tokens(cfg, documents, progress=progress)


def _prepare_documents(cfg: DataConfig, corpus: Corpus, *, progress: bool) -> Path:
    folder = documents_folder(cfg, corpus)
    if folder.exists():
        return folder
    with locked(folder.with_suffix(".lock"), f"preparing {folder.name}"):
        if folder.exists():  # made by the process that held the lock
            return folder
        corpus.check()
        with staged(folder) as partial:
            path = partial / DOCUMENTS_NAME
            with path.open("wb") as file:
                writer = DocumentWriter(file)
                for document in corpus.documents(progress=progress):
                    writer.add(document)
            if not writer.documents:
                where = f" data.path={cfg.path}" if cfg.path else ""
                raise UserError(f"data={cfg.name}{where} holds no text: give a source that has some.")
            manifest = CorpusManifest(
                name=cfg.name,
                identity=documents_identity(cfg, corpus),
                sources=corpus.sources(),
                documents=dict(sorted(writer.documents.items())),
                bytes=dict(sorted(writer.bytes.items())),
                duplicates=writer.duplicates,
                file=FileRecord(bytes=path.stat().st_size, sha256=sha256_of(path)),
            )
            write_text(partial / MANIFEST_NAME, manifest_text(manifest))
    return folder


def _prepare_tokens(cfg: DataConfig, documents: Path, *, progress: bool) -> Path:
    corpus = read_manifest(CorpusManifest, documents, remedy(cfg, documents))
    given = Path(cfg.tokenizer).expanduser() if cfg.tokenizer else None
    loaded = load_tokenizer(given, cfg.vocab_size) if given is not None else None
    settings: dict[str, object] = {
        "recipe": _RECIPE,
        "max_bytes": cfg.max_bytes,
        "validation_fraction": cfg.validation_fraction,
        "tokenizer": digest(loaded.to_str()) if loaded else f"trained, {cfg.vocab_size} entries",
    }
    folder = tokens_folder(cfg, corpus.file.sha256, settings)
    if folder.exists():
        return folder
    with locked(folder.with_suffix(".lock"), f"preparing {folder.name}"):
        if folder.exists():
            return folder
        if sha256_of(documents / DOCUMENTS_NAME) != corpus.file.sha256:
            wrong = documents / DOCUMENTS_NAME
            raise UserError(f"{wrong} has changed since it was made: {remedy(cfg, documents)}.")
        with staged(folder) as partial:
            _write_store(
                cfg, corpus, settings, index_documents(documents / DOCUMENTS_NAME), partial, progress
            )
    return folder


def _write_store(
    cfg: DataConfig,
    corpus: CorpusManifest,
    settings: dict[str, object],
    index: DocumentIndex,
    folder: Path,
    progress: bool,
) -> None:
    order = within_budget(index, shuffled(index), cfg.max_bytes)
    validation = held_out(index, order, cfg.validation_fraction)
    # Training documents first, then validation domain by domain; the shuffle holds within each part.
    part = np.where(validation, 1 + index.domains[order], 0)
    by_part = np.argsort(part, kind="stable")
    order, validation = order[by_part], validation[by_part]

    if cfg.tokenizer:
        tokenizer = load_tokenizer(Path(cfg.tokenizer).expanduser(), cfg.vocab_size)
    else:
        tokenizer = train_tokenizer(_sample(index, order[~validation], progress), cfg.vocab_size)
    vocab_size = vocabulary_size(tokenizer)
    dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    with bytes_bar("tokenizing", int(index.bytes[order].sum()), enabled=progress) as done:
        records = _write_tokens(cfg, index, order, tokenizer, dtype, folder / TOKENS_NAME, done)
    records["domain"], records["validation"] = index.domains[order], validation
    with (folder / INDEX_NAME).open("wb") as file:
        np.save(file, records)
    write_text(folder / TOKENIZER_NAME, tokenizer.to_str(pretty=True))

    files = {}
    for name in (TOKENS_NAME, INDEX_NAME, TOKENIZER_NAME):
        path = folder / name
        files[name] = FileRecord(bytes=path.stat().st_size, sha256=sha256_of(path))
    manifest = Manifest(
        corpus=corpus,
        settings=settings,
        tokenizer=cfg.tokenizer or f"byte-level BPE trained on {cfg.name}",
        vocab_size=vocab_size,
        end_token=find_end_token(tokenizer, "the tokenizer"),
        dtype=dtype,
        domains=index.domain_names,
        counts=_counts(records, index.domain_names),
        files=files,
        fingerprint=digest({name: record.sha256 for name, record in files.items()}),
    )
    write_text(folder / MANIFEST_NAME, manifest_text(manifest))


def _sample(index: DocumentIndex, train: np.ndarray, progress: bool) -> Iterator[str]:
    """The text that the tokenizer is trained on: training documents only, so that nothing leaks."""
    count = max(1, int(np.searchsorted(np.cumsum(index.bytes[train]), _TOKENIZER_SAMPLE_BYTES, side="right")))
    with bytes_bar("training the tokenizer", int(index.bytes[train[:count]].sum()), enabled=progress) as done:
        for number, text in zip(train[:count], index.texts(train[:count]), strict=True):
            yield text
            done(int(index.bytes[number]))


def _write_tokens(
    cfg: DataConfig,
    index: DocumentIndex,
    order: np.ndarray,
    tokenizer: Tokenizer,
    dtype: str,
    path: Path,
    done: Advance,
) -> np.ndarray:
    """Write tokens.bin; returns the documents' records without domain and split."""
    end = tokenizer.token_to_id(find_end_token(tokenizer, "the tokenizer"))
    sizes_V = token_bytes(tokenizer)
    records = np.zeros(len(order), INDEX_DTYPE)
    position = written = 0
    with path.open("wb") as file:
        for batch in _batches(index, order):
            texts = [normalised(tokenizer, text) for text in batch]
            for text, ids in zip(texts, encode(tokenizer, texts), strict=True):
                size = len(text.encode())
                if int(sizes_V[ids].sum()) != size:
                    raise UserError(
                        f"data.tokenizer={cfg.tokenizer} does not keep every byte of a document that "
                        f"starts with {text[:40]!r}: choose a byte-level BPE that gives text back unchanged, "
                        "or null to train one."
                    )
                np.array([*ids, end], np.dtype(dtype).newbyteorder("<")).tofile(file)
                records[written]["start"] = position
                records[written]["length"] = len(ids) + 1
                records[written]["bytes"] = size
                position += len(ids) + 1
                written += 1
                done(size)
    assert written == len(order)
    return records


def _batches(index: DocumentIndex, order: np.ndarray) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for number, text in zip(order, index.texts(order), strict=True):
        batch.append(text)
        size += int(index.bytes[number])
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _counts(records: np.ndarray, domains: tuple[str, ...]) -> dict[Split, dict[str, Count]]:
    counts: dict[Split, dict[str, Count]] = {"train": {}, "validation": {}}
    for split in counts:
        for number, name in enumerate(domains):
            chosen = records[
                (records["domain"] == number) & (records["validation"] == (split == "validation"))
            ]
            counts[split][name] = Count(
                documents=len(chosen), bytes=int(chosen["bytes"].sum()), tokens=int(chosen["length"].sum())
            )
    return counts
