"""Objects that a configuration names by their import path (`_target_`)."""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
from typing import Any

from mohge.config.schema import DataConfig, RouterConfig
from mohge.errors import UserError


def build(key: str, target: str, *arguments: object, field: str = "_target_") -> Any:
    """What the class or function that `target` names makes of the arguments.

    Args:
        key: group of the configuration, for messages.
        target: dotted import path.
        arguments: to call it with.
        field: of the group.

    Raises:
        UserError: it cannot be imported, or is not called like this.
    """
    found = resolve(key, target, field)
    try:
        inspect.signature(found).bind(*arguments)
    except (TypeError, ValueError) as error:
        kinds = ", ".join(type(argument).__name__ for argument in arguments)
        raise UserError(
            f"{key}.{field}={target} cannot be called with ({kinds}): give the path of a class or function "
            "made for this"
        ) from error
    return found(*arguments)


def resolve(key: str, target: str, field: str = "_target_") -> Any:
    """The class or function that `target` names.

    Args:
        key: group of the configuration, for messages.
        target: dotted import path.
        field: of the group.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        is_lost = isinstance(error, ModuleNotFoundError) and error.name == target.partition(".")[0]
        remedy = "give the path of a class or function" + (
            ", and put its folder on PYTHONPATH" if is_lost else ""
        )
        raise UserError(f"{key}.{field}={target} cannot be imported ({error}): {remedy}") from error


def check_data(config: DataConfig) -> None:
    """Lets the corpus look at its own configuration.

    Raises:
        UserError: of `data.check`.
    """
    if config.check is not None:
        build("data", config.check, config, field="check")


def check_router(config: RouterConfig) -> None:
    """Looks for the module of a router of the user's own, without importing it, as it imports torch.

    Raises:
        UserError: it is not there.
    """
    if config.target is None:
        return
    module = config.target.rpartition(".")[0]
    try:
        found = importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError(
            f"router._target_={config.target} cannot be imported (no module {module or config.target}): give "
            "the path of a class, and put its folder on PYTHONPATH"
        )
