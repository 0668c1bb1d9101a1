"""The keys of a config.json, with one sentence for each that is missing or cannot be computed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mohge.errors import UserError
from mohge.interchange.folder import CONFIG


@dataclass(frozen=True)
class Keys:
    """What a config.json, or a table in it, says. Every method raises `UserError` for what it cannot take."""

    plain: dict[str, Any]
    """Its content."""
    folder: Path
    """For messages."""
    prefix: str = ""
    """Of the keys of a table, for messages."""

    def need(self, key: str) -> Any:
        """Any value but null."""
        if self.plain.get(key) is None:
            raise UserError(
                f"{self.folder} has no {self.prefix}{key} in {CONFIG}: save the model again with transformers"
            )
        return self.plain[key]

    def number(self, key: str, least: int = 1, most: int | None = None) -> int:
        """A whole number in a range."""
        value = self.need(key)
        if not _is_whole(value) or value < least or (most is not None and value > most):
            raise self._not(
                key, value, f"a whole number of {least} {'or more' if most is None else f'to {most}'}"
            )
        number: int = value
        return number

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers of 1 or more; it may be empty."""
        value = self.need(key)
        if not isinstance(value, list) or not all(_is_whole(one) and one > 0 for one in value):
            raise self._not(key, value, "a list of whole numbers of 1 or more")
        return tuple(value)

    def real(self, key: str, default: float | None = None) -> float:
        """A finite number above 0; the default is that of transformers, for a key that is not there."""
        value = default if default is not None and key not in self.plain else self.need(key)
        real = isinstance(value, int | float) and not isinstance(value, bool)
        if not real or not 0 < value <= sys.float_info.max:
            raise self._not(key, value, "a number above 0")
        return float(value)

    def table(self, key: str) -> Keys:
        """The keys of an object; without any, if it is null or not there."""
        value = self.plain.get(key)
        if value is not None and not isinstance(value, dict):
            raise self._not(key, value, "an object or null")
        return Keys(value or {}, self.folder, f"{self.prefix}{key}.")

    def only(self, key: str, *allowed: object) -> None:
        """Refuses another value; transformers' own default, for a missing key, must be among them."""
        value = self.plain.get(key)
        if value is not None and value not in allowed:
            raise self.refusal(key, value, " or ".join(map(str, allowed)))

    def refusal(self, key: str, value: object, right: str) -> UserError:
        """That a value is right in transformers, and not here."""
        return UserError(f"{self._place(key, value)}, which this model does not compute: it has {right}")

    def _not(self, key: str, value: object, right: str) -> UserError:
        return UserError(
            f"{self._place(key, repr(value))}, which is not {right}: save the model again with transformers"
        )

    def _place(self, key: str, value: object) -> str:
        return f"{self.folder} has {self.prefix}{key}={value} in {CONFIG}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
