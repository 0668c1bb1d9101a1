"""Reading a folder of transformers into `TransformerLM`, without transformers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mohge.config.machines import for_any_machine
from mohge.config.schema import (
    CallbacksConfig,
    DataConfig,
    ExpertsConfig,
    LoggerConfig,
    LossConfig,
    ModelConfig,
    OptimConfig,
    ParallelConfig,
    PathsConfig,
    RouterConfig,
    TrainConfig,
    TrainerConfig,
)
from mohge.errors import UserError, first_line
from mohge.interchange.folder import CONFIG, read_object
from mohge.interchange.keys import Keys
from mohge.interchange.layouts import EMBEDDING, HEAD, OWN, Layout, layout
from mohge.interchange.reading import configuration, opened
from mohge.model.transformer import TransformerLM, build_model

MODEL = "model.safetensors"
INDEX = "model.safetensors.index.json"
FACTS = "export.json"
"""What mohge-export says of a model beside the files of transformers."""
_REMEDY = "save the model again with transformers, as safetensors"


def load_transformers(folder: str | os.PathLike[str]) -> tuple[TrainConfig, TransformerLM]:
    """The configuration of a model that transformers describes, and the model, in float32 on the CPU.

    Training, data and names in the configuration are those of the run, where mohge-export has written the
    folder; else they stand for nothing, but for `arch_name`, which is the model_type, and `model.name`, which
    is the folder's.

    Args:
        folder: with config.json, and model.safetensors or several such files with their index.

    Raises:
        UserError: a file is missing or damaged, or the model is one that ours does not compute exactly.
    """
    path = Path(folder)
    keys = opened(path)
    model_type: str = keys.plain["model_type"]
    config = configuration(keys, _base(keys))
    try:
        with torch.device("meta"):
            model = build_model(config)
    except ValueError as error:
        raise UserError(f"{path} has a {CONFIG} that makes no model: {first_line(error)}") from error
    table = layout(model_type, config, model)
    files = _files(path)
    _check_names(table, files, path)
    model.to_empty(device="cpu")
    try:
        _fill(model, table, files, path, tied=config.model.tied_head and model_type != OWN)
    except (OSError, SafetensorError) as error:
        raise UserError(f"weights in {path} cannot be read ({first_line(error)}): {_REMEDY}") from error
    return config, model


def _base(keys: Keys) -> TrainConfig:
    """What the configuration says beside sizes: that of the run, or as little as possible."""
    folder = keys.folder
    if (folder / FACTS).is_file():
        try:
            told = TypeAdapter(TrainConfig).validate_python(read_object(folder / FACTS).get("config"))
            return for_any_machine(told)
        except ValidationError as error:
            raise UserError(
                f"{folder / FACTS} is damaged or of another version ({first_line(error)}): delete it, and "
                "the model loads without what is known of its training"
            ) from error
    return TrainConfig(
        model=ModelConfig(
            name=folder.resolve().name, vocab_size=1, context=1, d_model=1, layers=1, heads=1, kv_heads=1
        ),
        arch_name=keys.plain["model_type"],
        experts=ExpertsConfig(kernel="auto"),
        router=RouterConfig(kind="none"),
        loss=LossConfig(),
        parallel=ParallelConfig(),
        data=DataConfig(
            target="datamodules.TextDataModule",
            name="text_files",
            vocab_size=keys.number("vocab_size"),
            context=keys.number("max_position_embeddings"),
            batch_sequences=1,
            cache_dir=PathsConfig().cache_dir,
        ),
        optim=OptimConfig(lr=1e-3),
        trainer=TrainerConfig(max_steps=1),
        callbacks=CallbacksConfig(),
        logger=LoggerConfig(name="none"),
        paths=PathsConfig(),
    )


def _files(folder: Path) -> dict[str, Path]:
    """Where each tensor is."""
    if not (folder / INDEX).is_file():
        return dict.fromkeys(_names(folder / MODEL), folder / MODEL)
    places = read_object(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{folder / INDEX} has no weight_map: {_REMEDY}")
    found = {name: folder / file for name, file in places.items()}
    for file in sorted(set(found.values())):
        lacking = {name for name, place in found.items() if place == file} - set(_names(file))
        if lacking:
            raise UserError(f"{file} lacks {min(lacking)}, which {INDEX} names: {_REMEDY}")
    return found


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, "pt") as tensors:
            return list(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read ({first_line(error)}): {_REMEDY}") from error


def _check_names(table: Layout, files: Mapping[str, Path], folder: Path) -> None:
    expected = {theirs for parts in table.values() for theirs in parts}
    # A tied head may be stored, and old files hold the rotary frequencies, which follow from config.json.
    ignored = {HEAD} | {name for name in files if name.endswith(".rotary_emb.inv_freq")}
    lacking, extra = expected - files.keys(), files.keys() - expected - ignored
    if lacking:
        raise UserError(f"{folder} lacks the tensor {min(lacking)} that its {CONFIG} asks for: {_REMEDY}")
    if extra:
        raise UserError(
            f"{folder} holds the tensor {min(extra)}, for which its {CONFIG} has no place: {_REMEDY}"
        )


def _fill(
    model: TransformerLM, table: Layout, files: Mapping[str, Path], folder: Path, *, tied: bool
) -> None:
    """Copy tensor by tensor, so that one copy of the weights is in memory."""
    places = {
        theirs: (ours, start, shape) for ours, parts in table.items() for theirs, start, shape in _rows(parts)
    }
    weights = model.state_dict()
    for name, tensor in _stored(files):
        if name not in places:
            continue
        ours, start, shape = places[name]
        if tuple(tensor.shape) != shape:
            found = " x ".join(map(str, tensor.shape))
            raise UserError(
                f"{folder} holds {name} of {found}, and its {CONFIG} asks for {' x '.join(map(str, shape))}: "
                f"{_REMEDY}"
            )
        rows = weights[ours].reshape(-1, shape[-1])  # a view: the weights are contiguous
        piece = tensor.reshape(-1, shape[-1])
        rows[start : start + len(piece)].copy_(piece)
    if tied and HEAD in files:
        (head,) = (tensor for name, tensor in _stored({HEAD: files[HEAD]}) if name == HEAD)
        if not torch.equal(head.float(), weights["embedding.weight"]):
            raise UserError(
                f"{folder} has tie_word_embeddings=true in {CONFIG}, and {HEAD} other than {EMBEDDING}: set "
                "it to false"
            )


def _rows(parts: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """Name, first row and shape of each part."""
    start = 0
    for name, shape in parts.items():
        yield name, start, shape
        start += torch.Size(shape[:-1]).numel()


def _stored(files: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    """The tensors, file by file."""
    for file in sorted(set(files.values())):
        with safe_open(file, "pt") as tensors:
            for name in sorted(name for name, place in files.items() if place == file):
                yield name, tensors.get_tensor(name)
