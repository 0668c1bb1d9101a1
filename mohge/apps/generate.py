"""mohge-generate: text from a checkpoint."""

from __future__ import annotations

from pathlib import Path

from mohge.apps.resume import override_key
from mohge.apps.runner import run_app
from mohge.config.generate_schema import GenerateConfig
from mohge.config.targets import build
from mohge.errors import UserError

_KEYS = (
    *(
        "checkpoint",
        "prompt",
        "prompt_file",
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "stop",
        "seed",
    ),
    *("samples", "groups", "device", "format", "generation._target_"),
)
_DRAWING = ("top_k", "top_p", "samples", "seed")
"""Keys that mean nothing where the most probable token is taken."""


def run(config: GenerateConfig, overrides: list[str]) -> None:
    """Continues the prompt, and prints what comes."""
    _check_overrides(config, overrides)
    prompt = config.prompt if config.prompt_file is None else _read(config.prompt_file)
    if not Path(config.checkpoint).expanduser().exists():
        raise UserError(
            f"checkpoint={config.checkpoint} does not exist: give a run's folder, one of its checkpoints, or "
            "a folder of mohge-export"
        )
    build("generation", config.generation.target, config, prompt)


def main() -> None:
    """Console entry point."""
    run_app("generate", GenerateConfig, run)


def _check_overrides(config: GenerateConfig, overrides: list[str]) -> None:
    """Refuses what would be ignored."""
    given = {override_key(override): override for override in overrides}
    for key, override in given.items():
        if key not in _KEYS:
            raise UserError(
                f"{override} has no effect, as all of training comes from the checkpoint: leave it out"
            )
        if key in _DRAWING and config.temperature == 0:
            raise UserError(
                f"{override} has no effect with temperature=0, which takes the most probable token: leave "
                "one of them out"
            )
    if "prompt" in given and "prompt_file" in given:
        raise UserError(f"{given['prompt']} and {given['prompt_file']} are two prompts: give one")


def _read(named: str) -> str:
    try:
        return Path(named).expanduser().read_bytes().decode("utf-8")
    except OSError as error:
        raise UserError(
            f"prompt_file={named} cannot be read ({error.strerror}): give a file of text in UTF-8"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"prompt_file={named} is not UTF-8 (byte {error.start}): give a file of text in UTF-8"
        ) from error
