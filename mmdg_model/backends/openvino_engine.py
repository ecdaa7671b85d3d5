"""The network on the processor under OpenVINO: an exported model, float32, bfloat16 or int8. Needs no torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmdg_model.backends.openvino_sdk import openvino
from mmdg_model.inputs import PreparedInputs

MODEL_FILE = "model.xml"
WEIGHTS_FILE = "model.bin"

#: What OpenVINO calls the precision of everything that an exported model leaves open. An int8 model states its
#: quantised products itself.
_HINT = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVinoEngine:
    """Computes with OpenVINO on the processor. Use from one thread.

    Args:
        model, weights: contents of `MODEL_FILE` and `WEIGHTS_FILE`, verified.
        precision: of the manifest.
        threads: at least 1.
    """

    def __init__(self, model: bytes, weights: bytes, *, precision: str, threads: int) -> None:
        graph = openvino.Core().read_model(model, weights)
        self._request = compile_for_latency(graph, hint=_HINT[precision], threads=threads).create_infer_request()

    def run(self, inputs: PreparedInputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Engine.run`."""
        answer = self._request.infer([inputs.planes, inputs.present])
        return np.array(answer[0], dtype=np.float32), np.array(answer[1], dtype=np.float32)


def compile_for_latency(model: openvino.Model, *, hint: str, threads: int) -> openvino.CompiledModel:
    """`model` ready to run one request at a time on `threads` threads that are pinned to no core: cameras need cores
    too, and where they run is the operating system's decision."""
    return openvino.Core().compile_model(model, "CPU", {
        "INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False})
