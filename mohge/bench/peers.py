"""The peer of bench=step: Mixtral of Hugging Face's transformers, of the same sizes.

Shapes: B batch, S sequence.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mohge.bench.training_step import optimizer_and_schedule, precision
from mohge.config.schema import TrainConfig

IMPLEMENTATIONS = ("eager", "grouped_mm")
"""Ways of transformers to compute experts: one after another, or by torch's grouped product."""


def transformers_installed() -> bool:
    """Whether the extra `transformers` is there."""
    return importlib.util.find_spec("transformers") is not None


class MixtralStep:
    """One optimizer step of Mixtral: the same data, losses, clipping and optimizer as `TrainingStep`.

    Args:
        config: sizes; experts of one width, a flat router, no shared experts.
        implementation: one of `IMPLEMENTATIONS`.
        device: where.
    """

    def __init__(self, config: TrainConfig, implementation: str, device: torch.device) -> None:
        from transformers import MixtralForCausalLM, logging

        logging.set_verbosity_error()
        torch.manual_seed(config.seed)
        self.model: nn.Module = MixtralForCausalLM(_mixtral_config(config, implementation)).to(device)
        self.model.train()
        self._optimizer, self._schedule = optimizer_and_schedule(self.model, config.optim)
        self._clip = config.trainer.clip
        self._precision = precision(config, device)

    def __call__(self, micro_batches: Sequence[Tensor]) -> None:
        """Make a step.

        Args:
            micro_batches: one, token ids (B, S + 1).
        """
        (tokens_BS,) = micro_batches
        inputs_BS, targets_BS = tokens_BS[:, :-1], tokens_BS[:, 1:]
        with self._precision:
            # Both: transformers computes a loss when there are labels, and would shift those.
            output = self.model(
                input_ids=inputs_BS, labels=targets_BS, shift_labels=targets_BS.contiguous(), use_cache=False
            )
        output.loss.backward()
        if self._clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._optimizer.step()
        self._schedule.step()
        self.drop_gradients()  # here, as transformers' Trainer does

    def drop_gradients(self) -> None:
        """Forget those of the last step."""
        self._optimizer.zero_grad()


def _mixtral_config(config: TrainConfig, implementation: str) -> Any:
    from transformers import MixtralConfig

    model, experts = config.model, config.experts
    return MixtralConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.d_model,
        intermediate_size=experts.widths[0],
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        num_local_experts=experts.num_experts,
        num_experts_per_tok=config.router.expert_top_k,
        max_position_embeddings=model.context,
        rms_norm_eps=model.norm_eps,
        initializer_range=model.init_std,
        tie_word_embeddings=model.tied_head,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_base},
        output_router_logits=True,
        router_aux_loss_coef=config.loss.balance_weight,
        attn_implementation="sdpa",
        experts_implementation=implementation,
    )
