"""What all our methods share: a network, its optimiser, scores, repeatable draws, and the state of a resumed run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from mmdg_model.network import LIVE_COLUMN
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.methods.contract import MethodContext
from mmdg_model.training.methods.optimiser import build_optimiser
from mmdg_model.uncertainty import MonteCarloUncertainty

_UPDATES, _SEED = "method.updates", "method.seed"


class TrainedNetwork:
    """Base of methods with one network and one optimiser.

    Args:
        context: see `MethodContext`.
        network: with `requires_grad` set; moved to the context's device.

    Attributes:
        network, optimisers: see `Method`.
        trainable: parameters that train, by name.
        updates: how many were made so far.
    """

    def __init__(self, context: MethodContext, network: nn.Module) -> None:
        self.context = context
        self.compute = context.compute
        self.network = network.to(context.compute.device)
        self.trainable = {name: parameter for name, parameter in self.network.named_parameters()
                          if parameter.requires_grad}
        self.optimisers: Mapping[str, torch.optim.Optimizer] = {
            "network": build_optimiser(self.trainable.values(), context.optimiser)}
        self.updates = 0

    def logits(self, planes: Tensor, present: Tensor) -> Tensor:
        """`[b, 2]` of the network, column `LIVE_COLUMN` for bona fide. For networks that return more than logits."""
        logits: Tensor = self.network(planes, present).logits
        return logits

    @torch.no_grad()
    def score(self, planes: Tensor, present: Tensor) -> Tensor:
        """As `Method.score`; in full precision whatever training uses: half of it would put scores on a coarse grid."""
        device = self.compute.device
        with evaluation_mode(self.network), torch.autocast(device.type, enabled=False):
            logits = self.logits(planes.to(device), present.to(device))
        return (logits[:, LIVE_COLUMN] - logits[:, 1 - LIVE_COLUMN]).float()

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The number of updates, from which the draws of the next one follow."""
        return {}, {_UPDATES: str(self.updates), _SEED: str(self.context.seed)}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restores `state`.

        Raises:
            ValueError: an entry is missing, or the state belongs to a run with another seed.
        """
        if missing := [key for key in (_UPDATES, _SEED) if key not in metadata]:
            raise ValueError(f"{missing[0]} is missing: this is no state of a training method")
        if metadata[_SEED] != str(self.context.seed):
            raise ValueError(f"{_SEED} is {metadata[_SEED]}, expected {self.context.seed}: the state of another run")
        self.updates = int(metadata[_UPDATES])

    @contextmanager
    def training_pass(self) -> Iterator[None]:
        """Around the forward passes of one update: training mode, and draws that depend on nothing but their place.

        Dropout and sampled certainty are drawn from (seed, process, update), so a resumed run draws what the
        uninterrupted one would have drawn. Generators outside are left as they are.
        """
        self.network.train()
        key = np.random.SeedSequence([self.context.seed, self.compute.rank, self.updates]).generate_state(2)
        seed = int(key[0]) << 31 | int(key[1]) >> 1
        sampled = [module for module in self.network.modules() if isinstance(module, MonteCarloUncertainty)]
        seeds = [module.seed for module in sampled]
        device = self.compute.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            try:
                for module in sampled:
                    module.seed = seed
                    module.start_pass()
                yield
            finally:
                for module, before in zip(sampled, seeds, strict=True):
                    module.seed = before

    def step(self) -> bool:
        """Lets the optimiser act on the assigned gradients; False when a loss scale made it leave the step out."""
        applied = self.compute.apply(self.optimisers["network"])
        self.updates += 1
        return applied

    def require_finite(self, losses: Mapping[str, float]) -> None:
        """Raises `TrainingDiverged` where a loss is NaN or infinite; losses are not scaled, so no scale cures it."""
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingDiverged(f"{name} is {value} at update {self.updates}; lower the learning rate, or train "
                                       "in bf16-mixed or 32-true")


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and as it was before afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
