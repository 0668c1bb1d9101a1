"""What was exported is the model that was trained, bit for bit; anything else is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from composing import composed
from safetensors.torch import load_file, save_file
from tiny_runs import TINY_EXPERTS, TINY_MODEL, TINY_ROUTER

from mohge.config.load import as_dict, typed
from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.model.initialization import initialize
from mohge.model.transformer import TransformerLM, build_model
from mohge.training.checkpoint import TENSORS, VerifiedCheckpointIO
from mohge.training.export import export_checkpoint, load_exported
from mohge.training.optimizer import build_optimizer
from mohge.training.tensors import training_tensors

MOHGE = (*TINY_MODEL, *TINY_EXPERTS, *TINY_ROUTER)
MODELS = {
    "mohge": MOHGE,
    "untied": (*MOHGE, "model.tied_head=false"),
    "latent": (*MOHGE, "model.attention=mla", "model.mla={kv_rank:8,nope_dim:4,rope_dim:4,value_dim:6}"),
    "moe": ("arch=moe", *TINY_MODEL, "experts.widths=[16]", "experts.per_group=4", "router.expert_top_k=2"),
    "dense": ("arch=dense", *TINY_MODEL, "experts.shared_width=20"),
    "many ranks": (*MOHGE, "parallel=fsdp_ep", "trainer.devices=4"),
}


def config_of(*overrides: str) -> TrainConfig:
    return typed(TrainConfig, composed("logger=none", *overrides))


def saved(folder: Path, config: TrainConfig) -> tuple[Path, TransformerLM]:
    """A checkpoint of a model that has learned for a step, and the model."""
    model = build_model(config)
    initialize(model, seed=1)
    optimizer = build_optimizer(model, config.optim)
    tokens = torch.randint(0, config.model.vocab_size, (2, 9), generator=torch.Generator().manual_seed(2))
    model(tokens[:, :-1], tokens[:, 1:]).loss.backward()
    optimizer.step()
    path = folder / "checkpoints" / "step_00000001"
    checkpoint = {
        "global_step": 1,
        "mohge": {"config": as_dict(config)},
        TENSORS: training_tensors(model, optimizer),
    }
    VerifiedCheckpointIO().save_checkpoint(checkpoint, path)
    return path, model


@pytest.mark.parametrize("name", MODELS)
def test_the_exported_model_computes_what_the_trained_one_does(tmp_path, name):
    config = config_of(*MODELS[name])
    checkpoint, model = saved(tmp_path, config)
    result = export_checkpoint(checkpoint, tmp_path / "model")
    found, loaded = load_exported(tmp_path / "model")
    assert found == config
    assert result["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    tokens = torch.randint(0, config.model.vocab_size, (3, 17), generator=torch.Generator().manual_seed(3))
    assert torch.equal(loaded(tokens).logits_BSV, model(tokens).logits_BSV)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_model_trained_by_the_kernel_of_one_machine_computes_on_any(tmp_path, monkeypatch):
    config = config_of(*MOHGE, "model.d_model=32", "experts.widths=[16,32]")
    checkpoint, model = saved(tmp_path, config)
    export_checkpoint(checkpoint, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts["config"]["experts"]["kernel"] = "native"
    path.write_text(json.dumps(facts), encoding="utf-8")
    monkeypatch.setattr("mohge.moe.native.library", lambda: "there is no gcc")
    found, loaded = load_exported(tmp_path / "model")
    assert found.experts.kernel == "auto"
    tokens = torch.randint(0, config.model.vocab_size, (3, 17), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(loaded(tokens).logits_BSV, model(tokens).logits_BSV)


def test_neither_folders_nor_addresses_are_published(tmp_path):
    secret = (
        *("logger=mlflow", "logger.tracking_uri=https://me:secret@host", f"paths.output_dir={tmp_path}/out"),
        *(f"logger.group={tmp_path}/group", f"logger.run_name={tmp_path}/texts"),
        *("data=text_files", f"data.path={tmp_path}/texts", f"paths.cache_dir={tmp_path}/cache"),
    )
    checkpoint, _ = saved(tmp_path, config_of(*secret, *TINY_MODEL, *TINY_EXPERTS, *TINY_ROUTER))
    export_checkpoint(checkpoint, tmp_path / "model")
    text = (tmp_path / "model" / "config.json").read_text()
    assert "secret" not in text
    assert str(tmp_path) not in text
    assert load_exported(tmp_path / "model")[0].data.path == "texts"


def test_a_configuration_of_ranks_that_are_not_here_is_read(tmp_path):
    """torchrun told the run how many it had: its configuration does not."""
    config = config_of(*MOHGE, "parallel=fsdp_ep", "trainer.devices=4")
    open_sizes = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, devices=None))
    with pytest.raises(UserError, match=r"trainer\.devices does not say how many"):
        typed(TrainConfig, as_dict(open_sizes))
    export_checkpoint(saved(tmp_path, open_sizes)[0], tmp_path / "model")
    assert load_exported(tmp_path / "model")[0] == open_sizes


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    checkpoint, _ = saved(tmp_path, config_of(*MOHGE))
    export_checkpoint(checkpoint, tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def edit_config(folder: Path, group: str, **keys: object) -> None:
    config = json.loads((folder / "config.json").read_text())["config"]
    change_config(folder, config={**config, group: {**config[group], **keys}})


def rename_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["norm.weight"] = weights.pop("final_norm.weight").clone()
    save_file(weights, folder / "model.safetensors")


DAMAGES = {
    "holds no exported model": lambda folder: (folder / "config.json").unlink(),
    "holds no exported model (config.json": lambda folder: (folder / "config.json").write_text("{"),
    "is of format other, not mohge-export-1": lambda folder: change_config(folder, format="other"),
    "cannot read (model.colour: ": lambda folder: edit_config(folder, "model", colour="blue"),
    "a configuration that makes no model": lambda folder: edit_config(folder, "model", heads=3),
    "asks for (blocks.1.": lambda folder: edit_config(folder, "model", layers=2),
    "asks for (embedding.weight is": lambda folder: edit_config(folder, "model", vocab_size=299),
    "asks for (final_norm.weight is": rename_a_weight,
    "model.safetensors cannot be read": lambda folder: (folder / "model.safetensors").unlink(),
    "cannot be read (": lambda folder: (folder / "model.safetensors").write_bytes(b"nonsense"),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_what_is_not_an_exported_model_is_refused(exported, reason):
    DAMAGES[reason](exported)
    with pytest.raises(UserError) as caught:
        load_exported(exported)
    assert reason in str(caught.value)
    assert str(exported) in str(caught.value)


def test_a_checkpoint_of_another_version_is_refused_and_nothing_written(tmp_path):
    config = config_of(*MOHGE)
    checkpoint, model = saved(tmp_path, config)
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=400))
    state = {"global_step": 1, "mohge": {"config": as_dict(wider)}, TENSORS: {}}
    state[TENSORS] = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    VerifiedCheckpointIO().save_checkpoint(state, checkpoint)
    with pytest.raises(UserError, match=rf"{checkpoint} does not hold the weights .*embedding\.weight"):
        export_checkpoint(checkpoint, tmp_path / "a" / "model")
    assert not (tmp_path / "a").exists()


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    checkpoint, _ = saved(tmp_path, config_of(*MOHGE))

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mohge.training.export.save_file", interrupt)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(checkpoint, tmp_path / "a" / "model")
    assert sorted(tmp_path.rglob("*")) == before
