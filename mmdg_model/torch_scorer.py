"""`TorchScorer`: a checkpoint at work under PyTorch."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

try:
    import torch
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the network needs PyTorch: pip install 'mmdg-live[engine]'", name="torch") from error

from mmdg_model.architectures import Network, build
from mmdg_model.backends.engine_scorer import assemble_score
from mmdg_model.checkpoint import Checkpoint
from mmdg_model.inputs import InputSpecification, prepare
from mmdg_model.known_answer import KnownAnswer, known_answer_crops
from mmdg_model.network import NetworkOutput
from mmdg_model.scorer import CropPlanes, KnownAnswerError, LivenessScore, Purpose

#: Largest accepted deviation from the stored known answer, relative to its largest logit, by computing precision.
KNOWN_ANSWER_TOLERANCE: dict[torch.dtype, float] = {torch.float32: 1e-3, torch.bfloat16: 0.05}


def build_network(checkpoint: Checkpoint) -> Network:
    """The checkpoint's network in float32, in evaluation mode."""
    with torch.device("meta"):
        network = build(checkpoint.config)
    network.load_state_dict({name: weight.float() for name, weight in checkpoint.weights.items()}, assign=True)
    return network.eval()


def measure_known_answer(network: Network, specification: InputSpecification) -> KnownAnswer:
    """The answer to store in a checkpoint of `network`, which must be in evaluation mode, float32, on the CPU.

    Weights to be stored as float16 must have been rounded to it before (`network.half().float()`).
    """
    inputs = prepare(known_answer_crops(specification), specification)
    with torch.inference_mode():
        output: NetworkOutput = network(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))
    return KnownAnswer.of(output.logits.numpy())


class TorchScorer:
    """Scores face crops with one checkpoint. Implements `scorer.Scorer`.

    Construction builds the network, warms it up and runs its known-answer test; an object that exists is usable.

    Args:
        checkpoint: as loaded.
        threads: of torch, for the whole process. More than the free cores makes them wait on each other.
        dtype: float32, or bfloat16 where the processor has instructions for it.

    Raises:
        ValueError: threads below 1 or another dtype.
        KnownAnswerError: the network does not reproduce its stored logits.
    """

    def __init__(self, checkpoint: Checkpoint, *, threads: int = 1, dtype: torch.dtype = torch.float32) -> None:
        if threads < 1:
            raise ValueError(f"threads is {threads!r}, expected at least 1")
        if dtype not in KNOWN_ANSWER_TOLERANCE:
            raise ValueError(f"dtype is {dtype}, expected torch.float32 or torch.bfloat16")
        torch.set_num_threads(threads)
        self._checkpoint = checkpoint
        self._dtype = dtype
        self._network = build_network(checkpoint).to(dtype)
        self._test_known_answer()

    @property
    def model_hash(self) -> str:
        """SHA-256 of the checkpoint file."""
        return self._checkpoint.hash

    @property
    def purpose(self) -> Purpose:
        return self._checkpoint.purpose

    def score(self, crops: list[CropPlanes]) -> list[LivenessScore]:
        """One score a crop, in order; an empty list for none.

        Raises:
            ValueError: a crop that cannot be prepared, named by its index.
            ScoringError: the network returned NaN or infinity.
        """
        if not crops:
            return []
        started = time.perf_counter()
        inputs = prepare(crops, self._checkpoint.input_spec)
        prepared = time.perf_counter()
        logits, certainty = self._run(inputs.planes, inputs.present)
        durations_ms = {"prepare": (prepared - started) * 1e3, "forward": (time.perf_counter() - prepared) * 1e3}
        origin = f"{self.model_hash[:12]} in {self._dtype}"
        return [assemble_score(index, logits[index], certainty[index], inputs.present[index], origin=origin,
                               model_hash=self.model_hash, durations_ms=durations_ms) for index in range(len(crops))]

    def _run(self, planes: NDArray[np.float32], present: NDArray[np.bool_],
             ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            output: NetworkOutput = self._network(torch.from_numpy(planes).to(self._dtype), torch.from_numpy(present))
            return output.logits.float().numpy(), output.class_certainty.float().numpy()

    def _test_known_answer(self) -> None:
        """Also the warm-up: the first pass allocates and picks kernels."""
        inputs = prepare(known_answer_crops(self._checkpoint.input_spec), self._checkpoint.input_spec)
        logits, _ = self._run(inputs.planes, inputs.present)
        deviation = self._checkpoint.known_answer.deviation(logits)
        tolerance = KNOWN_ANSWER_TOLERANCE[self._dtype]
        if not deviation <= tolerance:
            raise KnownAnswerError(
                f"checkpoint {self.model_hash[:12]}: known-answer logits are {logits.tolist()}, stored are "
                f"{self._checkpoint.known_answer.logits}; relative deviation {deviation:.3g}, allowed {tolerance:g} in "
                f"{self._dtype}. The file, this code or this machine's arithmetic differs from when it was made: "
                "reinstall the matching version, or compute in float32")
