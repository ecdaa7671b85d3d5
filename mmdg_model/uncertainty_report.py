"""Is the uncertainty good for anything? Three measurements on one network, whatever their outcome.

The factor U is activation magnitude in disguise (`uncertainty`), so its use is a question to measure, not to assume:
does it rise where input is corrupted, does it tell wrong scores from right ones, and does it move scores at all?
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from mmdg_model.config import UncertaintyEstimatorKind
from mmdg_model.explain import explain
from mmdg_model.inputs import PreparedInputs
from mmdg_model.network import LIVE_COLUMN, MMDG, MODALITIES, build_mmdg
from mmdg_model.scorer import Modality
from mmdg_model.uncertainty import MonteCarloUncertainty


class Corruption(StrEnum):
    """What is done to a patch of one modality's normalised input."""

    NOISE = "noise"  # every pixel drawn anew, uniform over -1..1
    HOLE = "hole"  # black, as where a sensor measured nothing
    FLAT = "flat"  # the patch's own mean: detail gone, brightness kept


def auroc(positive: NDArray[np.floating], negative: NDArray[np.floating]) -> float:
    """Chance that a positive's value is above a negative's, ties counted half (Mann-Whitney).

    Raises:
        ValueError: nothing on one side, or a value that is no number.
    """
    if not len(positive) or not len(negative):
        raise ValueError(f"AUROC of {len(positive)} positive and {len(negative)} negative values; both are needed")
    values = np.concatenate([positive, negative]).astype(np.float64)
    if np.isnan(values).any():
        raise ValueError(f"AUROC: {int(np.isnan(values).sum())} of {len(values)} values are NaN")
    ranks = stats.rankdata(values)[:len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


@dataclass(frozen=True, kw_only=True)
class RiskCoverage:
    """Error rate over the accepted, mean over all coverages (AURC); smaller is better.

    Attributes:
        area: when the most confident are accepted first.
        chance: expected of a confidence that knows nothing, which is the error rate.
        best: of a confidence that puts every error last.
    """

    area: float
    chance: float
    best: float


def risk_coverage(wrong: NDArray[np.bool_], confidence: NDArray[np.floating]) -> RiskCoverage:
    """Risk-coverage of decisions `bool [n]` under a confidence `[n]`; equally confident ones share their risk.

    Raises:
        ValueError: none, different lengths, or a confidence that is no number.
    """
    if not len(wrong) or len(wrong) != len(confidence) or np.isnan(confidence).any():
        raise ValueError(f"risk-coverage of {len(wrong)} decisions and {len(confidence)} confidences, "
                         f"{int(np.isnan(confidence).sum())} of them NaN; as many numbers as decisions are needed")
    _, group = np.unique(-confidence.astype(np.float64), return_inverse=True)
    mean_wrong = np.bincount(group, weights=wrong) / np.bincount(group)
    by_confidence = mean_wrong[np.sort(group)]
    return RiskCoverage(area=_area(by_confidence), chance=float(wrong.mean()), best=_area(np.sort(wrong)))


def _area(wrong_in_order: NDArray[np.generic]) -> float:
    accepted = np.arange(1, len(wrong_in_order) + 1)
    return float((np.cumsum(wrong_in_order.astype(np.float64)) / accepted).mean())


def corrupt(planes: NDArray[np.float32], modality: Modality, corruption: Corruption, *, patch_size: int, share: float,
            generator: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Corrupts a share of the patches of one modality.

    Args:
        planes: `[b, 3, 3, S, S]` normalised; not changed.
        modality, corruption: where and what.
        patch_size: of the network, in pixels.
        share: of each image's patches, 0..1.
        generator: of the choice and of the noise.

    Returns:
        The corrupted copy, and which patches: `bool [b, g * g]`.
    """
    rows, grid = len(planes), planes.shape[-1] // patch_size
    order = generator.random((rows, grid * grid)).argsort(axis=1).argsort(axis=1)
    chosen = order < round(share * grid * grid)
    mask = chosen.reshape(rows, grid, grid).repeat(patch_size, axis=1).repeat(patch_size, axis=2)[:, None]
    plane = planes[:, MODALITIES.index(modality)]
    match corruption:
        case Corruption.NOISE:
            replacement = generator.uniform(-1.0, 1.0, plane.shape).astype(np.float32)
        case Corruption.HOLE:
            replacement = np.full_like(plane, -127.5 / 128.0)
        case Corruption.FLAT:
            patches = plane.reshape(rows, 3, grid, patch_size, grid, patch_size)
            replacement = np.broadcast_to(patches.mean(axis=(3, 5), keepdims=True), patches.shape).reshape(plane.shape)
    corrupted = planes.copy()
    corrupted[:, MODALITIES.index(modality)] = np.where(mask, replacement, plane)
    return corrupted, chosen


def corruption_auroc(network: MMDG, inputs: PreparedInputs, modality: Modality, corruption: Corruption, *,
                     share: float = 0.25, seed: int = 0) -> list[float]:
    """AUROC of token uncertainty for "this patch was corrupted", one a block; 0.5 = it does not tell, 1 = always.

    Only crops that have the modality count.

    Raises:
        ValueError: none has it.
    """
    having = inputs.present[:, MODALITIES.index(modality)]
    if not having.any():
        raise ValueError(f"no crop has {modality}; its corruption cannot be judged")
    corrupted, chosen = corrupt(inputs.planes[having], modality, corruption, patch_size=network.config.patch_size,
                                share=share, generator=np.random.default_rng(seed))
    explanation = explain(network, torch.from_numpy(corrupted), torch.from_numpy(inputs.present[having]))
    uncertainty = explanation.uncertainty[:, MODALITIES.index(modality), :, 1:].numpy()
    return [auroc(block[chosen], block[~chosen]) for block in uncertainty]


@dataclass(frozen=True, kw_only=True)
class LogitShift:
    """What the factor U does to scores. All in units of the logit.

    Attributes:
        mean, largest: of |logit - logit with U = 1| over the crops.
        spread: standard deviation of the logit over the crops, to compare with.
        sampling: standard deviation of one crop's logit over draws of the sampled certainty, mean over crops.
    """

    mean: float
    largest: float
    spread: float
    sampling: float


@torch.inference_mode()
def logit_shift(network: MMDG, inputs: PreparedInputs, *, draws: int = 10) -> LogitShift:
    """Compares the network with the same weights under U = 1, and under sampling with `draws` seeds."""
    planes, present = torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present)
    here = _logit(network, planes, present)
    without = _logit(_with_estimator(network, UncertaintyEstimatorKind.NONE), planes, present)
    sampled = _with_estimator(network, UncertaintyEstimatorKind.MONTE_CARLO)
    drawn = []
    for seed in range(draws):
        for module in sampled.modules():
            if isinstance(module, MonteCarloUncertainty):
                module.seed = seed
        drawn.append(_logit(sampled, planes, present))
    shift = (here - without).abs()
    return LogitShift(mean=float(shift.mean()), largest=float(shift.max()), spread=float(here.std(correction=0)),
                      sampling=float(torch.stack(drawn).std(dim=0).mean()))


def _with_estimator(network: MMDG, kind: UncertaintyEstimatorKind) -> MMDG:
    """The same weights (shared, not copied) under another estimator."""
    with torch.device("meta"):
        other = build_mmdg(dataclasses.replace(network.config, uncertainty_estimator=kind))
    other.load_state_dict(network.state_dict(), assign=True)
    return other.eval()


def _logit(network: MMDG, planes: Tensor, present: Tensor) -> Tensor:
    logits: Tensor = network(planes, present).logits
    return logits[:, LIVE_COLUMN] - logits[:, 1 - LIVE_COLUMN]
