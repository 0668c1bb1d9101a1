"""Which rank a process is, by the variables of those who start processes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mohge.errors import UserError
from mohge.parallel.ranks import ALONE, Rank, found_rank, this_rank

BATCH_SHELL = {
    **{"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "16", "SLURM_NNODES": "2", "SLURM_TASKS_PER_NODE": "8(x2)"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "8"},
}


def torchrun(rank: int, local_world: int, nodes: int, **changes: Any) -> dict[str, str]:
    """Variables of one rank; a change to None leaves one out."""
    numbers = {"RANK": rank, "WORLD_SIZE": local_world * nodes, "LOCAL_RANK": rank % local_world}
    numbers |= {"LOCAL_WORLD_SIZE": local_world, "GROUP_RANK": rank // local_world, "GROUP_WORLD_SIZE": nodes}
    return _changed(numbers, changes)


def srun(rank: int, local_world: int, nodes: int, **changes: Any) -> dict[str, str]:
    """Variables of one task of a step, in the shell of a batch job; a change to None leaves one out."""
    numbers = {"SLURM_STEP_NUM_TASKS": local_world * nodes, "SLURM_STEP_NUM_NODES": nodes}
    numbers |= {"SLURM_PROCID": rank, "SLURM_LOCALID": rank % local_world}
    per_node = f"{local_world}(x{nodes})" if nodes > 1 else local_world
    place = {"SLURM_NODEID": rank // local_world, "SLURM_STEP_TASKS_PER_NODE": per_node}
    return BATCH_SHELL | _changed(numbers | place, changes)


def _changed(variables: dict[str, Any], changes: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in (variables | changes).items() if value is not None}


@pytest.mark.parametrize("launcher", [torchrun, srun])
@given(nodes=st.integers(1, 9), local_world=st.integers(2, 9), data=st.data())
def test_a_launcher_tells_each_process_its_place(launcher, nodes, local_world, data):
    index = data.draw(st.integers(0, nodes * local_world - 1))
    rank = found_rank(launcher(index, local_world, nodes))
    assert rank == Rank(
        index, nodes * local_world, index % local_world, local_world, node=index // local_world
    )
    assert rank.nodes == nodes
    assert rank.is_first == (index == 0)


def test_variables_that_a_launcher_may_leave_out():
    assert found_rank(torchrun(1, 2, 1, LOCAL_WORLD_SIZE=None, GROUP_WORLD_SIZE=None)) == Rank(1, 2, 1, 2, 0)
    assert found_rank(srun(3, 2, 2, SLURM_STEP_TASKS_PER_NODE=None)) == Rank(3, 4, 1, 2, 1)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        BATCH_SHELL,
        srun(0, 1, 1),  # srun --pty bash
        torchrun(1, 2, 1, LOCAL_RANK=None),  # of something else
        {"WORLD_SIZE": "2", "MASTER_ADDR": "node1"},
    ],
)
def test_a_process_that_no_launcher_started_is_alone(environment):
    assert found_rank(environment) is None


def test_one_rank_of_torchrun_is_a_rank():
    assert found_rank(torchrun(0, 1, 1)) == ALONE


def test_torchrun_inside_a_step_of_srun_goes_first():
    assert found_rank(srun(1, 1, 2) | torchrun(9, 8, 2)) == Rank(9, 16, 1, 8, 1)


@pytest.mark.parametrize(
    ("environment", "fragments"),
    [
        (
            srun(0, 2, 2, SLURM_STEP_NUM_TASKS=3, SLURM_STEP_TASKS_PER_NODE="2,1"),
            ["SLURM_STEP_TASKS_PER_NODE=2,1"],
        ),
        (
            srun(0, 2, 2, SLURM_STEP_TASKS_PER_NODE="3,1"),
            ["SLURM_STEP_NUM_TASKS=4", "SLURM_STEP_TASKS_PER_NODE=3,1"],
        ),
        (
            srun(0, 2, 3, SLURM_STEP_NUM_TASKS=5, SLURM_STEP_TASKS_PER_NODE="2(x2),1"),
            ["SLURM_STEP_TASKS_PER_NODE=2(x2),1"],
        ),
        (srun(1, 2, 2, SLURM_LOCALID=0, SLURM_NODEID=1), ["SLURM_PROCID=1", "SLURM_NODEID=1"]),  # cyclic
        (srun(1, 2, 2, SLURM_STEP_NUM_NODES=0), ["SLURM_STEP_NUM_NODES=0"]),
    ],
)
def test_an_uneven_step_is_refused(environment, fragments):
    with pytest.raises(UserError) as caught:
        found_rank(environment)
    for fragment in (*fragments, "equally many ranks on each machine", "use srun --ntasks-per-node=N"):
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    "environment",
    [
        torchrun(0, 2, 2, WORLD_SIZE=4, GROUP_WORLD_SIZE=3),  # 2, 1 and 1
        torchrun(2, 1, 4, GROUP_WORLD_SIZE=3),  # the same, seen from another machine
        torchrun(0, 2, 2, WORLD_SIZE=3),
        torchrun(5, 2, 2),
        torchrun(1, 2, 1, LOCAL_RANK=0),
        torchrun(3, 2, 2, LOCAL_WORLD_SIZE=None),
        torchrun(0, 2, 1, LOCAL_WORLD_SIZE=0),
        torchrun(0, 2, 1, WORLD_SIZE=0),
    ],
)
def test_contradictory_ranks_of_torchrun_are_refused(environment):
    with pytest.raises(UserError, match=r"^RANK=\d WORLD_SIZE=.*same --nproc-per-node, or unset"):
        found_rank(environment)


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        (torchrun(0, 2, 1, RANK="first"), "RANK='first'"),
        (torchrun(0, 2, 1, WORLD_SIZE=""), "WORLD_SIZE=''"),
        (torchrun(0, 2, 1, LOCAL_RANK=-1), "LOCAL_RANK='-1'"),
        (torchrun(0, 2, 1, LOCAL_WORLD_SIZE="2.0"), "LOCAL_WORLD_SIZE='2.0'"),
        (torchrun(0, 2, 1, GROUP_WORLD_SIZE="one"), "GROUP_WORLD_SIZE='one'"),
        (srun(0, 2, 1, SLURM_STEP_NUM_TASKS="2(x1)"), "SLURM_STEP_NUM_TASKS='2(x1)'"),
        (srun(0, 2, 1, SLURM_PROCID="zero"), "SLURM_PROCID='zero'"),
        (srun(0, 2, 1, SLURM_STEP_NUM_NODES=None), "SLURM_STEP_NUM_NODES=''"),
    ],
)
def test_values_that_are_no_numbers_are_refused(environment, fault):
    with pytest.raises(UserError) as caught:
        found_rank(environment)
    assert str(caught.value) == (
        f"the variable {fault} is not a number: start the command by torchrun or srun, or unset it"
    )


def test_who_only_reports_takes_a_refused_rank_for_one_that_is_alone(monkeypatch):
    for name, value in torchrun(0, 2, 1, RANK="first").items():
        monkeypatch.setenv(name, value)
    assert this_rank() == ALONE
