"""Any dataset of the Hugging Face hub, or of a local folder, read as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.cache import cache_folder
from datamodules.corpora.base import Document, clean_domain
from datamodules.corpora.journal import Journal
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
        """Raise UserError without a name to read."""
        if self._cfg.path is None:
            raise UserError("data=hf needs data.path=NAME: a dataset of the hub, or a local folder.")
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
        journal = Journal(cache_folder(self._cfg) / "downloads" / "hf" / digest(self.identity())[:16])
        read = 0
        with bytes_bar(f"reading {self._cfg.path}", self._cfg.max_bytes, enabled=progress) as done:
            for number, (text, domain) in enumerate(self._rows(dataset, journal)):
                size = len(text.encode("utf-8", "surrogatepass"))
                read += size
                # Two documents at least, one for each split.
                if self._cfg.max_bytes is not None and read > self._cfg.max_bytes and number > 1:
                    break
                yield Document(text, f"row {number}", domain, f"row {number}")
                done(size)
        journal.remove()

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

    def _rows(self, dataset: Dataset | IterableDataset, journal: Journal) -> Iterator[tuple[str, str]]:
        """Text and domain of each row; a failure of the stream is told as a UserError."""
        from datasets import Dataset
        from datasets.exceptions import DatasetGenerationError

        try:
            if isinstance(dataset, Dataset):  # on this disk already
                yield from (self._parse(row, number) for number, row in enumerate(dataset))
            else:
                yield from journal.read(dataset, self._parse)
        except (ConnectionError, TimeoutError) as error:
            raise UserError(
                f"reading data.path={self._cfg.path} was interrupted: check the network and run the command "
                "again, which continues where it stopped."
            ) from error
        except DatasetGenerationError as error:
            raise UserError(
                f"data.path={self._cfg.path} holds a damaged file ({error}): repair it."
            ) from error

    def _parse(self, row: dict[str, Any], number: int) -> tuple[str, str]:
        """Text and domain of a row; raises UserError if a column is missing."""
        text = row.get(self._cfg.text_field)
        if not isinstance(text, str):
            raise UserError(self._lacking(row, number, "data.text_field", self._cfg.text_field))
        if self._cfg.domain_field is None:
            return text, _DEFAULT_DOMAIN
        domain = row.get(self._cfg.domain_field)
        if domain is None:
            raise UserError(self._lacking(row, number, "data.domain_field", self._cfg.domain_field))
        return text, clean_domain(str(domain))

    def _lacking(self, row: dict[str, Any], number: int, key: str, column: str) -> str:
        return (
            f"row {number} of data.path={self._cfg.path} has no text in column {column!r} (its columns are "
            f"{', '.join(map(repr, row))}): set {key} to the column that holds it."
        )


def _source(name: str, dataset: Dataset | IterableDataset) -> Source:
    info = dataset.info
    urls = sorted(map(str, info.download_checksums or ()))
    revisions = {url.split("@", 1)[1].split("/", 1)[0] for url in urls if "@" in url}
    version = ", ".join(sorted(revisions)) or str(info.version or "")
    return Source(name=name, version=version, licence=info.license or "see the dataset's card")
