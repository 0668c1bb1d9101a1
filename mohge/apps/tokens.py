"""mohge-tokens: which tokens a checkpoint sends to which experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mohge.apps.output import emit
from mohge.apps.resume import override_key
from mohge.apps.runner import run_app
from mohge.config.targets import build, check_data
from mohge.config.tokens_schema import TokensConfig
from mohge.errors import UserError
from mohge.files import refuse_taken
from mohge.training.checkpoint_choice import choose_checkpoint, run_of

_KEYS = ("checkpoint", "tokens", "text", "output", "format", "analysis._target_")
_OF_THE_RUN = ("data.tokenizer", "data.vocab_size", "data.context")
"""Keys of data that another corpus takes from the run."""


def run(config: TokensConfig, overrides: list[str]) -> None:
    """Analyses the checkpoint, prints what was found and where the files are."""
    keys = [override_key(override) for override in overrides]
    _check_overrides(keys, overrides)
    data = config.data if "data" in keys else None
    text = Path(config.text).expanduser() if config.text is not None else None
    if data is not None:
        check_data(data)
    if text is not None and not text.is_file():
        raise UserError(f"text={config.text} is no file: give a file of text in UTF-8")
    given = Path(config.output).expanduser() if config.output is not None else None
    if given is not None:
        refuse_taken(given)  # before anything that takes time
    checkpoint = choose_checkpoint(config.checkpoint)
    name = data.name if data is not None else text.stem if text is not None else None
    folder = given or _default_folder(checkpoint, name)
    progress = config.format == "table"
    arguments = checkpoint, config.tokens, folder, data, text, progress
    result: dict[str, Any] = build("analysis", config.analysis.target, *arguments)
    emit(result, lambda: _render(result, folder), config.format, None)


def main() -> None:
    """Console entry point."""
    run_app("tokens", TokensConfig, run)


def _check_overrides(keys: list[str], overrides: list[str]) -> None:
    """Refuses what would be ignored."""
    for key, override in zip(keys, overrides, strict=True):
        if key in _OF_THE_RUN:
            raise UserError(
                f"{override} has no effect, as the run's own tokenizer and context cut the text: leave it out"
            )
        of_data = key.partition(".")[0] == "data" or key == "paths.cache_dir"
        if of_data and key != "data" and "data" not in keys:
            raise UserError(
                f"{override} has no effect without another corpus: add data=NAME, or leave it out"
            )
        if key not in _KEYS and not of_data:
            raise UserError(
                f"{override} has no effect, as all of training comes from the checkpoint: leave it out"
            )
    if "data" in keys and "text" in keys:
        data, text = (overrides[keys.index(key)] for key in ("data", "text"))
        raise UserError(f"{data} and {text} are two texts: give one")


def _default_folder(checkpoint: Path, name: str | None) -> Path:
    """Where results go: for another text than the run's own, in a folder of its name."""
    of = run_of(checkpoint)
    if of is None:
        raise UserError(f"checkpoint {checkpoint} is in no run's folder: say where to write with output=DIR")
    parent = of.tokens_dir if name is None else of.tokens_dir / name
    return parent / checkpoint.name


def _render(result: dict[str, Any], folder: Path) -> RenderableType:
    """The groups over all layers, a row for each part of text and domain, what was found, and the files."""
    level = f"{result['level']:.0%}"
    held_out = "held-out " if result["split"] == "validation" else ""
    facts = Text(
        f"{result['checkpoint']}: {result['tokens']:,} {held_out}tokens of {result['corpus']} in "
        f"{result['sequences']:,} sequences; intervals hold {level} of {result['resamples']:,} resamples"
    )
    found = Text(
        "\n".join(["", *result["findings"], f"Folder: {folder} with tokens.json, text.html and tables"])
    )
    return Group(facts, _difficulty(result), _shares(result), found)


def _difficulty(result: dict[str, Any]) -> Table:
    table = Table(title="Tokens of each group, over all layers", title_justify="left")
    for name in ("width", "share of rows", "log10 per million", "loss in nats"):
        table.add_column(name, justify="right")
    for group in result["difficulty"][-1]["groups"]:
        table.add_row(
            str(group["width"]),
            f"{group['share']:.1%}",
            _interval(group["frequency"]),
            _interval(group["loss"]),
        )
    return table


def _shares(result: dict[str, Any]) -> Table:
    table = Table(title="Where parts of text and domains go: share of rows by width", title_justify="left")
    table.add_column("")
    for name in ("tokens", "loss in nats", *map(str, result["widths"]), "mean width"):
        table.add_column(name, justify="right")
    for kind, entries in (("part", result["parts"]), ("domain", result["domains"])):
        for entry in entries:
            shares = (f"{share:.0%}" for share in entry["shares"])
            table.add_row(
                Text(entry[kind]),
                f"{entry['tokens']:,}",
                _interval(entry["loss"]),
                *shares,
                _interval(entry["mean_width"], ".1f"),
            )
        table.add_section()
    return table


def _interval(value: dict[str, float | None], form: str = ".2f") -> str:
    """A mean with its interval, as far as there is one."""
    if value["mean"] is None:
        return "no rows"
    if value["low"] is None or value["high"] is None:
        return format(value["mean"], form)
    return f"{value['mean']:{form}} ({value['low']:{form}} to {value['high']:{form}})"
