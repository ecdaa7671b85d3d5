"""A network of which everything trains leaves an empty file of frozen tensors, and that file can be read."""

import torch

from mmdg_model.training.run_directory import RunDirectory


def test_an_epoch_of_a_network_that_trains_whole_comes_back(tmp_path):
    state = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
    directory = RunDirectory(tmp_path)
    saved = directory.save_epoch(0, state, set(state))
    loaded, found = directory.load_epoch(0)
    assert found == saved
    assert all(torch.equal(loaded[name], state[name]) for name in state)
