"""OGM-GE, on-the-fly gradient modulation with generalisation enhancement (CVPR 2022, Peng et al.).

The head is linear, so modality m's part of its logits is W_m z_m + b / M, with z_m the class token. An encoder that is
ahead of the others gets a smaller gradient, and noise of the gradient's own spread:

    s_m  = mean over the update's samples of softmax(W_m z_m + b / M)_true
    ρ_m  = s_m / mean of the others' s
    k_m  = 1 - tanh(α ρ_m) where ρ_m > 1, else 1
    g   <- k_m g + N(0, std(g))                                      as released: one spread a tensor

On ViT and U-Adapters g is the gradient of a tensor that feeds modality m (its adapters and its embedding). The plain
ViT belongs to all modalities: there k_m acts on dL/dz_m, which is the same for an encoder of its own. The head keeps
its plain gradient. The ratio to the mean of the others is ours; with two modalities it is the paper's.

Legend: b batch, m modalities (order of `network.MODALITIES`), d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmdg_model.config import HeadInput
from mmdg_model.network import MMDG, MODALITIES, NetworkOutput
from mmdg_model.training.methods.balanced_update import BalancedMethod
from mmdg_model.training.methods.class_token_networks import ClassTokenNetwork, build_class_token_network
from mmdg_model.training.methods.contract import Method, MethodContext, MethodError, Scalars, TrainingBatch
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import LateFusionViT
from mmdg_model.training.modality_gradients import is_head, parameter_owner

#: Tells the noise's draws from dropout's of the same seed and update.
_NOISE = 0x06E


@dataclass(frozen=True, kw_only=True)
class OgmGeSettings:
    """What may be set.

    Attributes:
        network: what it is put on.
        slope: α (release's advice: 0.1 or 0.8 by data set).
        noise: standard deviation of the added noise over that of the gradient (release: 1); 0 is OGM without GE.
        epochs: how many epochs gradients are modulated (release: 50).

    Raises:
        ValueError: a value out of range.
    """

    network: ClassTokenNetwork = ClassTokenNetwork.VIT
    slope: float = 0.8
    noise: float = 1.0
    epochs: int = 50

    def __post_init__(self) -> None:
        for name in ("slope", "noise", "epochs"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least 0")


def modality_probability(class_tokens_BMD: Tensor, weight_CX: Tensor, bias_C: Tensor, label_B: Tensor) -> Tensor:
    """softmax(W_m z_m + b / M)_true, `[b, m]`, of a head `[c, m d]` that reads class tokens side by side."""
    modalities, width = class_tokens_BMD.shape[1:]
    weight_CMD = weight_CX.reshape(-1, modalities, width)
    logits_BMC = torch.einsum("bmd,cmd->bmc", class_tokens_BMD, weight_CMD) + bias_C / modalities
    index_BM1 = label_B[:, None, None].expand(-1, modalities, 1)
    return torch.softmax(logits_BMC, dim=-1).gather(-1, index_BM1).squeeze(-1)


def gradient_factors(ratio_M: Tensor, slope: float) -> Tensor:
    """k_m `[m]`: 1 - tanh(α ρ_m) where ρ_m > 1, else 1."""
    return torch.where(ratio_M > 1.0, 1.0 - torch.tanh(slope * ratio_M), torch.ones_like(ratio_M))


def modulated(gradients: Mapping[str, Tensor], factors: Mapping[str, float], *, noise: float,
              seed: int) -> dict[str, Tensor]:
    """k g + `noise` N(0, std(g)) for the tensors that have a factor; the others as they are.

    The noise is drawn from `seed` alone, in the order of `factors`, so all processes draw the same; a tensor of one
    value has no spread and gets none.
    """
    made = dict(gradients)
    generators: dict[torch.device, torch.Generator] = {}
    for name, factor in factors.items():
        gradient = gradients[name]
        made[name] = gradient * factor
        if not noise or gradient.numel() < 2:
            continue
        if gradient.device not in generators:
            generators[gradient.device] = torch.Generator(gradient.device).manual_seed(seed)
        drawn = torch.randn(gradient.shape, dtype=gradient.dtype, device=gradient.device,
                            generator=generators[gradient.device])
        made[name] = made[name] + noise * gradient.std() * drawn
    return made


class OgmGe(BalancedMethod):
    """Cross entropy; its gradients modulated as above."""

    terms = ("cross_entropy",)

    def __init__(self, context: MethodContext, network: MMDG | LateFusionViT, settings: OgmGeSettings) -> None:
        super().__init__(context, network)
        self._head = network.head
        self._settings = settings
        self._epoch = 0

    def start_epoch(self, epoch: int, clean_batches: Callable[[], Iterable[TrainingBatch]]) -> Scalars:
        """Takes note of the epoch; needs no pass over the clean samples."""
        self._epoch = epoch
        return {}

    def confidence(self, output: NetworkOutput, batch: TrainingBatch) -> Tensor:
        """softmax(W_m z_m + b / M)_true."""
        tokens_BMD = output.class_tokens.detach()
        tokens_BMD = tokens_BMD.to(self._head.weight.dtype)
        return modality_probability(tokens_BMD, self._head.weight.detach(), self._head.bias.detach(), batch.label)

    def loss(self, output: NetworkOutput, batch: TrainingBatch, ratio_M: Tensor) -> dict[str, Tensor]:
        """CE; on the plain ViT its gradient shrinks on the way into each class token."""
        factor_M = self._factors(ratio_M)
        shrinks = self._modulates and self._settings.network is ClassTokenNetwork.VIT
        if shrinks and output.class_tokens.requires_grad:  # with the head alone in training they need none
            output.class_tokens.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient * factor_M.to(gradient)[:, None])
        logits = output.logits.to(torch.promote_types(output.logits.dtype, torch.float32))
        return {"cross_entropy": F.cross_entropy(logits, batch.label)}

    def modulate(self, gradients: Mapping[str, Tensor], ratio_M: Tensor) -> Mapping[str, Tensor]:
        """k_m on what modality m owns, and noise on all that is modulated."""
        if not self._modulates:
            return gradients
        key = np.random.SeedSequence([self.context.seed, self.updates, _NOISE]).generate_state(2)
        return modulated(gradients, self._tensor_factors(gradients, self._factors(ratio_M).tolist()),
                         noise=self._settings.noise, seed=int(key[0]) << 31 | int(key[1]) >> 1)

    @property
    def _modulates(self) -> bool:
        return self._epoch < self._settings.epochs

    def _factors(self, ratio_M: Tensor) -> Tensor:
        return gradient_factors(ratio_M, self._settings.slope)

    def _tensor_factors(self, gradients: Mapping[str, Tensor], factors: Sequence[float]) -> dict[str, float]:
        """By name in the parameters' order, whatever was reached first."""
        reached = [name for name in self.trainable if name in gradients and not is_head(name)]
        if self._settings.network is ClassTokenNetwork.VIT:
            return dict.fromkeys(reached, 1.0)  # shrunk on its way into the class tokens
        owners = {name: parameter_owner(name) for name in reached}
        return {name: factors[MODALITIES.index(owner)] for name, owner in owners.items() if owner is not None}


def build_ogm_ge(context: MethodContext, settings: OgmGeSettings) -> Method:
    """Raises `BackboneError`, and `MethodError` also for a head that does not read the class tokens side by side."""
    if (settings.network is ClassTokenNetwork.U_ADAPTER
            and context.model.head_input is not HeadInput.CONCATENATED):
        raise MethodError(f"OGM-GE splits the head by modality, but model.head_input is "
                          f"{str(context.model.head_input)!r}; it must be {str(HeadInput.CONCATENATED)!r}")
    return OgmGe(context, build_class_token_network(context, settings.network), settings)


ROWS = tuple(MethodEntry(
    name=f"ogm_ge_{network}", title=f"{on}, OGM-GE", summary=f"on-the-fly gradient modulation on {plain}",
    source=f"Peng et al., CVPR 2022; arXiv 2402.19298, {where}", settings=OgmGeSettings, build=build_ogm_ge,
    fixed={"network": network}) for network, on, plain, where in (
        (ClassTokenNetwork.VIT, "ViT", "the plain ViT", "Figure 5"),
        (ClassTokenNetwork.U_ADAPTER, "ViT + U-Adapter", "ViT and U-Adapters", "Table 4")))
