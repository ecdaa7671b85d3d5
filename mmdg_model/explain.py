"""What a score rests on: each block's token uncertainty and U-Adapter attention, recorded beside an untouched forward.

Legend: l blocks, m modalities (`network.MODALITIES`), b batch, n tokens (class token first), h heads, g patches a side.

Attention between modalities shows where information *could* flow. It is no proof that the answer depends on it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmdg_model.architectures import Architecture, architecture_of
from mmdg_model.checkpoint import Checkpoint
from mmdg_model.inputs import AbsenceEncoding, PreparedInputs, prepare
from mmdg_model.network import MMDG, MODALITIES, NetworkOutput, adapter_directions, direction_name
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.torch_scorer import build_network


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """One forward pass, opened. Float32 on the CPU, no gradient.

    Attributes:
        output: the network's own, bit for bit what `network(planes, present)` gives.
        uncertainty: `[l, m, b, n]`, 1 - certainty of each token, in [0, 1]. Of a muted modality: NaN.
        attention: by adapter, `rgb_from_depth` and so on: `[l, b, h, n, n]`. Row i: how the source's token i spreads
            over the own tokens, sum 1. Where either modality is muted: NaN, for nothing was exchanged.

    A modality is muted when it is absent and the network goes by flags (`AbsenceEncoding.FLAG`).
    """

    output: NetworkOutput
    uncertainty: Tensor
    attention: dict[str, Tensor]

    def uncertainty_maps(self) -> Tensor:
        """Patch tokens on their grid: `[l, m, b, g, g]`."""
        return _on_grid(self.uncertainty[..., 1:])

    def attention_maps(self) -> dict[str, Tensor]:
        """How much each own patch is attended to, by adapter: `[l, b, g, g]`, mean over heads and source tokens.

        Times the number of tokens, so that 1 is an even share.
        """
        return {name: _on_grid(weights.mean(dim=(2, 3))[..., 1:] * weights.shape[-1])
                for name, weights in self.attention.items()}


    def arrays(self, row: int) -> dict[str, NDArray[np.float32]]:
        """One crop's numbers under plain names: `logits`, `uncertainty`, `attention_rgb_from_depth` and so on."""
        return {"logits": self.output.logits[row].numpy(), "uncertainty": self.uncertainty[:, :, row].numpy(),
                **{f"attention_{name}": weights[:, row].numpy() for name, weights in self.attention.items()}}


def explain_crops(checkpoint: Checkpoint, crops: list[CropPlanes], *, threads: int = 1,
                  ) -> tuple[Explanation, PreparedInputs]:
    """Explains the scores that `checkpoint` gives to crops, in order.

    Args:
        checkpoint: as loaded.
        crops: at least one.
        threads: of torch, for the whole process.

    Raises:
        InputError: a crop that does not fit the checkpoint, named by its index.
        ValueError: a checkpoint of another architecture.
    """
    torch.set_num_threads(threads)
    inputs = prepare(crops, checkpoint.input_spec)
    network = build_network(checkpoint)
    if not isinstance(network, MMDG):
        raise ValueError(f"checkpoint {checkpoint.hash[:12]} is of architecture {architecture_of(checkpoint.config)}; "
                         f"explanations know {Architecture.MMDG} only: give one of those")
    return explain(network, torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present)), inputs


@torch.no_grad()
def explain(network: MMDG, planes: Tensor, present_BM: Tensor) -> Explanation:
    """Runs the network once and records it by hooks, which read and change nothing.

    Memory: an adapter's attention is h · n² floats a block and crop; all of ViT-B/16's 48 adapters take 60 MB a crop.

    Args:
        network: in evaluation mode.
        planes, present_BM: as for the network.

    Raises:
        ValueError: a network in training mode, or what the network itself refuses.
    """
    if network.training:
        raise ValueError("the network is in training mode, where dropout alters its scores; call network.eval() first")
    certainty: list[Tensor] = []
    attention: dict[str, list[Tensor]] = {direction_name(*pair): [] for pair in adapter_directions(network.config)}
    with ExitStack() as hooks:
        for block in network.blocks:
            hooks.callback(block.register_forward_hook(_certainty_hook(certainty)).remove)
            for name, record in attention.items():
                exchange = block.get_submodule(f"adapters.{name}.cross_attention")
                hooks.callback(exchange.register_forward_hook(_attention_hook(record)).remove)
        output: NetworkOutput = network(planes, present_BM)
    read_BM = present_BM.cpu()
    if network.config.absence is not AbsenceEncoding.FLAG:
        read_BM = torch.ones_like(read_BM)
    return Explanation(output=NetworkOutput(*(part.float().cpu() for part in output)),
                       uncertainty=_uncertainty(certainty, read_BM),
                       attention={name: _exchanged(name, torch.stack(weights), read_BM)
                                  for name, weights in attention.items()})


def _certainty_hook(record: list[Tensor]) -> Any:
    def hook(_block: nn.Module, _inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor]) -> None:
        record.append(outputs[1].squeeze(-1).float().cpu())
    return hook


def _attention_hook(record: list[Tensor]) -> Any:
    def hook(cross_attention: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        weights: Tensor = cross_attention.attention(*inputs)  # type: ignore[operator]
        record.append(weights.float().cpu())
    return hook


def _uncertainty(certainty: list[Tensor], read_BM: Tensor) -> Tensor:
    uncertainty_LMBN = 1.0 - torch.stack(certainty)
    return uncertainty_LMBN.masked_fill(~read_BM.T[None, :, :, None], torch.nan)


def _exchanged(name: str, attention_LBHNN: Tensor, read_BM: Tensor) -> Tensor:
    own, source = (MODALITIES.index(Modality(part)) for part in name.split("_from_"))
    nothing_B = ~(read_BM[:, own] & read_BM[:, source])
    return attention_LBHNN.masked_fill(nothing_B[None, :, None, None, None], torch.nan)


def _on_grid(patches: Tensor) -> Tensor:
    grid = round(patches.shape[-1] ** 0.5)
    return patches.reshape(*patches.shape[:-1], grid, grid)
