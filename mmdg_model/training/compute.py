"""What a training method needs to know of the machine it runs on: device, precision, other processes.

Methods see this small contract and never a launcher, so that the same method runs in a unit test, on one GPU or on
several nodes. `SingleProcess` is the plain form; the trainer's own wraps Lightning Fabric.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import nn


class Compute(Protocol):
    """Device, autocast, loss scale and process group of a run."""

    @property
    def device(self) -> torch.device: ...

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    def autocast(self) -> AbstractContextManager[object]:
        """Around every forward pass and loss; does nothing in full precision."""
        ...

    @property
    def loss_scale(self) -> float:
        """Factor on every loss before gradients are taken; 1 but for float16."""
        ...

    def apply(self, optimizer: torch.optim.Optimizer) -> bool:
        """Unscales the `grad`s that the method has assigned (already joined over processes), and steps.

        Returns:
            False when a gradient was not finite under a loss scale and the step was left out, in all processes alike.

        Raises:
            TrainingDiverged: a gradient is not finite although no loss scale is in use.
        """
        ...


class TrainingDiverged(RuntimeError):  # noqa: N818 - it reports a state of the run, the field's word for it
    """A loss or gradient is NaN or infinite; the message says what and at which update, and what to try."""


def require_finite_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Raises `TrainingDiverged` where a gradient of the optimiser's parameters is NaN or infinite."""
    for group in optimizer.param_groups:
        for index, parameter in enumerate(group["params"]):
            if isinstance(parameter, nn.Parameter) and parameter.grad is not None and not bool(
                    torch.isfinite(parameter.grad).all()):
                raise TrainingDiverged(f"the gradient of parameter {index}, shape {tuple(parameter.shape)}, is not "
                                       "finite; lower the learning rate, or train in bf16-mixed or 32-true")


class SingleProcess:
    """One process, full precision. Implements `resume.ResumableCompute`."""

    rank = 0
    world_size = 1
    loss_scale = 1.0

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, enabled=False)

    def apply(self, optimizer: torch.optim.Optimizer) -> bool:
        require_finite_gradients(optimizer)
        optimizer.step()
        return True

    def state(self) -> dict[str, Any]:
        """Nothing: it has no loss scale."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
