"""Did the network learn to fill in? Its errors on validation crops beside those of the mean patch, a constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mmdg_model.network import MODALITIES
from mmdg_model.training.pretraining.crops import UnlabelledCrops
from mmdg_model.training.pretraining.masked_autoencoder import (
    Errors,
    MaskedAutoencoder,
    MaskedBatch,
    Reconstruction,
    as_patches,
)

_BATCH = 32


@dataclass(frozen=True)
class MeanTargets:
    """Means over training crops, at each place of the image: what a network that sees nothing can know.

    Attributes:
        patches: `[m, n, p]`, normalised. patch_means: `[m, n, 3]`. NaN for a modality that no crop has.
    """

    patches: Tensor
    patch_means: Tensor


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A mean squared error over `images` images beside those of two constants.

    Attributes:
        flat_baseline: of saying 0: every patch in its own mean colour; for patch means, mid grey.
        mean_baseline: of the mean over training crops at that place. Faces are aligned: it is a face already.
        explained: 1 - error / baseline: 0 for a network that knows no more than the mean, 1 for a perfect one; None
            where the mean is perfect already.
    """

    images: int
    error: float
    flat_baseline: float
    mean_baseline: float
    explained: float | None


def mean_targets(network: MaskedAutoencoder, crops: UnlabelledCrops) -> MeanTargets:
    """Of crops that are not augmented."""
    config = network.config
    modalities, patches = len(MODALITIES), config.grid**2
    sums = torch.zeros(modalities, patches, 3 * config.patch_size**2, dtype=torch.float64)
    means = torch.zeros(modalities, patches, 3, dtype=torch.float64)
    count = torch.zeros(modalities, dtype=torch.float64)
    for batch in _batches(network, crops, seed=0):
        targets, patch_means = _targets(network, batch)
        seen = batch.present.double()
        sums += torch.einsum("bm,bmnp->mnp", seen, targets.double())
        means += torch.einsum("bm,bmnc->mnc", seen, patch_means.double())
        count += seen.sum(dim=0)
    return MeanTargets((sums / count[:, None, None]).float(), (means / count[:, None, None]).float())


def evaluate(network: MaskedAutoencoder, crops: UnlabelledCrops, mean: MeanTargets, *,
             seed: int) -> dict[str, dict[str, Any]]:
    """Errors on crops, not augmented, with masks that the seed alone decides; in float32.

    Returns:
        `masked` by modality; `class_token` by modality of the image, over its own patch means; `cross_modal` by
        `<seen>_to_<wanted>`, empty where the objective does not ask for it. Each a `Comparison` as plain values.
    """
    found: dict[str, dict[str, list[Tensor]]] = {"masked": {}, "class_token": {}, "cross_modal": {}}
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            for batch in _batches(network, crops, seed=seed):
                made = network(batch.to(next(network.parameters()).device))
                made = Reconstruction(*(tensor.cpu() for tensor in made))
                _add(found, network, batch, made, network.errors(batch, made), mean)
    finally:
        network.train(training)
    return {what: {name: asdict(_comparison(torch.cat(rows))) for name, rows in sorted(each.items())}
            for what, each in found.items()}


def _add(found: dict[str, dict[str, list[Tensor]]], network: MaskedAutoencoder, batch: MaskedBatch,
         made: Reconstruction, errors: Errors, mean: MeanTargets) -> None:
    """Adds `[rows, 3]` of error, flat and mean baseline under each name."""
    targets, patch_means = _targets(network, batch)
    own = targets[made.sample, made.modality]
    squared = (own - mean.patches[made.modality]).square().mean(dim=2)
    baseline, flat = ((values * made.hidden).sum(dim=1) / made.hidden.sum(dim=1)
                      for values in (squared, own.square().mean(dim=2)))
    own_means = patch_means[made.sample, made.modality]
    predicted = made.patch_means[torch.arange(len(own_means)), made.modality]
    by_token = torch.stack([(predicted - own_means).square().mean(dim=(1, 2)), own_means.square().mean(dim=(1, 2)),
                            (mean.patch_means[made.modality] - own_means).square().mean(dim=(1, 2))], dim=1)
    for index, modality in enumerate(MODALITIES):
        rows = made.modality == index
        if bool(rows.any()):
            found["masked"].setdefault(str(modality), []).append(
                torch.stack([errors.masked[rows], flat[rows], baseline[rows]], dim=1))
            found["class_token"].setdefault(str(modality), []).append(by_token[rows])
    for row, error in zip(errors.across_rows.tolist(), errors.across, strict=True):
        wanted = int(made.other[row])
        true = targets[made.sample[row], wanted]
        floors = [values.square().mean() for values in (true, true - mean.patches[wanted])]
        name = f"{MODALITIES[int(made.modality[row])]}_to_{MODALITIES[wanted]}"
        found["cross_modal"].setdefault(name, []).append(torch.stack([error, *floors])[None])


def _comparison(rows: Tensor) -> Comparison:
    error, flat, baseline = (float(value) for value in rows.double().mean(dim=0))
    return Comparison(images=len(rows), error=error, flat_baseline=flat, mean_baseline=baseline,
                      explained=1.0 - error / baseline if baseline > 0.0 else None)


def _targets(network: MaskedAutoencoder, batch: MaskedBatch) -> tuple[Tensor, Tensor]:
    """Normalised patches `[b, m, n, p]` and patch means `[b, m, n, 3]`."""
    return network.normalised(as_patches(batch.planes, network.config.patch_size))


def _batches(network: MaskedAutoencoder, crops: UnlabelledCrops, *, seed: int) -> Iterator[MaskedBatch]:
    for start in range(0, len(crops), _BATCH):
        yield crops.clean_batch(range(start, min(start + _BATCH, len(crops))), seed=seed, visible=network.visible,
                                grid=network.config.grid)
