"""One torch thread: small tensors, and the machine is shared with other tests."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)
