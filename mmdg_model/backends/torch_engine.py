"""The network on the processor under PyTorch: the runtime graph, float32 or bfloat16."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mmdg_model.architectures import Network, NetworkConfig
from mmdg_model.checkpoint import Checkpoint
from mmdg_model.config import ModelConfig, UncertaintyEstimatorKind
from mmdg_model.inputs import PreparedInputs
from mmdg_model.network import MMDG, NetworkOutput
from mmdg_model.runtime_graph import build_runtime_graph
from mmdg_model.torch_scorer import build_network

#: Precisions that this backend offers. float16 has no fast matrix product in PyTorch on processors.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchEngine:
    """Computes with PyTorch on the processor.

    Args:
        checkpoint: as loaded.
        precision: a key of `PRECISIONS`.
        threads: of torch, for the whole process, at least 1. More than the free cores makes them wait on each other.
    """

    def __init__(self, checkpoint: Checkpoint, *, precision: str, threads: int) -> None:
        torch.set_num_threads(threads)
        network = build_network(checkpoint)
        rearranged = isinstance(network, MMDG)
        dtype = PRECISIONS[precision]
        self._network: Network = build_runtime_graph(network, dtype=dtype) if rearranged else network.to(dtype)
        self._input_dtype = torch.float32 if rearranged else dtype

    def run(self, inputs: PreparedInputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Engine.run`."""
        with torch.inference_mode():
            output: NetworkOutput = self._network(torch.from_numpy(inputs.planes).to(self._input_dtype),
                                                  torch.from_numpy(inputs.present))
            return output.logits.float().numpy(), output.class_certainty.float().numpy()


def cannot_be_captured_because(config: NetworkConfig) -> str:
    """Why no captured or exported graph can hold this network; empty if one can."""
    if not isinstance(config, ModelConfig):
        return "MMDG++ has no runtime graph yet"
    if config.uncertainty_estimator is UncertaintyEstimatorKind.MONTE_CARLO:
        return "uncertainty_estimator is monte_carlo: certainty is drawn at random in each pass"
    return ""
