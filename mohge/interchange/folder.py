"""What a folder of transformers says in its JSON files. Nothing here imports torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mohge.errors import UserError, first_line

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"


def is_transformers_folder(path: str | os.PathLike[str]) -> bool:
    """Whether it is a folder whose config.json names a type of model, as transformers writes it."""
    try:
        return isinstance(read_object(Path(path) / CONFIG).get("model_type"), str)
    except UserError:
        return False


def end_token_id(folder: str | os.PathLike[str]) -> int:
    """Id of the token that ends a document; of several, the first.

    Args:
        folder: of transformers.

    Raises:
        UserError: neither generation_config.json nor config.json has eos_token_id.
    """
    for name in (GENERATION, CONFIG):
        path = Path(folder) / name
        if not path.is_file():
            continue
        found = read_object(path).get("eos_token_id")
        first = found[0] if isinstance(found, list) and found else found
        if isinstance(first, int) and not isinstance(first, bool):
            return first
    raise UserError(
        f"{folder} does not say which token ends a document: set eos_token_id in its {GENERATION} or {CONFIG}"
    )


def begin_token_id(folder: str | os.PathLike[str]) -> int | None:
    """Id of the token that begins a text, as transformers' tokenizer of the folder has it.

    Not known here is one that only the class of the tokenizer names, and no file.

    Args:
        folder: of transformers, with tokenizer.json.

    Returns:
        None if the files name no such token.

    Raises:
        UserError: a file is damaged, or names a token that the tokenizer lacks.
    """
    path = Path(folder)
    files = {name: path / name for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS)}
    found = {name: read_object(file) if file.is_file() else {} for name, file in files.items()}
    # transformers reads the second only where the first is of an old version, and then it prevails.
    old = "added_tokens_decoder" not in found[TOKENIZER_CONFIG]
    source = SPECIAL_TOKENS if old and "bos_token" in found[SPECIAL_TOKENS] else TOKENIZER_CONFIG
    named = found[source].get("bos_token")
    token = named.get("content") if isinstance(named, dict) else named
    if token is None:
        return None
    try:
        tokenizer = Tokenizer.from_file(str(path / TOKENIZER))
    except Exception as error:  # the library raises bare Exception
        raise UserError(
            f"{path / TOKENIZER} cannot be read ({first_line(error)}): put the model's own there"
        ) from error
    number = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if number is None:
        raise UserError(
            f"{folder} has bos_token={token!r} in {source}, which its {TOKENIZER} lacks: set it to a token "
            "of that, or to null"
        )
    return number


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        UserError: it is missing, damaged or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else first_line(error)
        raise UserError(
            f"{path} cannot be read ({reason}): give a folder that transformers has saved"
        ) from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no JSON object: give a folder that transformers has saved")
    return found
