"""What of the CUDA backend can be judged without a GPU: how batches are cut, and that absence is explained."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmdg_model.backends.cuda_engine import CAPTURED_BATCHES, split_batch, unavailable_because


@given(st.integers(1, 200))
def test_pieces_cover_the_batch_in_order_with_captured_sizes(size):
    pieces = split_batch(size)
    assert sum(rows for rows, _ in pieces) == size
    assert all(0 < rows <= batch and batch in CAPTURED_BATCHES for rows, batch in pieces)
    assert all(batch < 2 * rows for rows, batch in pieces)  # less than half of a graph's rows are padding


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_absence_is_explained():
    assert "CUDA" in unavailable_because()
