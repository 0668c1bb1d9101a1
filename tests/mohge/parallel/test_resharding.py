"""A checkpoint of one mesh goes on in another."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks_here import run_ranks
from training_targets import MOE, MOHGE, go_on, save_after_two_steps, through_a_checkpoint

from mohge.training.checkpoint import find_damage, read_tensors

SAVED_AT = (1, 2, 2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    folder = tmp_path_factory.mktemp("saved") / "step_00000002"
    (losses,) = run_ranks(save_after_two_steps, 4, MOHGE, SAVED_AT, folder)[0]
    assert find_damage(folder) is None
    assert len(list(folder.glob("*.safetensors"))) == 4, "each rank writes its own part"
    return folder, losses


def test_in_its_own_mesh_it_goes_on_bit_for_bit(saved):
    folder, losses = saved
    assert run_ranks(go_on, 4, MOHGE, SAVED_AT, folder)[0] == [losses]


def test_the_bias_of_the_choice_goes_on_with_the_weights(tmp_path):
    """Every rank has all of it; or the third step would choose others."""
    folder = tmp_path / "step_00000002"
    free = (*MOE, "router.bias_rate=0.0005")
    for saved, went_on in run_ranks(through_a_checkpoint, 2, free, (1, 1, 2), folder):
        assert saved == went_on
    biases = {name: tensor for name, tensor in read_tensors(folder, "model.").items() if "bias" in name}
    assert len(biases) == 2
    assert all(tensor.any() for tensor in biases.values())


@pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 1, 2), (1, 1, 4), (1, 4, 1), (2, 1, 1)], ids=str)
def test_in_another_mesh_and_back(saved, mesh, tmp_path):
    folder, losses = saved
    again = tmp_path / "step_00000002"
    (elsewhere,) = run_ranks(go_on, mesh[0] * mesh[1] * mesh[2], MOHGE, mesh, folder, again)[0]
    assert elsewhere == pytest.approx(losses, abs=1e-6)
    (back,) = run_ranks(go_on, 4, MOHGE, SAVED_AT, again)[0]
    assert back == losses, "nothing was rounded on the way there and back"
