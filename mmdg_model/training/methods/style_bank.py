"""Base styles of live faces and attacks (IADG, arXiv 2304.05640, categorical style assembly), as an epoch's constants.

A style is the mean and spread over the map of each channel. Of all training samples of a class the most different ones
are kept, by farthest point sampling; a new style is a mixture of them.

Legend: n styles, c channels, k kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mmdg_model.network import LIVE_COLUMN
from mmdg_model.training.compute import Compute
from mmdg_model.training.processes import gather_blobs

_KEYS = {0: "style_bank.attack", 1: "style_bank.live"}


def farthest_points(points_NC: Tensor, kept: int) -> Tensor:
    """Indices `int64 [min(n, kept)]` of points far from each other, greedily; equal points are never kept twice.

    The first is the farthest from the mean, each next one the farthest from all before it; of equal ones the first.
    So the choice does not depend on the points' order, unless distances are equal.
    """
    if not len(points_NC):
        return torch.zeros(0, dtype=torch.int64, device=points_NC.device)
    distance_N = (points_NC - points_NC.mean(dim=0)).square().sum(dim=1)
    chosen = [int(distance_N.argmax())]
    distance_N = (points_NC - points_NC[chosen[0]]).square().sum(dim=1)
    while len(chosen) < kept and float(distance_N.max()) > 0.0:
        chosen.append(int(distance_N.argmax()))
        distance_N = torch.minimum(distance_N, (points_NC - points_NC[chosen[-1]]).square().sum(dim=1))
    return torch.tensor(chosen, dtype=torch.int64, device=points_NC.device)


def styles_of(maps: Tensor) -> Tensor:
    """Mean and spread of each channel, `[b, 2, c]`, of maps `[b, c, s, s]`; without gradient."""
    variance, mean = torch.var_mean(maps.detach(), dim=(2, 3), correction=0)
    return torch.stack([mean, (variance + 1e-5).sqrt()], dim=1)


@dataclass(frozen=True, eq=False)
class StyleBank:
    """Base styles by label, `[k, 2, c]` each; none where no sample of the label was seen.

    Attributes:
        attack, live: mean and spread.
    """

    attack: Tensor
    live: Tensor

    @classmethod
    def of(cls, styles: Tensor, label: Tensor, *, kept: int, compute: Compute) -> Self:
        """The most different styles of each label over all processes, which all call it at the same time.

        Args:
            styles: `[n, 2, c]` of this process's samples. label: `int64 [n]`.
            kept: at most so many a label.
            compute: its processes are asked in order of rank.
        """
        banks = []
        for column in (1 - LIVE_COLUMN, LIVE_COLUMN):
            here = styles[label == column].double().cpu().contiguous()
            blobs = gather_blobs(here.numpy().tobytes(), compute)
            everywhere = torch.cat([torch.frombuffer(bytearray(blob), dtype=torch.float64).reshape(-1, *here.shape[1:])
                                    if blob else here[:0] for blob in blobs])
            chosen = farthest_points(everywhere.flatten(1), kept)
            banks.append(everywhere[chosen].to(styles))
        return cls(*banks)

    def mixed(self, own: Tensor, label: Tensor, *, drawn: bool) -> Tensor:
        """A new style for each sample, `[b, 2, c]`: a mixture of its label's base styles.

        Args:
            own: the samples' own styles, kept where the label has no base style.
            label: `int64 [b]`.
            drawn: mixtures from a Dirichlet distribution of concentration 1 / k, so that few styles dominate; False:
                equal parts of all.
        """
        found = own
        for column, bank in ((1 - LIVE_COLUMN, self.attack), (LIVE_COLUMN, self.live)):
            if not len(bank):
                continue
            # In double precision: shares this uneven underflow in single.
            share = torch.full((len(own), len(bank)), 1.0 / len(bank), dtype=torch.float64)
            if drawn:
                share = torch.distributions.Dirichlet(share).sample()
            mixture = torch.einsum("bk,kxc->bxc", share.to(own), bank.to(own))
            found = torch.where((label == column)[:, None, None], mixture, found)
        return found

    def state(self) -> dict[str, Tensor]:
        """As safetensors stores it."""
        return {_KEYS[0]: self.attack, _KEYS[1]: self.live}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], device: torch.device) -> Self:
        """Restores `state`; other entries are ignored.

        Raises:
            ValueError: missing entries.
        """
        if missing := [key for key in _KEYS.values() if key not in tensors]:
            raise ValueError(f"{missing[0]} is missing: this state was saved without base styles")
        return cls(tensors[_KEYS[0]].to(device), tensors[_KEYS[1]].to(device))
