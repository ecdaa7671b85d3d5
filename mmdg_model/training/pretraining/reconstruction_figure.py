"""The picture of what a pretrained network fills in: validation crops, one line an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmdg_model.network import MODALITIES
from mmdg_model.training.pretraining.crops import UnlabelledCrops
from mmdg_model.training.pretraining.masked_autoencoder import (
    LEVELS_PER_UNIT,
    MaskedAutoencoder,
    MaskedBatch,
    Reconstruction,
    as_images,
    as_patches,
)

_CAPTIONS = ("crop", "seen by the encoder", "hidden patches filled in\n(true mean and contrast lent)",
             "patch means,\nfrom the class token alone", "the other modality, from what was seen\n(no true value lent)",
             "the other modality, true")


def draw_reconstructions(path: Path, network: MaskedAutoencoder, crops: UnlabelledCrops, *, seed: int, title: str,
                         samples: int = 3) -> None:
    """Writes a PNG of crops spread over the list, every modality that they have.

    Targets are normalised per patch, so a filled-in patch has no brightness of its own: in the third column it has the
    true one's mean and contrast, as in MAE's own figures. The fifth column lends nothing: means are those the class
    token predicts, contrasts the modality's average.

    Raises:
        ModuleNotFoundError: without matplotlib, naming the extra.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("figures need matplotlib: pip install 'mmdg-live[engine]'",
                                  name="matplotlib") from error

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    places = [int(place) for place in np.unique(np.linspace(0, len(crops) - 1, samples).astype(np.int64))]
    batch = crops.clean_batch(places, seed=seed, visible=network.visible, grid=network.config.grid)
    made = _made(network, batch)
    lines = _pictures(network, batch, made)
    figure, axes = plt.subplots(len(lines), len(_CAPTIONS), figsize=(2.0 * len(_CAPTIONS), 2.05 * len(lines) + 1.0),
                                layout="constrained", squeeze=False)
    for row, (line, pictures) in enumerate(zip(axes, lines, strict=True)):
        own, other = (MODALITIES[int(which[row])] for which in (made.modality, made.other))
        for column, (axis, picture) in enumerate(zip(line, pictures, strict=True)):
            _draw(axis, picture)
            if row == 0:
                axis.set_title(_CAPTIONS[column], fontsize=8)
        line[0].set_ylabel(f"{own}", fontsize=9)
        line[4].set_xlabel(f"{own} to {other}" if pictures[4] is not None else "not asked for", fontsize=8)
    figure.suptitle(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _made(network: MaskedAutoencoder, batch: MaskedBatch) -> Reconstruction:
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            made = network(batch.to(next(network.parameters()).device))
    finally:
        network.train(training)
    return Reconstruction(*(tensor.cpu().float() if tensor.is_floating_point() else tensor.cpu() for tensor in made))


def _pictures(network: MaskedAutoencoder, batch: MaskedBatch,
              made: Reconstruction) -> list[list[NDArray[np.float32] | None]]:
    """Of each image the six columns, `[S, S, 3]` in 0..1; None where there is nothing to show."""
    config, floor = network.config, network.objective.variance_floor_levels / LEVELS_PER_UNIT
    raw = as_patches(batch.planes, config.patch_size)
    mean = raw.mean(dim=-1, keepdim=True)
    contrast = (raw.var(dim=-1, keepdim=True, correction=0) + floor**2).sqrt()
    seen = batch.present[:, :, None, None].float()
    usual = (contrast * seen).sum(dim=(0, 2)) / (seen.sum(dim=(0, 2)) * raw.shape[2]).clamp(min=1.0)  # [m, 1]
    area = config.patch_size**2
    lines: list[list[NDArray[np.float32] | None]] = []
    for row in range(len(made.sample)):
        sample, own, other = int(made.sample[row]), int(made.modality[row]), int(made.other[row])
        true, hidden = raw[sample, own], made.hidden[row][:, None]
        filled = torch.where(hidden, made.own[row] * contrast[sample, own] + mean[sample, own], true)
        line = [true, torch.where(hidden, torch.zeros_like(true), true), filled,
                made.patch_means[row, own].repeat_interleave(area, dim=1)]
        if len(made.across) and other != own:
            guessed = made.patch_means[row, other].repeat_interleave(area, dim=1)
            line += [made.across[row] * usual[other] + guessed, raw[sample, other]]
        pictures: list[NDArray[np.float32] | None] = [_picture(patches, config.patch_size, config.image_size)
                                                      for patches in line]
        lines.append(pictures + [None] * (len(_CAPTIONS) - len(pictures)))
    return lines


def _picture(patches: Tensor, patch_size: int, image_size: int) -> NDArray[np.float32]:
    """Planes run from -1 to 1."""
    image = as_images(patches[None], patch_size, image_size)[0].permute(1, 2, 0)
    picture: NDArray[np.float32] = ((image + 1.0) / 2.0).clamp(0.0, 1.0).numpy()
    return picture


def _draw(axis: Any, picture: NDArray[np.float32] | None) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    if picture is None:
        axis.set_facecolor("0.85")
        axis.set_aspect("equal")
    else:
        axis.imshow(picture, vmin=0.0, vmax=1.0)
