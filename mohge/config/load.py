"""From a composed Hydra tree to the typed configuration, with errors a user can act on."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from mohge.config.checks import check
from mohge.config.schema import TrainConfig
from mohge.errors import UserError, first_line

C = TypeVar("C", bound=TrainConfig)


def typed(schema: type[C], tree: DictConfig | Mapping[str, Any]) -> C:
    """Validates a configuration tree.

    Args:
        schema: class of the whole configuration, such as `TrainConfig`.
        tree: what Hydra composed, or the plain dict that a checkpoint or a run folder stores.

    Raises:
        UserError: an unknown key, a wrong type, or keys that contradict each other.
    """
    if isinstance(tree, DictConfig):
        try:
            plain = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise UserError(explain_hydra(error, schema)) from error
    else:
        plain = dict(tree)
    try:
        config = TypeAdapter(schema).validate_python(plain)
    except ValidationError as error:
        raise UserError(_explain_validation(error, schema)) from error
    _refuse_booleans(plain, as_dict(config))
    check(config)
    return config


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain dicts, lists and scalars: what run folders and checkpoints store."""
    return TypeAdapter(type(config)).dump_python(config, by_alias=True, mode="json")


def known_keys(schema: type) -> list[str]:
    """Every key of a configuration class, dotted: `model.d_model`, …"""
    hints = typing.get_type_hints(schema, include_extras=True)
    keys = []
    for field in dataclasses.fields(schema):
        name = field.name if field.name != "target" else "_target_"
        keys.append(name)
        hint = hints[field.name]
        for candidate in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(candidate):
                keys += [f"{name}.{key}" for key in known_keys(typing.cast(type, candidate))]
    return keys


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean X?` when a choice resembles the word, else the empty string."""
    choices = list(choices)
    by_leaf = {choice.rpartition(".")[2]: choice for choice in reversed(choices)}
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.8)
    if not near:  # right name, wrong or missing group: group_top_k for router.group_top_k
        near = [by_leaf[leaf] for leaf in difflib.get_close_matches(word.rpartition(".")[2], by_leaf, n=1)]
    return f"; did you mean {near[0]}?" if near else ""


def explain_hydra(error: HydraException | OmegaConfBaseException, schema: type) -> str:
    """One sentence for an error of composition."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file == "hydra/sweeper/optuna":
        return "hydra/sweeper=optuna needs the extra optuna: pip install 'mohge[optuna]'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_missing(error.missing_cfg_file, error.options or ())
    if text.startswith("Additional config directory"):
        return f"{text}; give a folder that exists"
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read: write key=value, and quote a value that has ~, commas, "
            "brackets or quotes: 'key=\"value\"'"
        )
    several = re.match(r"Ambiguous value for argument '(.*)'\n", text)
    if several:
        return _explain_several(several.group(1), schema)
    merging = re.match(r"Error merging override (.+)", text)
    if merging and error.__cause__ is not None:
        return f"{merging.group(1)} is not valid: {first_line(error.__cause__)}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: give one with {error.full_key}=VALUE"
    if isinstance(error, InterpolationKeyError):
        return f"{error.full_key} refers to a key that does not exist: {error.msg or text}".splitlines()[0]
    unknown = re.match(r"Could not (?:override|append|delete).*?'\+*([^']+)'", text)
    if isinstance(error, ConfigCompositionException) and unknown:
        return unknown_key(unknown.group(1).partition("@")[0], schema)
    if "Error resolving interpolation '${model}" in text:  # experts and router follow the model's name
        return f"model is not one size: choose one of {', '.join(group_choices('model'))}"
    cause = error.__cause__ or error.__context__
    return text.strip().split("\n")[0] or f"the configuration cannot be composed: {cause}"


def _explain_missing(file: str, options: Sequence[object]) -> str:
    """For a file of conf/, or of a folder of the user's, that does not exist."""
    group, _, choice = file.partition("/")
    if not choice:
        return f"--config-name {file} does not exist: leave it out"
    known = sorted({*group_choices(group), *map(str, options)})
    sized = [one for one in known if one.partition("/")[2] == choice]
    if sized:  # experts and router have choices for each size
        return (
            f"{group}={choice} is not a choice: write {group}=MODEL/{choice} with the name of your model=, "
            f"such as {group}={sized[0]}"
        )
    listed = f"choose one of {', '.join(known)}" if known else "see --help for the groups"
    return f"{group}={choice} is not a choice: {listed}{did_you_mean(choice, known)}"


def _explain_several(override: str, schema: type) -> str:
    """For values between commas where one value belongs."""
    key, _, value = override.partition("=")
    if group_choices(key):
        remedies = ["give one"]
    else:
        remedies = [f"write '{key}=[{value}]' for a list", f"'{key}=\"{value}\"' for one text"]
    if schema is TrainConfig:
        remedies.append("use mohge-train -m for a run of each")
    return f"{override} names several values: {', or '.join(remedies)}"


def group_choices(group: str) -> list[str]:
    """Choices of a Hydra group that come with the package, such as `nano/mohge` of `experts`."""
    folder = Path(str(importlib.resources.files("conf"))) / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def unknown_key(key: str, schema: type) -> str:
    """One sentence for a key that does not exist."""
    known = known_keys(schema)
    group, _, size = key.partition("/")
    if size and group_choices(key):
        return f"{key} is no key: write {group}={size}/CHOICE"
    command = key.partition(".")[0]
    if command in _COMMANDS and command not in known:
        return f"{key} belongs to mohge-{command}: use that command, or leave it out"
    for name in known:  # eval.fewshot and such, whose own keys Hydra must be told to add
        if f"{key}.".startswith(f"{name}.") and not any(other.startswith(f"{name}.") for other in known):
            entry = key if key != name else f"{name}.NAME"
            return f"{key} has names of its own, which a plus adds: write +{entry}=VALUE"
    hint = did_you_mean(key, [*known, *_PRESETS]) or "; --help lists the groups, --cfg job all keys"
    return f"unknown key {key}{hint}"


def _refuse_booleans(given: object, taken: object, key: str = "") -> None:
    """pydantic takes true for the number 1; a user who writes it means something else."""
    if isinstance(given, bool) and not isinstance(taken, bool):
        raise UserError(f"{key}={str(given).lower()} is not valid: it should be a number")
    if isinstance(given, Mapping) and isinstance(taken, Mapping):
        for name, value in given.items():
            _refuse_booleans(value, taken.get(name), f"{key}.{name}" if key else str(name))
    elif isinstance(given, list | tuple) and isinstance(taken, list):
        for number, (value, other) in enumerate(zip(given, taken, strict=True)):
            _refuse_booleans(value, other, f"{key}[{number}]")


_PRESETS = ("arch", "experiment", "debug")
"""Groups that set keys of others and have none of their own."""
_COMMANDS = ("bench", "eval", "sweep")
"""Groups of one command alone, which has their name."""
_GRID = "sweep.grid."
"""Before a key of training, whose dots are then taken for levels of the grid."""

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list such as [64,128]",
    "finite_number": "a finite number",
    "dataclass_type": "a group of keys",
    "dataclass_exact_type": "a group of keys",
    "too_long": "a list of at most {max_length} values",
    "too_short": "a list of at least {min_length} values",
    "string_too_short": "text of at least {min_length} characters",
}


def _explain_validation(error: ValidationError, schema: type) -> str:
    first, *others = sorted(error.errors(), key=lambda item: item["type"] != "unexpected_keyword_argument")
    key = ""
    for part in first["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    kind = first["type"]
    if kind == "unexpected_keyword_argument":
        sentence = unknown_key(key, schema)
    elif key.startswith(_GRID) and isinstance(first["input"], Mapping):
        name, value = key.removeprefix(_GRID), first["input"]
        while isinstance(value, Mapping) and value:
            inner, value = next(iter(value.items()))
            name += f".{inner}"
        sentence = f"{_GRID}{name} cannot be set by itself: write '+sweep.grid={{{name}:[VALUE,…]}}'"
    elif kind == "missing":
        in_list = isinstance(first["loc"][-1], int)
        sentence = f"{key} has no value: give {'a longer list' if in_list else f'one with {key}=VALUE'}"
    else:
        expected = _EXPECTED.get(kind) or first["msg"].removeprefix("Input should be ")
        expected = expected.format(**first["ctx"]) if kind in _EXPECTED and "ctx" in first else expected
        sentence = f"{key}={first['input']!r} is not valid: it should be {expected}"
    return sentence + (f" (and {len(others)} more)" if others else "")
