"""Any mesh is accepted and fits, or is refused and fits after each change that the refusal names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_settings import DENSE, SINGLE, SIZES, changed, launched, preset

from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.parallel.ranks import found_rank
from mohge.parallel.remedies import PRESETS, divisors
from mohge.parallel.sizes import MeshSizes, mesh_sizes


@st.composite
def meshes(draw: st.DrawFn) -> tuple[TrainConfig, dict[str, str]]:
    """A configuration with any sizes and batch, and perhaps a launcher that agrees with it."""
    config = preset(draw(st.sampled_from([SINGLE, SINGLE, DENSE])), draw(st.sampled_from(list(PRESETS))))
    numbers = st.sampled_from([1, 2, 3, 4, 6, 8, 9, 12])
    for name in draw(st.lists(st.sampled_from(SIZES), max_size=2, unique=True)):
        config = changed(config, **{f"parallel_{name}": draw(st.none() | numbers)})
    config = changed(config, data_batch_sequences=draw(st.sampled_from([2, 6, 7, 8, 12, 16, 36])))
    if config.experts.num_experts:
        widths = tuple(sorted(draw(st.lists(st.sampled_from([3, 6, 8, 12, 24]), min_size=1, max_size=3))))
        config = changed(config, experts_widths=widths, experts_per_group=draw(numbers))
        config = changed(config, model_d_model=draw(st.sampled_from([6, 16, 24, 96])))
    if draw(st.booleans()):
        nodes, here = draw(st.integers(1, 3)), draw(numbers)
        return config, launched(nodes * here, nodes)
    config = changed(config, trainer_devices=draw(st.none() | numbers), trainer_nodes=draw(st.integers(1, 3)))
    return config, {}


def applied(remedies: str, config: TrainConfig) -> Iterator[tuple[TrainConfig, dict[str, str] | None]]:
    """What a user makes of the part of a sentence after the colon: each alternative, tried by itself."""
    if remedies.startswith("leave the sizes of parallel out, and use "):
        settings = dict(item.split("=") for item in remedies.partition(" use ")[2].split())
        config = preset(config, settings.pop("parallel"))
        for key, value in settings.items():
            config = changed(config, **{key.replace(".", "_", 1): int(value)})
        yield config, None
        return
    for alternative in remedies.removeprefix("use ").split(", or "):
        launch = re.fullmatch(r"a launch of (.*) ranks", alternative)
        key, _, values = ("ranks", "", launch[1]) if launch else alternative.partition("=")
        for value in re.split(", | or ", values):
            if launch:
                rank = found_rank()
                assert rank is not None
                yield config, launched(int(value), rank.nodes)
            elif key == "parallel":
                yield preset(config, value), None
            else:
                yield changed(config, **{key.replace(".", "_", 1): int(value)}), None


@settings(max_examples=300, deadline=None)
@given(meshes())
def test_an_accepted_mesh_fits_and_a_refused_one_fits_after_each_remedy(mesh):
    config, environment = mesh
    with mock.patch.dict(os.environ, environment):
        try:
            assert_fits(mesh_sizes(config), config)
            return
        except UserError as error:
            sentence = str(error)
        assert "\n" not in sentence
        tried = list(applied(sentence.rpartition(": ")[2], config))
        assert tried
        for better, launch in tried:
            with mock.patch.dict(os.environ, launch or {}):
                assert_fits(mesh_sizes(better), better)


def assert_fits(sizes: MeshSizes, config: TrainConfig) -> None:
    rank, trainer = found_rank(), config.trainer
    if rank is not None:
        assert sizes.world == rank.world
    elif trainer.devices is not None:
        assert sizes.world == trainer.devices * trainer.nodes
    for name in SIZES:
        assert getattr(config.parallel, name) in (None, getattr(sizes, name))
    assert config.parallel.name != "single" or sizes.world == 1
    assert config.data.batch_sequences % sizes.world == 0
    assert sizes.dense_shard * sizes.dp_replicate == sizes.world
    if config.experts.num_experts:
        assert config.experts.per_group % sizes.expert_parallel == 0
        assert config.model.d_model % sizes.dp_shard == 0
        assert all(2 * width % sizes.dp_shard == 0 for width in config.experts.widths)
    else:
        assert sizes.expert_parallel == 1


@given(st.integers(1, 5000))
def test_divisors(number):
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]
