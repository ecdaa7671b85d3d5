"""A small convolutional network as a probe: does anything in these pictures tell the labels apart?

About 15,000 weights, trained in seconds on a processor core. It is no detector: it is as strong as a probe must be to
see a watermark of a rendering path, and weak enough not to learn people by heart.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

_BATCH, _RATE, _DECAY = 64, 3e-3, 1e-2


class SmallCnn(nn.Module):
    """Three convolutions with pooling, then all 4 x 4 places of each map. `[b, c, s, s]` -> logits `[b]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, 16, 32, 32)
        self.layers = nn.ModuleList(nn.Conv2d(before, after, 3, padding=1)
                                    for before, after in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for width in widths[1:])
        self.head = nn.Linear(16 * widths[-1], 1)

    def forward(self, planes: Tensor) -> Tensor:
        """Logits; larger is more like the positive label."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            planes = F.max_pool2d(F.relu(norm(layer(planes))), 2)
        logits: Tensor = self.head(F.adaptive_avg_pool2d(planes, 4).flatten(1))
        return logits.squeeze(1)


def held_out_scores(planes: NDArray[np.uint8], positive: NDArray[np.bool_], fold: NDArray[np.int64], *,
                    steps: int = 300, seed: int = 0) -> NDArray[np.float64]:
    """Logit of each row by a network that saw no row of its fold, `[n]`.

    Args:
        planes: `uint8 [n, s, s, c]`, s a multiple of 8. positive: labels `[n]`, both in every training part.
        fold: `[n]`. steps: of training, for each fold.

    Raises:
        ValueError: planes of another shape, or a fold whose training part has one label only.
    """
    if planes.ndim != 4 or planes.shape[1] != planes.shape[2] or planes.shape[1] % 8:
        raise ValueError(f"planes of shape {planes.shape}; expected [n, s, s, c] with s a multiple of 8")
    scores = np.zeros(len(planes))
    for one in np.unique(fold):
        test = fold == one
        if positive[~test].all() or not positive[~test].any():
            raise ValueError(f"fold {one}: the other folds hold one label only; use fewer folds or more data")
        network, mean, spread = _trained(planes[~test], positive[~test], steps, seed + int(one))
        scores[test] = _scored(network, planes[test], mean, spread)
    return scores


def scores_of_others(train: NDArray[np.uint8], positive: NDArray[np.bool_], test: NDArray[np.uint8], *,
                     steps: int = 300, seed: int = 0) -> NDArray[np.float64]:
    """Logits of `test` `[m]` by a network trained on `train`; shapes as in `held_out_scores`."""
    network, mean, spread = _trained(train, positive, steps, seed)
    return _scored(network, test, mean, spread)


def _inputs(planes: NDArray[np.uint8], mean: Tensor, spread: Tensor) -> Tensor:
    return (torch.from_numpy(planes).permute(0, 3, 1, 2).float() - mean) / spread


def _trained(planes: NDArray[np.uint8], positive: NDArray[np.bool_], steps: int,
             seed: int) -> tuple[SmallCnn, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallCnn(planes.shape[3])
    values = torch.from_numpy(planes).float()
    mean, spread = values.mean(dim=(0, 1, 2))[:, None, None], values.std(dim=(0, 1, 2))[:, None, None] + 1e-3
    inputs, labels = _inputs(planes, mean, spread), torch.from_numpy(positive).float()
    sides = [torch.nonzero(labels == side).squeeze(1) for side in (0, 1)]
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_RATE, total_steps=steps)
    for _ in range(steps):
        # As many of one label as of the other.
        rows = torch.cat([side[torch.randint(len(side), (_BATCH // 2,), generator=generator)] for side in sides])
        batch = inputs[rows]
        if torch.rand((), generator=generator) < 0.5:
            batch = batch.flip(3)
        loss = F.binary_cross_entropy_with_logits(network(batch), labels[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return network.eval(), mean, spread


@torch.no_grad()
def _scored(network: SmallCnn, planes: NDArray[np.uint8], mean: Tensor, spread: Tensor) -> NDArray[np.float64]:
    parts = [network(_inputs(planes[start:start + 512], mean, spread)) for start in range(0, len(planes), 512)]
    return torch.cat(parts).double().numpy()
