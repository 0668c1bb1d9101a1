"""A run as one of the ranks that train together."""

from __future__ import annotations

import logging
import sys

import torch

from mohge.config.schema import TrainConfig
from mohge.errors import disk_refusal
from mohge.parallel.ranks import Rank, this_rank
from mohge.parallel.world import connect, disconnect
from mohge.training.device import device_of
from mohge.training.run import train
from mohge.training.run_folder import RunFolder


def train_rank(job: tuple[TrainConfig, list[str]]) -> None:
    """Trains as a rank that our own launcher has started.

    Args:
        job: the configuration, with the run's folder in it, and the overrides of the command line.
    """
    config, overrides = job
    rank = this_rank()
    speaker = "" if rank.is_first else f"rank {rank.index}: "
    logging.basicConfig(level=logging.INFO, format=f"{speaker}%(message)s", stream=sys.stdout)
    prepare_rank(config, rank)
    connect(rank, device_of(config.trainer, rank.local_world).type)
    assert config.paths.run_dir is not None, "the launcher has settled it"
    try:
        train(config, RunFolder(config.paths.run_dir), overrides, rank)
    except OSError as error:
        raise disk_refusal(error) or error from error
    disconnect()  # not after a failure: it could wait for others, and the launcher for the report


def prepare_rank(config: TrainConfig, rank: Rank) -> None:
    """Shares the machine's cores among its ranks, and leaves the talking to the first one."""
    if not rank.is_first:
        logging.getLogger().setLevel(logging.WARNING)
    torch.set_num_threads(max(1, torch.get_num_threads() // rank.local_world))
