"""The optimiser of a method, from `OptimiserConfig`."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from mmdg_model.training.methods.contract import OptimiserConfig

#: Of `sgd`; the only value that the comparison methods of the literature use.
SGD_MOMENTUM = 0.9


def build_optimiser(parameters: Iterable[nn.Parameter], config: OptimiserConfig) -> torch.optim.Optimizer:
    """One group of all parameters.

    Weight decay acts on norms and biases like on all else: the paper names no exception (Section 4.1: Adam, 5e-5 and
    1e-3). `adam` adds the decay to the gradient (L2), `adamw` takes it from the weight. Either way it acts
    after gradients have been modulated, and not at all on a parameter whose `grad` is None.
    """
    rate, decay = config.learning_rate, config.weight_decay
    match config.name:
        case "adam":
            return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
        case _:
            return torch.optim.SGD(parameters, lr=rate, momentum=SGD_MOMENTUM, weight_decay=decay)
