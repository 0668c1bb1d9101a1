"""Models in the format of Hugging Face's transformers: writing them, and reading them into `TransformerLM`.

Neither needs transformers itself. docs/INTERCHANGE.md says which model becomes which class.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mohge.interchange.folder import begin_token_id, end_token_id, is_transformers_folder

if TYPE_CHECKING:
    from mohge.config.schema import TrainConfig
    from mohge.model.transformer import TransformerLM

__all__ = ["begin_token_id", "end_token_id", "is_transformers_folder", "load_transformers", "register"]


def load_transformers(folder: str | os.PathLike[str]) -> tuple[TrainConfig, TransformerLM]:
    """The configuration and the model, in float32 on the CPU, of a folder of transformers.

    See `mohge.interchange.loading.load_transformers`.
    """
    from mohge.interchange import loading  # late, since torch takes seconds to import

    return loading.load_transformers(folder)


def register() -> None:
    """Make our own class known to transformers, so that its folders load without trust_remote_code.

    Raises:
        ImportError: transformers is not installed.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from mohge.interchange.configuration_mohge import MohgeConfig
    from mohge.interchange.modeling_mohge import MohgeForCausalLM

    AutoConfig.register(MohgeConfig.model_type, MohgeConfig, exist_ok=True)
    AutoModelForCausalLM.register(MohgeConfig, MohgeForCausalLM, exist_ok=True)
