"""The network on an NVIDIA GPU: captured graphs for a few batch sizes, bfloat16 or float16, pinned copies.

Measured on an H100 (docs/backends.md). Every CUDA error leaves the device's state unknown: the caller must end the
process, as the inference worker does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mmdg_model.checkpoint import Checkpoint
from mmdg_model.inputs import PreparedInputs
from mmdg_model.network import NetworkOutput
from mmdg_model.runtime_graph import RuntimeGraph, build_runtime_graph
from mmdg_model.torch_scorer import build_network

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

#: Batch sizes that get a captured graph. Other batches run as pieces of these, the last one padded.
CAPTURED_BATCHES = (1, 2, 4, 8, 16, 32)

#: Passes before a capture: kernels are chosen and workspaces allocated outside the graph.
_WARM_UP_PASSES = 3


def unavailable_because() -> str:
    """Why CUDA cannot compute here; empty if it can."""
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) was built without CUDA"
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device or no working driver"
    return ""


def split_batch(size: int, captured: tuple[int, ...] = CAPTURED_BATCHES) -> list[tuple[int, int]]:
    """Pieces `(rows, captured batch)` that cover `size` rows in order; rows <= captured batch.

    >>> split_batch(35)
    [(32, 32), (3, 4)]
    """
    pieces, left, largest = [], size, max(captured)
    while left:
        rows = min(left, largest)
        pieces.append((rows, min(batch for batch in captured if batch >= rows)))
        left -= rows
    return pieces


@dataclass(frozen=True, eq=False)
class _Captured:
    """A graph with the memory that it reads and writes; host memory is pinned, so that copies do not block."""

    graph: torch.cuda.CUDAGraph
    planes_host: torch.Tensor
    present_host: torch.Tensor
    planes: torch.Tensor
    present: torch.Tensor
    answer: torch.Tensor
    answer_host: torch.Tensor


class CudaEngine:
    """Computes on one GPU. Use from one thread.

    Args:
        checkpoint: as loaded.
        precision: a key of `PRECISIONS`, of the large matrix products.
        device: such as `cuda` or `cuda:1`.
    """

    def __init__(self, checkpoint: Checkpoint, *, precision: str, device: str = "cuda") -> None:
        self._device = torch.device(device)
        # float32 was asked for: TensorFloat-32 would silently round products to 10 bits.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        self._network: RuntimeGraph = build_runtime_graph(build_network(checkpoint),
                                                          dtype=PRECISIONS[precision]).to(self._device)
        self._network.checks_input = False  # `prepare` made the input, and a capture cannot look at values
        self._size = checkpoint.config.image_size
        self._captured: dict[int, _Captured] = {}

    def run(self, inputs: PreparedInputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Engine.run`."""
        answers, start = [], 0
        for rows, batch in split_batch(len(inputs.planes)):
            answers.append(self._replay(inputs, slice(start, start + rows), batch)[:rows])
            start += rows
        answer = np.concatenate(answers)
        return answer[:, :2], answer[:, 2:]

    def _replay(self, inputs: PreparedInputs, rows: slice, batch: int) -> NDArray[np.float32]:
        captured = self._captured.get(batch)
        if captured is None:
            captured = self._captured[batch] = self._capture(batch)
        count = rows.stop - rows.start
        captured.planes_host[:count] = torch.from_numpy(inputs.planes[rows])
        captured.present_host[:count] = torch.from_numpy(inputs.present[rows])
        captured.planes_host[count:] = 0
        captured.present_host[count:] = True  # rows without any modality are no valid input
        captured.planes.copy_(captured.planes_host, non_blocking=True)
        captured.present.copy_(captured.present_host, non_blocking=True)
        captured.graph.replay()
        captured.answer_host.copy_(captured.answer, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return captured.answer_host.numpy().copy()

    def _capture(self, batch: int) -> _Captured:
        shape = (batch, 3, 3, self._size, self._size)
        planes = torch.zeros(shape, device=self._device)
        present = torch.ones(batch, 3, dtype=torch.bool, device=self._device)
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.inference_mode():
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_PASSES):
                    self._answer(planes, present)
            torch.cuda.current_stream(self._device).wait_stream(stream)
            with torch.cuda.graph(graph):
                answer = self._answer(planes, present)
        return _Captured(
            graph=graph, planes=planes, present=present, answer=answer,
            planes_host=torch.zeros(shape, pin_memory=True),
            present_host=torch.ones(batch, 3, dtype=torch.bool, pin_memory=True),
            answer_host=torch.zeros(batch, 5, pin_memory=True))

    def _answer(self, planes: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Logits and certainty side by side, `[b, 5]` float32: one copy back."""
        output: NetworkOutput = self._network(planes, present)
        return torch.cat([output.logits, output.class_certainty], dim=1).float()
