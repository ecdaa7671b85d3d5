"""`LivenessScore` and the `Scorer` contract: what every inference backend takes and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Modality(StrEnum):
    """The network's three inputs, in the paper's order."""

    RGB = "rgb"
    DEPTH = "depth"
    INFRARED = "infrared"


class Purpose(StrEnum):
    """What a checkpoint was made for. Policy says which purposes may decide; a passing self-test changes nothing."""

    TEST = "test"  # random or toy weights: may decide nothing
    SIMULATED = "simulated"  # trained on simulated data only
    RELEASE = "release"


@dataclass(frozen=True, kw_only=True, eq=False)
class CropPlanes:
    """The pixels of one face crop as the network's input path takes them (one registered view, S x S).

    Attributes:
        colour: `uint8 SxSx3` RGB, with `colour_valid` `bool SxS`.
        depth: `uint16 SxS`, metric, `depth_unit_m` metres per unit, 0 = none; None when absent. With `depth_valid`.
        infrared: `uint8|uint16 SxS` of `infrared_bit_depth` significant bits; None when absent. With `infrared_valid`.
    """

    colour: NDArray[np.uint8]
    colour_valid: NDArray[np.bool_]
    depth: NDArray[np.uint16] | None = None
    depth_valid: NDArray[np.bool_] | None = None
    depth_unit_m: float = 1e-4
    infrared: NDArray[np.uint8] | NDArray[np.uint16] | None = None
    infrared_valid: NDArray[np.bool_] | None = None
    infrared_bit_depth: int = 8

    @property
    def modalities(self) -> tuple[Modality, ...]:
        present = [Modality.RGB]
        if self.depth is not None:
            present.append(Modality.DEPTH)
        if self.infrared is not None:
            present.append(Modality.INFRARED)
        return tuple(present)


@dataclass(frozen=True, kw_only=True)
class LivenessScore:
    """What the network says of one crop. It is evidence, not a decision.

    Attributes:
        logit: logit(bona fide) - logit(attack), a real number; larger means more like a live face.
        probability: of bona fide, 1 / (1 + exp(-logit)).
        uncertainty: per used modality, 1 - certainty of the class token in the last block, in [0, 1).
        modalities: which inputs the network used.
        model_hash: of the checkpoint.
        durations_ms: time spent by stage (`prepare`, `forward`), durations only, never a clock.
    """

    logit: float
    probability: float
    uncertainty: dict[Modality, float]
    modalities: tuple[Modality, ...]
    model_hash: str
    durations_ms: dict[str, float] = field(default_factory=dict)


class Scorer(Protocol):
    """A loaded, warmed-up, self-tested network."""

    @property
    def model_hash(self) -> str: ...

    @property
    def purpose(self) -> Purpose: ...

    def score(self, crops: list[CropPlanes]) -> list[LivenessScore]:
        """One score a crop, in order. Raises `ValueError` naming the crop on wrong shapes; never returns NaN."""
        ...


class ScoringError(RuntimeError):
    """The network returned something that is no score (NaN or infinity). There is no score, and no verdict from it."""


class KnownAnswerError(RuntimeError):
    """A loaded network does not reproduce the logits stored in its checkpoint, and must not be used."""
