"""mohge-export: one safetensors file with its configuration, from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mohge.apps.resume import override_key
from mohge.apps.runner import run_app
from mohge.config.export_schema import ExportConfig
from mohge.errors import UserError
from mohge.files import refuse_taken
from mohge.training.checkpoint_choice import choose_checkpoint, run_of

_KEYS = ("checkpoint", "output", "format")


def run(config: ExportConfig, overrides: list[str]) -> None:
    """Exports the checkpoint, and prints what is where and how to load it."""
    for override in overrides:
        if override_key(override) not in _KEYS:
            raise UserError(
                f"{override} has no effect, as all of training comes from the checkpoint: leave it out"
            )
    given = Path(config.output).expanduser() if config.output is not None else None
    if given is not None:
        refuse_taken(given)  # before anything that takes time
    checkpoint = choose_checkpoint(config.checkpoint)
    folder = given or _default_folder(checkpoint, config.format)
    # Late, since torch takes seconds to import: wrong input has been refused by now.
    from mohge.training.export import export_checkpoint

    facts = export_checkpoint(checkpoint, folder, config.format)
    print(_summary(facts, checkpoint, folder))


def main() -> None:
    """Console entry point."""
    run_app("export", ExportConfig, run)


def _default_folder(checkpoint: Path, format: str) -> Path:
    of = run_of(checkpoint)
    if of is None:
        raise UserError(f"checkpoint {checkpoint} is in no run's folder: say where to write with output=DIR")
    return of.path / "export" / (checkpoint.name if format == "mohge" else f"{checkpoint.name}_{format}")


def _summary(facts: dict[str, Any], checkpoint: Path, folder: Path) -> str:
    where = repr(str(folder))
    trust = ", trust_remote_code=True" if "modeling_mohge.py" in facts["files"] else ""
    load = (
        f"from transformers import AutoModelForCausalLM; "
        f"model = AutoModelForCausalLM.from_pretrained({where}{trust})"
        if facts["format"] == "hf"
        else f"from mohge.training.export import load_exported; config, model = load_exported({where})"
    )
    return (
        f"Exported {checkpoint}: step {facts['step']}, {facts['tokens']:,} tokens, "
        f"{facts['parameters']:,} parameters in {facts['bytes']:,} bytes, as {facts['class']}\n"
        f"Folder: {folder} with {', '.join(facts['files'])}\n"
        f"Load in Python: {load}"
    )
