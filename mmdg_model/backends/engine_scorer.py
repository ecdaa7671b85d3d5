"""What every backend's scorer shares: crops to input, engine outputs to scores, the known-answer test. No torch.

An *engine* computes the network; the scorer around it is the same for all, so that backends differ in nothing else.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmdg_model.inputs import InputSpecification, PreparedInputs, prepare
from mmdg_model.known_answer import KnownAnswer, known_answer_crops
from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import CropPlanes, KnownAnswerError, LivenessScore, Modality, Purpose, ScoringError

#: Largest accepted deviation from the stored known answer, relative to its largest logit, by precision.
#: An exported model stores its own answer, so that quantisation, judged once at export, does not widen this.
KNOWN_ANSWER_TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.05, "int8": 0.05}

#: Column of the logits that means bona fide, as `network.LIVE_COLUMN`.
_LIVE, _ATTACK = 1, 0


class Engine(Protocol):
    """Computes the network's outputs for prepared crops."""

    def run(self, inputs: PreparedInputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits `[b, 2]` and class-token certainty `[b, 3]`, float32, for `planes [b, 3, 3, S, S]`."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScorerDescription:
    """Which arithmetic runs, and why that one.

    Attributes:
        backend: `torch`, `cuda` or `openvino`.
        precision: `float32`, `bfloat16`, `float16` or `int8`, of the large matrix products.
        threads: of the processor; 0 where the processor does not compute.
        reason: why this backend and precision, in words.
        checkpoint_hash: SHA-256 of the checkpoint that the weights come from.
    """

    backend: str
    precision: str
    threads: int
    reason: str
    checkpoint_hash: str

    def __str__(self) -> str:
        return f"backend {self.backend}, {self.precision}, {self.threads} threads: {self.reason}"


class EngineScorer:
    """Scores crops with an engine. Implements `scorer.Scorer`. An object that exists has passed its known-answer test.

    Args:
        engine: loaded.
        description: of the engine.
        model_hash: SHA-256 of the file that was verified and loaded.
        purpose, input_spec, known_answer, operating_point: of the checkpoint.

    Raises:
        KnownAnswerError: the engine does not reproduce the stored logits.
    """

    def __init__(self, engine: Engine, *, description: ScorerDescription, model_hash: str, purpose: Purpose,
                 input_spec: InputSpecification, known_answer: KnownAnswer,
                 operating_point: OperatingPoint | None = None) -> None:
        self.description = description
        self.operating_point = operating_point
        self._engine = engine
        self._model_hash = model_hash
        self._purpose = purpose
        self._input_spec = input_spec
        self._test(known_answer)

    @property
    def model_hash(self) -> str:
        """SHA-256 of the file that was loaded: a checkpoint, or the manifest of an exported model."""
        return self._model_hash

    @property
    def purpose(self) -> Purpose:
        """What the checkpoint was made for."""
        return self._purpose

    def score(self, crops: list[CropPlanes]) -> list[LivenessScore]:
        """One score a crop, in order; an empty list for none.

        Raises:
            ValueError: a crop that cannot be prepared, named by its index.
            ScoringError: the network returned NaN or infinity.
        """
        if not crops:
            return []
        started = time.perf_counter()
        inputs = prepare(crops, self._input_spec)
        prepared = time.perf_counter()
        logits, certainty = self._engine.run(inputs)
        durations_ms = {"prepare": (prepared - started) * 1e3, "forward": (time.perf_counter() - prepared) * 1e3}
        origin = f"{self._model_hash[:12]} ({self.description.backend}, {self.description.precision})"
        return [assemble_score(index, logits[index], certainty[index], inputs.present[index], origin=origin,
                               model_hash=self._model_hash, durations_ms=durations_ms) for index in range(len(crops))]

    def _test(self, known_answer: KnownAnswer) -> None:
        """Also the warm-up: the first pass allocates and picks kernels."""
        logits, _ = self._engine.run(prepare(known_answer_crops(self._input_spec), self._input_spec))
        deviation, tolerance = known_answer.deviation(logits), KNOWN_ANSWER_TOLERANCE[self.description.precision]
        if not deviation <= tolerance:
            raise KnownAnswerError(
                f"model {self._model_hash[:12]}: known-answer logits are {logits.tolist()}, stored are "
                f"{known_answer.logits}; relative deviation {deviation:.3g}, allowed {tolerance:g} in "
                f"{self.description.precision} on backend {self.description.backend}. The file, this code or this "
                "machine's arithmetic differs from when it was made: reinstall the matching version, or compute in "
                "float32")


def assemble_score(index: int, logits: NDArray[np.float32], certainty: NDArray[np.float32],
                   present: NDArray[np.bool_], *, origin: str, model_hash: str,
                   durations_ms: dict[str, float]) -> LivenessScore:
    """The score of crop `index` from its row of outputs: logits `[2]`, certainty `[3]`, presence `[3]`.

    Raises:
        ScoringError: a number that is none; `origin` names the model in the message.
    """
    logit = float(logits[_LIVE]) - float(logits[_ATTACK])
    modalities = tuple(modality for modality, used in zip(Modality, present, strict=True) if used)
    uncertainty = {modality: _uncertainty(certainty[list(Modality).index(modality)]) for modality in modalities}
    if not all(math.isfinite(value) for value in (logit, *uncertainty.values())):
        raise ScoringError(f"crop {index}: logits {logits.tolist()}, class-token certainty {certainty.tolist()}; no "
                           f"score from model {origin}")
    return LivenessScore(logit=logit, probability=_sigmoid(logit), uncertainty=uncertainty, modalities=modalities,
                         model_hash=model_hash, durations_ms=dict(durations_ms))


def _uncertainty(certainty: np.float32) -> float:
    # Certainty lies in (0, 1]. Where rounding has made it 0, or in half precision a little more than 1, the result
    # still stays in [0, 1).
    return float(min(max(1.0 - float(certainty), 0.0), math.nextafter(1.0, 0.0)) if math.isfinite(certainty)
                 else certainty)


def _sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)) without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)
