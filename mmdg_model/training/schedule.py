"""The learning rate as a pure function of the update's number, so that a resumed run has nothing to restore."""

from __future__ import annotations

import math

import torch

from mmdg_model.training.methods.contract import OptimiserConfig


def rate_share(config: OptimiserConfig, update: int, total: int) -> float:
    """Share of the learning rate that holds in an update: linear warm-up, then constant or a half cosine.

    Args:
        config: `warmup_updates` and `final_rate_share`.
        update: from 0.
        total: of the run; the last update, `total - 1`, has `final_rate_share`.
    """
    if update < config.warmup_updates:
        return (update + 1) / config.warmup_updates
    progress = (update - config.warmup_updates) / max(1, total - 1 - config.warmup_updates)
    cosine = (1.0 + math.cos(math.pi * min(1.0, progress))) / 2.0
    return config.final_rate_share + (1.0 - config.final_rate_share) * cosine


class Schedule:
    """Sets the rate of every group of an optimiser to its own first rate times the share of the update."""

    def __init__(self, optimiser: torch.optim.Optimizer, config: OptimiserConfig, total: int) -> None:
        self._optimiser, self._config, self._total = optimiser, config, total
        self._first_rates = [float(group["lr"]) for group in optimiser.param_groups]

    def set(self, update: int) -> float:
        """Before the update of that number, from 0; returns the first group's rate."""
        share = rate_share(self._config, update, self._total)
        for group, rate in zip(self._optimiser.param_groups, self._first_rates, strict=True):
            group["lr"] = rate * share
        return self._first_rates[0] * share
