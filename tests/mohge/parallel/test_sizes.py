"""Sizes of the mesh: what is filled in, and what is refused in which words."""

from __future__ import annotations

import itertools
import math
import os
from unittest import mock

import pytest
from composing import composed
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh_settings import SINGLE, SIZES, changed, launched, preset

from mohge.config.load import typed
from mohge.config.schema import TrainConfig
from mohge.errors import UserError
from mohge.parallel.remedies import PRESETS, divisors
from mohge.parallel.sizes import MeshSizes, mesh_sizes


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_those_of_the_configuration(name):
    parallel = composed(f"parallel={name}").parallel
    assert parallel.name == name
    assert {size: parallel[size] for size in SIZES} == PRESETS[name]


@pytest.mark.parametrize(
    ("name", "meshes"),
    [
        ("single", {1: (1, 1, 1)}),
        ("ddp", {1: (1, 1, 1), 2: (2, 1, 1), 4: (4, 1, 1), 8: (8, 1, 1), 16: (16, 1, 1)}),
        ("fsdp", {1: (1, 1, 1), 2: (1, 2, 1), 4: (1, 4, 1), 8: (1, 8, 1), 16: (1, 16, 1)}),
        ("ep", {1: (1, 1, 1), 2: (1, 1, 2), 4: (1, 1, 4)}),
        ("fsdp_ep", {1: (1, 1, 1), 2: (1, 1, 2), 4: (1, 2, 2), 8: (1, 2, 4), 16: (1, 4, 4)}),
    ],
)
def test_open_sizes_fill_up_the_ranks(name, meshes):
    for ranks, mesh in meshes.items():
        config = preset(SINGLE, name)
        assert mesh_sizes(changed(config, trainer_devices=ranks)) == MeshSizes(*mesh)
        with mock.patch.dict(os.environ, launched(ranks)):
            assert mesh_sizes(config) == MeshSizes(*mesh)
    with pytest.raises(UserError):
        mesh_sizes(changed(preset(SINGLE, name), trainer_devices=3))


@pytest.mark.parametrize(
    ("overrides", "mesh"),
    [
        ("parallel=ddp parallel.dp_replicate=4", (4, 1, 1)),  # no trainer.devices
        ("parallel=ddp trainer.devices=2 trainer.nodes=2", (4, 1, 1)),
        ("parallel=ep parallel.dp_replicate=2 trainer.devices=8", (2, 1, 4)),
        ("parallel=ddp parallel.expert_parallel=2 trainer.devices=8", (4, 1, 2)),
        ("parallel=fsdp parallel.dp_replicate=2 trainer.devices=8", (2, 4, 1)),
        ("parallel=fsdp_ep parallel.dp_shard=4 trainer.devices=8", (1, 4, 2)),
        ("parallel=fsdp_ep parallel.dp_replicate=2 trainer.devices=16", (2, 2, 4)),
        # two that are open, one of them of another preset
        ("parallel=ddp parallel.expert_parallel=null trainer.devices=8", (2, 1, 4)),
        ("parallel=ddp parallel.dp_shard=null trainer.devices=4", (1, 4, 1)),
        ("parallel=fsdp_ep parallel.dp_replicate=null trainer.devices=8", (1, 2, 4)),
        # 9 experts of a width could be spread among 3 ranks, but these widths cannot be cut among 3
        ("parallel=fsdp_ep experts.per_group=9 data.batch_sequences=9 trainer.devices=9", (1, 1, 9)),
        ("arch=dense parallel=fsdp_ep trainer.devices=2", (1, 2, 1)),
        (
            "arch=dense parallel=fsdp trainer.devices=3 data.batch_sequences=3",
            (1, 3, 1),
        ),  # rows may be uneven
    ],
)
def test_sizes_that_are_given_stay(overrides, mesh):
    assert mesh_sizes(typed(TrainConfig, composed(*overrides.split()))) == MeshSizes(*mesh)


EXPERTS = "experts.per_group=4, and each rank holds as many experts of every width: "
CUT = "model.d_model=128 and twice each of experts.widths=[48, 80, 112, 144], which it cuts: "
BATCH = "ranks, each of which reads its part of a micro-batch: "
REFUSED = [
    # the product does not fit
    (
        "parallel=fsdp_ep parallel.expert_parallel=3 trainer.devices=4",
        "parallel.expert_parallel=3 does not fit trainer.devices=4: use parallel.expert_parallel=1, 2 or 4",
    ),
    (
        "parallel=fsdp_ep parallel.dp_shard=4 parallel.expert_parallel=4 trainer.devices=8",
        "parallel.dp_shard=4 x parallel.expert_parallel=4 = 16 does not fit trainer.devices=8: use "
        "parallel.dp_shard=2, or parallel.expert_parallel=2, or trainer.devices=16",
    ),
    (
        "parallel=ddp parallel.dp_replicate=2 trainer.devices=2 trainer.nodes=2",
        "parallel.dp_replicate=2 does not fit trainer.devices=2 x trainer.nodes=2 = 4: use "
        "parallel.dp_replicate=4, or trainer.devices=1, or trainer.nodes=1",
    ),
    # nothing says how many ranks there are
    (
        "parallel=ep",
        "parallel=ep fills parallel.expert_parallel with the ranks there are, and trainer.devices does not "
        "say how many: use trainer.devices=1, 2 or 4, or parallel=single",
    ),
    (
        "parallel=fsdp_ep parallel.dp_shard=2",
        "parallel=fsdp_ep fills parallel.expert_parallel with the ranks there are, and trainer.devices does "
        "not say how many: use trainer.devices=2, 4 or 8",
    ),
    # machines
    (
        "trainer.nodes=2",
        "trainer.nodes=2 does not fit parallel=single, which runs one process: use trainer.nodes=1",
    ),
    (
        "parallel=fsdp_ep parallel.dp_shard=1 parallel.expert_parallel=2 trainer.nodes=4",
        "parallel.expert_parallel=2 does not divide among trainer.nodes=4: use parallel.dp_shard=2 or 4, or "
        "parallel.expert_parallel=4, or trainer.nodes=1 or 2",
    ),
    # what sizes divide
    (
        "parallel=ep trainer.devices=8",
        f"parallel.expert_parallel=8 does not divide {EXPERTS}use trainer.devices=1, 2 or 4, or "
        "parallel=ddp, fsdp or fsdp_ep",
    ),
    (
        "parallel=fsdp trainer.devices=6 data.batch_sequences=6",
        f"parallel.dp_shard=6 does not divide {CUT}use trainer.devices=1 or 2, or parallel=ddp",
    ),
    (
        "parallel=ddp trainer.devices=3",
        f"data.batch_sequences=16 does not divide among 3 {BATCH}use data.batch_sequences=18, or "
        "trainer.devices=1, 2, 4 or 8",
    ),
    (
        "arch=dense parallel=ep trainer.devices=2",
        "parallel.expert_parallel=2 finds no experts to spread, as router.kind=none: use trainer.devices=1, "
        "or parallel=ddp, fsdp or fsdp_ep",
    ),
    (
        "arch=dense parallel=fsdp_ep parallel.expert_parallel=2 trainer.devices=4",
        "parallel.expert_parallel=2 finds no experts to spread, as router.kind=none: use "
        "parallel.expert_parallel=1",
    ),
    # one process
    (
        "trainer.devices=2",
        "trainer.devices=2 does not fit parallel=single, which runs one process: use trainer.devices=1, or "
        "parallel=ddp, fsdp, ep or fsdp_ep",
    ),
    (
        "parallel.dp_shard=2",
        "parallel.dp_shard=2 does not fit parallel=single, which runs one process: use parallel.dp_shard=1",
    ),
    # several at fault
    (
        "parallel=fsdp_ep parallel.dp_shard=3 parallel.expert_parallel=3 trainer.devices=9",
        f"parallel.expert_parallel=3 does not divide {EXPERTS}leave the sizes of parallel out, and use "
        "parallel=ddp trainer.devices=9 data.batch_sequences=18",
    ),
]


@pytest.mark.parametrize(("overrides", "sentence"), REFUSED, ids=[overrides for overrides, _ in REFUSED])
def test_a_mesh_that_does_not_fit_is_refused_with_what_would(overrides, sentence):
    with pytest.raises(UserError) as caught:
        typed(TrainConfig, composed(*overrides.split()))
    assert str(caught.value) == sentence


LAUNCHED = [
    (
        "",
        (2, 1),
        "a launch of 2 ranks does not fit parallel=single, which runs one process: use parallel=ddp, fsdp, "
        "ep or fsdp_ep",
    ),
    (
        "parallel=ep",
        (16, 2),
        f"parallel.expert_parallel=16 does not divide {EXPERTS}use a launch of 2 or 4 ranks, or "
        "parallel=ddp, fsdp or fsdp_ep",
    ),
    (
        "parallel=ddp parallel.dp_replicate=4",
        (8, 1),
        "parallel.dp_replicate=4 does not fit a launch of 8 ranks: use parallel.dp_replicate=8, or a launch "
        "of 4 ranks",
    ),
    (
        "parallel=fsdp trainer.devices=4",
        (2, 1),
        "trainer.devices=4 disagrees with torchrun or srun, which has started 2 ranks on each machine: use "
        "trainer.devices=2",
    ),
    (
        "parallel=fsdp trainer.nodes=3",
        (8, 2),
        "trainer.nodes=3 disagrees with torchrun or srun, which has started ranks on 2 machines: use "
        "trainer.nodes=2",
    ),
    (
        "",
        (3, 1),
        "a launch of 3 ranks does not fit parallel=single, which runs one process: leave the sizes of "
        "parallel out, and use parallel=ddp data.batch_sequences=18",
    ),
]


@pytest.mark.parametrize(("overrides", "launch", "sentence"), LAUNCHED)
def test_ranks_of_another_launcher_are_what_there_is(overrides, launch, sentence):
    with mock.patch.dict(os.environ, launched(*launch)), pytest.raises(UserError) as caught:
        typed(TrainConfig, composed(*overrides.split()))
    assert str(caught.value) == sentence


def test_ranks_of_another_launcher_may_be_named_as_they_are():
    config = changed(preset(SINGLE, "ddp"), trainer_devices=2, trainer_nodes=4)
    with mock.patch.dict(os.environ, launched(8, nodes=4)):
        assert mesh_sizes(config) == MeshSizes(8, 1, 1)


@settings(deadline=None)
@given(
    ranks=st.integers(1, 40),
    per_group=st.integers(1, 40),
    width=st.integers(1, 40),
    replicate=st.sampled_from([1, 1, 2, 3]),
)
def test_if_there_is_a_mesh_it_is_found_with_shards_if_possible(ranks, per_group, width, replicate):
    config = changed(preset(SINGLE, "fsdp_ep"), experts_widths=(width,), experts_per_group=per_group)
    config = changed(config, parallel_dp_replicate=replicate, data_batch_sequences=ranks, model_d_model=240)
    possible = [
        (shard, ep)
        for shard, ep in itertools.product(divisors(ranks), repeat=2)
        if replicate * shard * ep == ranks and per_group % ep == 0 and math.gcd(2 * width, 240) % shard == 0
    ]
    config = changed(config, trainer_devices=ranks)
    if not possible:
        with pytest.raises(UserError):
            mesh_sizes(config)
        return
    sizes = mesh_sizes(config)
    assert (sizes.dp_shard, sizes.expert_parallel) in possible
    both = [ep for shard, ep in possible if shard > 1 and ep > 1]
    assert sizes.expert_parallel == max(both or [ep for _, ep in possible])
