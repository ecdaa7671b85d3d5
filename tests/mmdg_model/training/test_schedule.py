"""The learning rate as a function of the update."""

import pytest
import torch

from mmdg_model.training.methods.contract import OptimiserConfig
from mmdg_model.training.schedule import Schedule, rate_share


@pytest.mark.parametrize(("config", "update", "total", "share"), [
    ({}, 0, 10, 1.0), ({}, 9, 10, 1.0),  # the paper's: constant
    ({"warmup_updates": 4}, 0, 10, 0.25), ({"warmup_updates": 4}, 3, 10, 1.0), ({"warmup_updates": 4}, 9, 10, 1.0),
    ({"final_rate_share": 0.0}, 0, 11, 1.0), ({"final_rate_share": 0.0}, 5, 11, 0.5),
    ({"final_rate_share": 0.0}, 10, 11, 0.0), ({"final_rate_share": 0.2}, 10, 11, 0.2),
    ({"warmup_updates": 2, "final_rate_share": 0.1}, 2, 9, 1.0),
    ({"warmup_updates": 2, "final_rate_share": 0.1}, 8, 9, 0.1),
    ({"warmup_updates": 5, "final_rate_share": 0.1}, 4, 5, 1.0),  # nothing is left after the warm-up
    ({"final_rate_share": 0.5}, 0, 1, 1.0),
])
def test_share(config, update, total, share):
    assert rate_share(OptimiserConfig(**config), update, total) == pytest.approx(share, abs=1e-12)


def test_every_group_keeps_its_own_first_rate():
    first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimiser = torch.optim.SGD([{"params": [first], "lr": 1.0}, {"params": [second], "lr": 0.1}])
    schedule = Schedule(optimiser, OptimiserConfig(warmup_updates=4), 10)
    schedule.set(7)
    assert schedule.set(1) == 0.5
    assert [group["lr"] for group in optimiser.param_groups] == [0.5, 0.05]
