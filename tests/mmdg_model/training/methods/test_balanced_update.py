"""Ratios of modalities by hand."""

import pytest
import torch

from mmdg_model.training.methods.balanced_update import confidence_ratios


@pytest.mark.parametrize(("sums", "counts", "expected"), [
    ([1.6, 0.8, 0.4], [2, 2, 2], [0.8 / 0.3, 0.4 / 0.5, 0.2 / 0.6]),  # means 0.8, 0.4, 0.2
    ([1.6, 0.4, 0.4], [2, 1, 2], [0.8 / 0.3, 0.4 / 0.5, 0.2 / 0.6]),  # by the samples that have the modality
    ([1.6, 0.8, 0.0], [2, 2, 0], [2.0, 0.5, 1.0]),  # with two it is the papers' ratio
    ([1.6, 0.0, 0.0], [2, 0, 0], [1.0, 1.0, 1.0]),  # nothing to compare with
    ([0.0, 0.0, 0.0], [0, 0, 0], [1.0, 1.0, 1.0]),
])
def test_a_modality_is_compared_with_the_mean_of_the_others(sums, counts, expected):
    found = confidence_ratios(torch.tensor(sums, dtype=torch.float64), torch.tensor(counts, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
