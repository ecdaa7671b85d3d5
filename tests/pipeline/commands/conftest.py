"""For tests of commands that train."""

import pytest
import torch


@pytest.fixture
def threads_as_before():
    """A run sets torch's threads for its whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
