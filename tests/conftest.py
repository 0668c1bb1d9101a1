"""Being here, it puts this folder on sys.path, so that tests can import the helpers beside it."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run side by side: more threads than cores would slow them all."""
    torch.set_num_threads(1)
