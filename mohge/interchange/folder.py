"""What a folder of transformers says in its JSON files. Nothing here imports torch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mohge.errors import UserError, first_line

CONFIG = "config.json"
GENERATION = "generation_config.json"


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
