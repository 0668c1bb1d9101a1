"""One invented sweep for all tests that need its folder: write nothing into it."""

from __future__ import annotations

from pathlib import Path

import pytest
from invented_sweeps import write_sweep

BITS = {
    "moe": {1: 2.0, 2: 2.1, 3: 2.2},
    "mohge": {1: 2.01, 2: 2.13, 3: 2.22},
    "none": {1: 2.0, 2: 2.12, 3: 2.21},
    "much": {1: 2.1, 2: 2.2, 3: 2.29},
    "dense": {1: 2.2, 2: 2.3},
}
OVERRIDES = {
    "moe": ["arch=moe"],
    "mohge": ["arch=mohge"],
    "none": ["arch=mohge", "loss.group_weight=0"],
    "much": ["arch=mohge", "loss.group_weight=0.5"],
    "dense": ["arch=dense"],
}


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five arms, three seeds; the third cell of dense has not begun."""
    folder = tmp_path_factory.mktemp("sweeps") / "invented"
    contrasts = {"group loss": [["mohge", "none"]]}
    return write_sweep(folder, BITS, OVERRIDES, contrasts=contrasts)
