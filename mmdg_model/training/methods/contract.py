"""What every training method is to the trainer, the benchmark and the tests: `update(batches)`, `score(...)`, a state.

A method is one file here and one row in `registry.METHODS`. It owns its network, its losses and its optimisers; it
knows nothing of files, epochs' bookkeeping, protocols, launchers or progress bars.

Legend: b batch, m modalities (order of `network.MODALITIES`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from mmdg_model.checkpoint import Checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.inputs import InputSpecification
from mmdg_model.training.compute import Compute
from mmdg_model.training.ssp_loss import DomainClasses
from mmdg_model.weights.backbone import Backbone


class MethodError(ValueError):
    """No such method, settings that it does not have, or a start from which it cannot train; with the remedy."""


class TrainingBatch(NamedTuple):
    """Samples of one process, on the method's device.

    Attributes:
        planes: `float32 [b, m, 3, S, S]` as `inputs.prepare` makes it.
        present: `bool [b, m]`.
        label: `int64 [b]`, `network.LIVE_COLUMN` for live.
        domain: `int64 [b]`, row of each sample (`DomainClasses.row`): 0 for live, 1 + source for attacks.
        source: `int64 [b]`, index of each sample's data set in `DomainClasses.sources`, live or not.
    """

    planes: Tensor
    present: Tensor
    label: Tensor
    domain: Tensor
    source: Tensor

    def to(self, device: torch.device) -> Self:
        return type(self)(*(tensor.to(device, non_blocking=True) for tensor in self))


@dataclass(frozen=True, kw_only=True)
class OptimiserConfig:
    """Of the paper unless a recipe says otherwise (arXiv 2402.19298, Section 4.1): Adam, constant rate.

    Attributes:
        name: `adam` (L2 added to the gradient, as in the paper), `adamw` (decoupled), `sgd` (momentum 0.9).
        learning_rate, weight_decay: the paper's 5e-5 and 1e-3.
        warmup_updates: updates over which the rate rises linearly to its value; 0 for none (paper).
        final_rate_share: share of the rate left at the last update, by a half cosine; 1 keeps it constant (paper).

    Raises:
        ValueError: a value out of range.
    """

    name: str = "adam"
    learning_rate: float = 5e-5
    weight_decay: float = 1e-3
    warmup_updates: int = 0
    final_rate_share: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in ("adam", "adamw", "sgd"):
            raise ValueError(f"optimiser.name is {self.name!r}, expected adam, adamw or sgd")
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"optimiser.learning_rate is {self.learning_rate!r}, expected a positive number")
        if not 0.0 <= self.weight_decay < float("inf"):
            raise ValueError(f"optimiser.weight_decay is {self.weight_decay!r}, expected at least 0")
        if self.warmup_updates < 0:
            raise ValueError(f"optimiser.warmup_updates is {self.warmup_updates!r}, expected at least 0")
        if not 0.0 <= self.final_rate_share <= 1.0:
            raise ValueError(f"optimiser.final_rate_share is {self.final_rate_share!r}, expected 0 to 1")


@dataclass(frozen=True, kw_only=True)
class MethodContext:
    """What a method is built from.

    Attributes:
        model: shape and choices of the network; methods with another network take from it what they can.
        inputs: what the network eats.
        classes: domain classes of the training sources.
        optimiser: see `OptimiserConfig`.
        backbone: pretrained ViT to start from; None starts from random weights (then everything must train).
        start: a checkpoint of the same network, all of whose weights training starts from; None for none.
        compute: device, precision and processes.
        seed: of initial weights and of whatever the method draws.
        weights_follow: all weights are about to be replaced (a finished run's are loaded to score, or the network is
            only measured), so that a method which must start from pretrained ones is built without them.
    """

    model: ModelConfig
    inputs: InputSpecification
    classes: DomainClasses
    optimiser: OptimiserConfig
    backbone: Backbone | None
    compute: Compute
    seed: int
    start: Checkpoint | None = None
    weights_follow: bool = False


#: What to log of an update or an epoch: name, such as `loss/cross_entropy` or `ssp/rgb`, to a number (NaN: none today).
Scalars = Mapping[str, float]


class Method(Protocol):
    """A network in training. Construction puts it on `context.compute.device`, equal in all processes."""

    @property
    def network(self) -> nn.Module:
        """With `requires_grad` set for what trains. Its `state_dict` is what an epoch's checkpoint keeps."""
        ...

    @property
    def optimisers(self) -> Mapping[str, torch.optim.Optimizer]:
        """By name; the trainer schedules their learning rates and saves their states."""
        ...

    def start_epoch(self, epoch: int, clean_batches: Callable[[], Iterable[TrainingBatch]]) -> Scalars:
        """Before an epoch's first update. All processes call it at the same time.

        Args:
            epoch: counts from 0.
            clean_batches: a pass over this process's part of the training samples, not augmented, with all the
                modalities they have; costs a pass of decoding, so only call it if the method needs it.

        Returns:
            What to log of it, for example the variance of the prototypes.
        """
        ...

    def update(self, batches: Sequence[TrainingBatch]) -> Scalars:
        """One optimiser step on the mean loss over all samples of all batches of all processes.

        Batches are the accumulated parts of the step and may differ in size; in a process whose share has run out
        the sequence is empty. Leaves the network in training mode.

        Returns:
            Losses and what else to log, equal in all processes; at least `loss/total`.

        Raises:
            TrainingDiverged: a loss or gradient is not finite.
        """
        ...

    def score(self, planes: Tensor, present: Tensor) -> Tensor:
        """`float32 [b]`: logit(bona fide) - logit(attack); larger means more like a live face.

        Without gradient, in evaluation mode, deterministic, each sample by itself (its score does not depend on the
        rest of the batch but for rounding). The network's mode is as before afterwards.
        """
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """What else than network and optimisers a resumed run needs (prototypes, generators): tensors and text."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restores `state`; other entries are ignored.

        Raises:
            ValueError: missing entries, or a state of another run.
        """
        ...
