import numpy as np
import pytest

from calibration.error_rates import auc, roc
from mmdg_model.probes.small_cnn import held_out_scores, scores_of_others


def pictures(number=80, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(60, 190, (number, 16, 16, 2)).astype(np.uint8), np.arange(number) % 2 == 0


def folds(number=80):
    return np.arange(number) // 2 % 2


def test_a_faint_grid_on_one_label_is_found_and_without_it_nothing_is():
    planes, positive = pictures()
    grid = np.where(np.indices((16, 16)).sum(axis=0) % 2 == 0, 24, 0)[..., None].astype(np.uint8)
    marked = planes.copy()
    marked[positive] += grid
    assert auc(roc(held_out_scores(marked, positive, folds(), steps=60), positive)) > 0.9
    assert abs(auc(roc(held_out_scores(planes, positive, folds(), steps=60), positive)) - 0.5) < 0.2


def test_equal_seeds_give_equal_scores_and_leave_the_global_generator_alone():
    import torch

    planes, positive = pictures(16)
    state = torch.random.get_rng_state()
    first = scores_of_others(planes, positive, planes[:4], steps=3, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (first == scores_of_others(planes, positive, planes[:4], steps=3, seed=1)).all()
    assert (first != scores_of_others(planes, positive, planes[:4], steps=3, seed=2)).any()


def test_what_cannot_be_crossed_is_refused():
    planes, positive = pictures(16)
    with pytest.raises(ValueError, match="one label only"):
        held_out_scores(planes, positive, np.where(positive, 0, 1), steps=1)
    with pytest.raises(ValueError, match="multiple of 8"):
        held_out_scores(planes[:, :12, :12], positive, folds(16), steps=1)
