"""The whole language model."""

import math
from dataclasses import replace

import pytest
import torch
from kernels_here import KERNELS_HERE
from torch import Tensor

from mohge.config.schema import ExpertsConfig, LatentAttentionConfig, ModelConfig, RouterConfig
from mohge.model.feed_forward import SwiGLU
from mohge.model.initialization import initialize
from mohge.model.transformer import TransformerLM

MODEL = ModelConfig(
    name="test",
    vocab_size=48,
    context=16,
    d_model=32,
    layers=2,
    heads=4,
    kv_heads=2,
    mla=LatentAttentionConfig(kv_rank=16, nope_dim=8, rope_dim=4, value_dim=8),
)
LATENT = replace(MODEL, attention="mla", tied_head=False)
POOL = ExpertsConfig(widths=(16, 32), per_group=3, shared=1, shared_width=16, kernel="loop")
TWO_LEVEL = RouterConfig(kind="two_level", group_top_k=2, expert_top_k=2)
FLAT = RouterConfig(kind="top_k", expert_top_k=2)
DENSE = RouterConfig(kind="none")
EVERY_KIND = [(m, r) for m in (MODEL, LATENT) for r in (TWO_LEVEL, FLAT, DENSE)]


def build(model: ModelConfig, router: RouterConfig, experts: ExpertsConfig = POOL) -> TransformerLM:
    network = TransformerLM(model, experts, router)
    initialize(network, seed=0)
    return network


def tokens(batch: int = 2, length: int = 12) -> Tensor:
    return torch.randint(MODEL.vocab_size, (batch, length), generator=torch.Generator().manual_seed(5))


def gradients(network: TransformerLM) -> dict[str, Tensor]:
    """Gradients of a loss that uses the routing decisions too, as the auxiliary losses do."""
    output = network(tokens())
    loss = output.logits_BSV.square().mean()
    for decision in output.decisions:
        loss = loss + decision.joint_probability_TE.square().mean() + decision.weights_TK.square().mean()
    loss.backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("model", "router"), EVERY_KIND)
def test_a_token_changes_the_logits_of_no_earlier_position(model, router):
    network = build(model, router).double()
    original = tokens()
    before = network(original).logits_BSV
    for position in range(original.shape[1]):
        changed = original.clone()
        changed[:, position] = (changed[:, position] + 1) % MODEL.vocab_size
        after = network(changed).logits_BSV
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=1e-10, atol=1e-12)
        moved = (after - before)[:, position:].abs().amax(dim=-1)
        assert (moved > 1e-9).all(), "every later position sees the token"


@pytest.mark.parametrize(("model", "router"), EVERY_KIND)
def test_output_and_names(model, router):
    network = build(model, router)
    output = network(tokens())
    assert output.logits_BSV.shape == (2, 12, MODEL.vocab_size)
    assert len(output.decisions) == (0 if router.kind == "none" else MODEL.layers)
    for decision in output.decisions:
        assert decision.expert_ids_TK.shape == (2 * 12, 2)
    children = {name for name, _ in network.named_children()}
    assert children == {"embedding", "blocks", "final_norm"} | ({"head"} if not model.tied_head else set())
    block = {name for name, _ in network.blocks[0].named_children()}
    assert block == {"attention_norm", "attention", "ffn_norm", "ffn"}
    assert isinstance(network.blocks[0].ffn, SwiGLU) == (router.kind == "none")


def test_the_untrained_model_is_almost_undecided():
    network = build(MODEL, TWO_LEVEL)
    logits = network(tokens()).logits_BSV
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens()[:, 1:].flatten())
    assert abs(loss.item() - math.log(MODEL.vocab_size)) < 0.1


@pytest.mark.parametrize(("model", "router"), EVERY_KIND)
@pytest.mark.parametrize("kernel", KERNELS_HERE)
def test_recomputation_leaves_gradients_bit_identical(model, router, kernel):
    experts = replace(POOL, kernel=kernel)
    kept = gradients(build(model, router, experts))
    recomputed = gradients(build(replace(model, activation_checkpointing=True), router, experts))
    assert kept.keys() == recomputed.keys() == dict(build(model, router).named_parameters()).keys()
    for name, gradient in kept.items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, recomputed[name]), name


def test_recomputation_does_not_route_again():
    network = build(replace(MODEL, activation_checkpointing=True), TWO_LEVEL)
    calls = {"router": 0, "experts": 0}

    def count(name):
        return lambda *_: calls.update({name: calls[name] + 1})

    for block in network.blocks:
        block.ffn.router.register_forward_hook(count("router"))
        block.ffn.experts.register_forward_pre_hook(count("experts"))
    gradients(network)
    assert calls == {"router": MODEL.layers, "experts": 2 * MODEL.layers}


@pytest.mark.parametrize("router", [TWO_LEVEL, DENSE])
def test_recomputation_keeps_less(router):
    def kept_bytes(network: TransformerLM) -> int:
        storages = {}

        def pack(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(tokens())
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        return sum(size for pointer, (size, _) in storages.items() if pointer not in weights)

    kept = kept_bytes(build(MODEL, router))
    assert kept_bytes(build(replace(MODEL, activation_checkpointing=True), router)) < 0.6 * kept


def test_a_tied_head_is_the_embedding():
    network = build(MODEL, DENSE)
    state = network(tokens()).logits_BSV
    with torch.no_grad():
        network.embedding.weight.mul_(2)
    assert not torch.equal(state, network(tokens()).logits_BSV)
    assert "head.weight" not in network.state_dict()


def test_too_long_a_sequence_is_refused():
    network = build(MODEL, DENSE)
    with pytest.raises(ValueError, match=r"17 tokens exceed the context, model\.context=16"):
        network(tokens(1, 17))
