"""Objects that a configuration names by their import path (`_target_`)."""

from __future__ import annotations

from typing import Any

from hydra.utils import get_object

from mohge.errors import UserError


def locate(key: str, target: str) -> Any:
    """The class or function that `target` names.

    Args:
        key: of the configuration, for the message.
        target: dotted import path.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return get_object(target)
    except (ImportError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"{key}._target_={target} cannot be imported: {reason}; give the path of an importable class"
        ) from error
