"""Plain values between ranks."""

from __future__ import annotations

import pytest
import torch
from ranks_here import run_ranks
from world_targets import meet, wait_in_vain

from mohge.errors import UserError
from mohge.parallel import world


def test_ranks_tell_each_other(tmp_path):
    ranks = run_ranks(meet, 3, tmp_path)
    for index, rank in enumerate(ranks):
        assert rank["first"] == "from rank 0"
        assert rank["calls"] == ([0] if index == 0 else []), "the others do not do it"
        assert rank["refused"] == "UserError: the disk is full: free space"
        assert "a reason" in rank["failed"]
        assert (rank["left"], rank["left by"]) == ("Interrupted: SIGINT received", 2)
        assert rank["sum"] == [3, 30]
        assert rank["maximum"] == 7
        assert rank["gathered"] == [0, 2, 4]
        assert rank["was_there"] == (index > 0), "one of a machine prepares before the others"


def test_a_rank_that_is_late_is_called_lost():
    waited = run_ranks(wait_in_vain, 2)[0]
    assert 0.5 < waited < 5, "groups made before obey too"


def test_a_process_that_is_alone_needs_no_others():
    def refuse() -> None:
        raise UserError("no")

    assert world.first(lambda: 3) == 3
    with pytest.raises(UserError, match="no"):
        world.first(refuse)
    tensor = torch.ones(2)
    world.add_over_ranks(tensor)
    assert tensor.tolist() == [1, 1]
    assert world.maximum_over_ranks(5) == 5
    assert world.gather("a") == ["a"]
    world.barrier()
    world.wait_at_most(1)
    world.disconnect()
