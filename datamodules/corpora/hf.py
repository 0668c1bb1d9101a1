"""Any dataset of the Hugging Face hub, or of a local folder, read as a stream."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.corpora.base import Document, clean_domain
from datamodules.files import digest
from datamodules.manifests import Source
from datamodules.progress import bytes_bar
from mohge.config.schema import DataConfig
from mohge.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_RECIPE = 1
"""Raised whenever the same dataset would give other documents."""
_DEFAULT_DOMAIN = "text"


class HubDataset:
    """Rows of one split. Implements `corpora.base.Corpus`.

    With `data.max_bytes`, reading stops there: what lies behind is never fetched.
    """

    def __init__(self, cfg: DataConfig) -> None:
        self._cfg = cfg
        self._sources: tuple[Source, ...] = ()

    def check(self) -> None:
        """Raise UserError without the datasets library or a name to read."""
        if self._cfg.path is None:
            raise UserError("data=hf needs data.path=NAME: a dataset of the hub, or a local folder.")
        if importlib.util.find_spec("datasets") is None:
            raise UserError(
                "data=hf needs the datasets library, which is not installed: pip install mohge[hf]."
            )
        if self._cfg.path.startswith(("/", ".", "~")) and self._local is None:
            raise UserError(
                f"data.path={self._cfg.path} is not a folder: give a dataset's folder or hub name."
            )

    @property
    def _local(self) -> Path | None:
        """The folder, if `data.path` is one."""
        path = Path(str(self._cfg.path)).expanduser()
        return path if path.is_dir() else None

    def identity(self) -> dict[str, object]:
        """What is read. The hub's revision is not known offline; the manifest records it."""
        self.check()
        files = None
        if self._local is not None:
            found = sorted(path for path in self._local.rglob("*") if path.is_file())
            states = [(path, path.stat()) for path in found]
            files = digest([(str(path), state.st_size, state.st_mtime_ns) for path, state in states])
        return {
            "recipe": _RECIPE,
            "path": str(self._local or self._cfg.path),
            "files": files,
            "subset": self._cfg.subset,
            "split": self._cfg.split,
            "text_field": self._cfg.text_field,
            "domain_field": self._cfg.domain_field,
            "max_bytes": self._cfg.max_bytes,
        }

    def documents(self, *, progress: bool) -> Iterator[Document]:
        """Row by row; raises UserError for a dataset, split or column that does not exist."""
        dataset = self._open()
        self._sources = (_source(str(self._cfg.path), dataset),)
        text_field, domain_field = self._cfg.text_field, self._cfg.domain_field
        read = 0
        with bytes_bar(f"reading {self._cfg.path}", self._cfg.max_bytes, enabled=progress) as done:
            for number, row in enumerate(self._rows(dataset)):
                text = self._field(row, number, text_field, "data.text_field")
                domain = _DEFAULT_DOMAIN
                if domain_field is not None:
                    domain = clean_domain(str(self._field(row, number, domain_field, "data.domain_field")))
                name = f"{self._cfg.path} row {number}"
                size = len(text.encode("utf-8", "surrogatepass"))
                read += size
                if self._cfg.max_bytes is not None and read > self._cfg.max_bytes and number > 1:
                    return
                yield Document(text, name, domain, f"row {number}")
                done(size)

    def sources(self) -> tuple[Source, ...]:
        """The dataset, with the licence and version of its card."""
        return self._sources

    def _open(self) -> Dataset | IterableDataset:
        from datasets import DatasetDict, load_dataset, load_from_disk

        name = f"data.path={self._cfg.path}"
        try:
            if self._local is not None and (
                (self._local / "state.json").exists() or (self._local / "dataset_dict.json").exists()
            ):
                saved = load_from_disk(str(self._local))
                if not isinstance(saved, DatasetDict):
                    return saved
                if self._cfg.split not in saved:
                    raise ValueError(f"its splits are {', '.join(saved)}")
                return saved[self._cfg.split]
            path = str(self._local or self._cfg.path)
            return load_dataset(path, self._cfg.subset, split=self._cfg.split, streaming=True)
        except ConnectionError as error:
            raise UserError(
                f"{name} cannot be reached: check the network, or give a local folder."
            ) from error
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:300].rstrip(".")
            raise UserError(
                f"{name} cannot be opened with data.subset={self._cfg.subset} and "
                f"data.split={self._cfg.split} ({reason}): correct one of them."
            ) from error

    def _rows(self, dataset: Dataset | IterableDataset) -> Iterator[dict[str, object]]:
        """The rows; a failure of the stream is told as a UserError."""
        from datasets.exceptions import DatasetGenerationError

        try:
            yield from dataset
        except (ConnectionError, TimeoutError) as error:
            raise UserError(
                f"reading data.path={self._cfg.path} was interrupted: check the network and run the command "
                "again."
            ) from error
        except DatasetGenerationError as error:
            raise UserError(
                f"data.path={self._cfg.path} holds a damaged file ({error}): repair it."
            ) from error

    def _field(self, row: dict[str, object], number: int, field: str, key: str) -> str:
        value = row.get(field)
        if value is None or (key == "data.text_field" and not isinstance(value, str)):
            columns = ", ".join(map(repr, row))
            raise UserError(
                f"row {number} of data.path={self._cfg.path} has no text in column {field!r} (its columns "
                f"are {columns}): set {key} to the column that holds it."
            )
        return str(value)


def _source(name: str, dataset: Dataset | IterableDataset) -> Source:
    info = dataset.info
    urls = sorted(map(str, info.download_checksums or ()))
    revisions = {url.split("@", 1)[1].split("/", 1)[0] for url in urls if "@" in url}
    version = ", ".join(sorted(revisions)) or str(info.version or "")
    return Source(name=name, version=version, licence=info.license or "see the dataset's card")
