"""Means over unequal batches, terms, and tensors that not every batch reaches."""

import pytest
import torch
from torch import nn

from mmdg_model.training.methods.mean_gradients import MeanGradients


def two_parameters():
    torch.manual_seed(0)
    return {"both": nn.Parameter(torch.randn(3).double()), "second": nn.Parameter(torch.randn(3).double())}


def loss_of(parameters, rows, *, second=True):
    loss = (rows @ parameters["both"]).square().mean()
    return {"fit": loss, "size": 0.1 * parameters["second"].square().sum() if second else 0.0 * loss}


def test_unequal_batches_give_the_gradient_of_the_mean_over_samples():
    parameters, rows = two_parameters(), torch.randn(8, 3, dtype=torch.float64)
    loss = loss_of(parameters, rows)
    (loss["fit"] + loss["size"]).backward()
    gathered = MeanGradients.empty(parameters, ("fit", "size"))
    for part in rows.split([1, 5, 2]):
        gathered.add(loss_of(parameters, part), samples=len(part), loss_scale=4.0)
    for name, parameter in parameters.items():
        torch.testing.assert_close(gathered.gradients[name] / 4.0, parameter.grad)
    assert gathered.mean_losses() == pytest.approx({name: float(value.detach()) for name, value in loss.items()})


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_batch_that_does_not_reach_a_tensor_counts_as_zeros(order):
    parameters, rows = two_parameters(), torch.randn(4, 3, dtype=torch.float64)
    gathered = MeanGradients.empty(parameters, ("fit", "size"))
    for reaches, part in zip(order, rows.split([1, 3]), strict=True):
        gathered.add(loss_of(parameters, part, second=reaches), samples=len(part))
    share = (1 if order[0] else 3) / 4
    torch.testing.assert_close(gathered.gradients["second"], share * 0.2 * parameters["second"].detach())


def test_a_tensor_that_nothing_reaches_has_no_gradient():
    parameters = two_parameters()
    gathered = MeanGradients.empty(parameters, ("fit", "size"))
    gathered.add(loss_of(parameters, torch.ones(2, 3).double(), second=False), samples=2)
    assert set(gathered.gradients) == {"both"}


def test_what_makes_no_mean_is_refused():
    parameters = two_parameters()
    gathered = MeanGradients.empty(parameters, ("fit",))
    loss = loss_of(parameters, torch.ones(2, 3).double())
    with pytest.raises(ValueError, match="has the terms fit, size, declared are fit"):
        gathered.add(loss, samples=2)
    with pytest.raises(ValueError, match="no sample"):
        gathered.add({"fit": loss["fit"]}, samples=0)
    with pytest.raises(ValueError, match="no sample"):
        gathered.mean_losses()
