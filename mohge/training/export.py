"""A trained model as files that any program can read, in one of two formats.

mohge
    model.safetensors  all weights, in float32, under their names in `TransformerLM`; a tied head is not
                       stored beside the embedding
    config.json        format, version of this package, step, tokens, and the training configuration
    tokenizer.json     of the tokenizers library, if the prepared corpus of the run is still there
    export.json        plain facts: where it comes from, and what is in the folder
hf
    a folder of transformers, as `mohge.interchange` describes it, whose export.json holds the training
    configuration too
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mohge.config.machines import for_any_machine
from mohge.config.schema import PathsConfig, TrainConfig
from mohge.errors import UserError, first_line
from mohge.files import atomic_folder, refuse_taken
from mohge.interchange.layouts import CLASSES, model_type_of
from mohge.interchange.writing import converted, write_description
from mohge.model.transformer import TransformerLM, build_model
from mohge.training.checkpoint import VerifiedCheckpointIO, read_tensors
from mohge.training.checkpoint_choice import run_of
from mohge.training.tensors import WEIGHTS

log = logging.getLogger(__name__)

FORMAT = "mohge-export-1"
"""Name of the format in config.json."""
MODEL = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
FACTS = "export.json"


def export_checkpoint(
    checkpoint: Path, folder: Path, format: Literal["mohge", "hf"] = "mohge"
) -> dict[str, Any]:
    """Writes the model of a checkpoint to a new folder, whole or not at all.

    One copy of the weights is in memory, and nothing else of the checkpoint's tensors.

    Args:
        checkpoint: its folder, with checksums that were looked at, as `choose_checkpoint` does.
        folder: to make; it may exist if it is empty.
        format: see the module.

    Returns:
        What export.json says: format, class, version, checkpoint (name of its folder), step, tokens,
        parameters, bytes (of model.safetensors), files; for hf also config.

    Raises:
        UserError: the folder is taken, the disk refuses, the checkpoint does not fit this version, or format
            hf has no tokenizer to write.
    """
    refuse_taken(folder)
    config, model, weights, state = _read(checkpoint)
    plain, step = state["mohge"]["config"], state["global_step"]
    fingerprint = corpus_of(config, state)
    version = importlib.metadata.version("mohge")
    facts = {
        "format": format,
        "class": CLASSES[model_type_of(config)] if format == "hf" else type(model).__name__,
        "version": version,
        "checkpoint": checkpoint.resolve().name,
        "step": step,
        "tokens": step * config.tokens_per_step,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    with atomic_folder(folder) as temporary:
        if format == "hf":
            tokenizer = _needed_tokenizer(checkpoint, fingerprint)
            write_description(temporary, config, tokenizer, step, f"checkpoint {checkpoint}")
            weights = converted(config, model, weights)
        else:
            told = {"format": FORMAT, **{key: facts[key] for key in ("version", "step", "tokens")}}
            _write_json(temporary / CONFIG, {**told, "config": _published(plain)})
            optional = find_tokenizer(checkpoint, fingerprint)
            if optional is not None:
                (temporary / TOKENIZER).write_bytes(optional)
        try:
            save_file(weights, temporary / MODEL, {"format": "pt", "mohge": version, "step": str(step)})
        except SafetensorError as error:  # how the library reports a refused write
            raise OSError(first_line(error)) from error
        shutil.copymode(temporary / CONFIG, temporary / MODEL)  # it makes files for their owner alone
        facts["bytes"] = (temporary / MODEL).stat().st_size
        facts["files"] = sorted([FACTS, *(path.name for path in temporary.iterdir())])
        if format == "hf":
            facts["config"] = _published(plain)
        _write_json(temporary / FACTS, facts)
    return facts


def corpus_of(config: TrainConfig, state: dict[str, Any]) -> str | None:
    """Fingerprint of the corpus that the run of a checkpoint has read.

    Args:
        config: of the run.
        state: what the checkpoint says beside its tensors.
    """
    data = state.get(config.data.target.rpartition(".")[2], {})  # Lightning keeps it by the class's name
    fingerprint: str | None = data.get("data.fingerprint")
    return fingerprint


def load_checkpoint_model(checkpoint: Path) -> tuple[TrainConfig, TransformerLM, dict[str, Any]]:
    """The configuration of a checkpoint, its model in float32 on the CPU, and what it says beside tensors.

    Args:
        checkpoint: its folder, with checksums that were looked at, as `choose_checkpoint` does; any number
            of ranks may have saved it.

    Raises:
        UserError: it does not fit this version.
    """
    config, model, weights, state = _read(checkpoint)
    model.to_empty(device="cpu")
    model.load_state_dict(weights)
    return config, model, state


def load_exported(folder: str | os.PathLike[str]) -> tuple[TrainConfig, TransformerLM]:
    """The configuration that a model was trained with, but for folders, and the model, in float32 on the CPU.

    Args:
        folder: as `export_checkpoint` writes it.

    Raises:
        UserError: it holds no exported model, or one that is damaged or of another version.
    """
    path = Path(folder)
    try:
        facts = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        plain, found = facts["config"], facts["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{CONFIG} is missing, damaged or of another program"
        raise UserError(f"{folder} holds no exported model ({reason}): make one with mohge-export") from error
    if found != FORMAT:
        raise UserError(f"{folder} is of format {found}, not {FORMAT}: export its checkpoint again")
    config = for_any_machine(_typed(plain, str(folder)))
    model = _without_weights(config, str(folder))
    try:
        weights = load_file(path / MODEL)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path / MODEL} cannot be read ({first_line(error)}): export its checkpoint again"
        ) from error
    _check_names(model, weights, str(folder))
    model.to_empty(device="cpu")
    # Copied: the file's tensors lie at addresses of any alignment, by which products may round otherwise.
    model.load_state_dict(weights)
    return config, model


def _read(checkpoint: Path) -> tuple[TrainConfig, TransformerLM, dict[str, Tensor], dict[str, Any]]:
    """Configuration, model on the meta device, weights in float32, and the rest of the checkpoint."""
    state = VerifiedCheckpointIO().load_checkpoint(checkpoint)
    source = f"checkpoint {checkpoint}"
    config = for_any_machine(_typed(state["mohge"]["config"], source))
    model = _without_weights(config, source)
    weights = {name: tensor.float() for name, tensor in read_tensors(checkpoint, WEIGHTS).items()}
    _check_names(model, weights, source)
    return config, model, weights, state


def _published(plain: dict[str, Any]) -> dict[str, Any]:
    """The configuration without folders of the machine that trained, and addresses that may hold secrets."""
    data = plain["data"]
    names = {key: Path(data[key]).name if data[key] else None for key in ("path", "tokenizer")}
    paths = asdict(PathsConfig())
    return {
        **plain,
        "data": {**data, **names, "cache_dir": paths["cache_dir"]},
        "logger": {**plain["logger"], "tracking_uri": None, "group": None, "run_name": None},
        "paths": paths,
        "resume": None,
    }


def _typed(plain: object, source: str) -> TrainConfig:
    """The stored configuration.

    Without the checks of a configuration that is to be trained: the ranks that it had are not here.
    """
    try:
        return TypeAdapter(TrainConfig).validate_python(plain)
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise UserError(
            f"{source} has a configuration that this version of mohge cannot read ({key}: "
            f"{error.errors()[0]['msg']}): use the version that made it"
        ) from error


def _without_weights(config: TrainConfig, source: str) -> TransformerLM:
    """The model, on the meta device."""
    try:
        with torch.device("meta"):
            return build_model(config)
    except ValueError as error:
        raise UserError(f"{source} has a configuration that makes no model: {first_line(error)}") from error


def _check_names(model: TransformerLM, weights: dict[str, Tensor], source: str) -> None:
    """Refuses weights that are not exactly those of the model."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = sorted(name for name, _ in expected.items() ^ found.items())
    if wrong:
        raise UserError(
            f"{source} does not hold the weights that its configuration asks for ({wrong[0]} is missing, "
            "of another shape or too much): use the version of mohge that made it"
        )


def find_tokenizer(checkpoint: Path, fingerprint: str | None) -> bytes | None:
    """The tokenizer.json of the corpus that the run has read; if it is gone, the log says so.

    Args:
        checkpoint: its folder.
        fingerprint: of the corpus, as the checkpoint has it.
    """
    try:
        return _tokenizer_of(checkpoint, fingerprint)
    except _NoTokenizer as reason:
        log.warning("%s is left out: %s", TOKENIZER, reason)
        return None


def _needed_tokenizer(checkpoint: Path, fingerprint: str | None) -> bytes:
    try:
        return _tokenizer_of(checkpoint, fingerprint)
    except _NoTokenizer as reason:
        raise UserError(
            f"checkpoint {checkpoint} cannot be exported with format=hf, as it needs a tokenizer: {reason}; "
            "prepare the corpus again, or use format=mohge"
        ) from reason


class _NoTokenizer(Exception):  # noqa: N818  (it says why)
    """Why there is none."""


def _tokenizer_of(checkpoint: Path, fingerprint: str | None) -> bytes:
    run = run_of(checkpoint)
    if run is None:
        raise _NoTokenizer("only the folder of a run tells where its corpus is")
    try:
        store = Path(json.loads((run.path / "data.json").read_text(encoding="utf-8"))["folder"])
        manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
        recorded = manifest["fingerprint"], manifest["files"][TOKENIZER]["sha256"]
        content = (store / TOKENIZER).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _NoTokenizer(f"the corpus of the run is gone ({first_line(error)})") from error
    if recorded != (fingerprint, hashlib.sha256(content).hexdigest()):
        raise _NoTokenizer(f"{store} has changed since the run")
    return content


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
