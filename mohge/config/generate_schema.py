"""The typed configuration of mohge-generate, as `mohge.config.schema` is that of mohge-train."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mohge.config.schema import Positive, TrainConfig, Weight, config_class


@config_class
class GenerationConfig:
    """The function that does the work."""

    target: Annotated[str, Field(alias="_target_")]
    """Its import path; it is called with the whole configuration and the prompt."""


@config_class
class GenerateConfig(TrainConfig):
    """All that mohge-generate reads. Of the keys of training only `seed` may be given."""

    checkpoint: str
    """A run's folder, a checkpoint, a folder of mohge-export, or a model of transformers."""
    prompt: str = ""
    """Text to continue."""
    prompt_file: str | None = None
    """A file of text, in UTF-8, to continue instead."""
    max_new_tokens: Positive = 128
    """Most tokens of each sample."""
    temperature: Weight = 0.8
    """What logits are divided by before a token is drawn; 0 takes the most probable one."""
    top_k: Positive | None = None
    """Draw from this many of the most probable tokens."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw from the fewest tokens whose probabilities sum to this."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings that end a text."""
    samples: Positive = 1
    """Texts to draw, all at once."""
    groups: bool = False
    """Show the width group of each token."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Hardware to compute on."""
    format: Literal["text", "json"] = "text"
    """What to print."""
    generation: GenerationConfig
    """The function that does the work."""
