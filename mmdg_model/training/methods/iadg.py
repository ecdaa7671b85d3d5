"""IADG, instance-aware domain generalisation (Zhou et al., CVPR 2023, arXiv 2304.05640), on three trunks.

Each sample is seen twice: as it is, and restyled with a mixture of base styles of its own label. Entries of the
feature's covariance that the restyling changes most carry style, and are driven to 0: more of them for live faces than
for attacks.

    L = CE + w_d L_depth + CE' + w_d L_depth' + w_w (L_whitening + L_whitening')       ' of the restyled sample

Legend: b batch, c channels, s side of a map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdg_model.network import LIVE_COLUMN
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.methods.contract import Method, MethodContext, Scalars, TrainingBatch
from mmdg_model.training.methods.iadg_network import DynamicTrunk, IadgNetwork
from mmdg_model.training.methods.mean_loss import MeanLossMethod, widened
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.ssan import assembled, instance_normalised
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.training.methods.style_bank import StyleBank, styles_of
from mmdg_model.training.methods.trained_network import evaluation_mode
from mmdg_model.training.methods.trunks import Trunk, UAdapterTrunk, ViTTrunk, start

_EPOCH, _NO_EPOCH = "method.style_epoch", "none"
#: How often a feature is restyled, each time added to what it was.
RESTYLINGS = 2


@dataclass(frozen=True, kw_only=True)
class IadgSettings:
    """What may be set; defaults are the release's.

    Attributes:
        trunk: see `Trunk`; fixed by the row. `own` is IADG's network of dynamic kernels.
        depth_weight: w_d. augmented_weight: of CE' and L_depth'. whitening_weight: w_w.
        live_share, attack_share: share of a covariance's entries that is driven to 0.
        base_styles: how many are kept of a label.
        draw_styles: mixtures of base styles at random; False: the mean of all.

    Raises:
        ValueError: a value out of range.
    """

    trunk: Trunk = Trunk.OWN
    depth_weight: float = 0.1
    augmented_weight: float = 1.0
    whitening_weight: float = 1.0
    live_share: float = 0.003
    attack_share: float = 0.0006
    base_styles: int = 128
    draw_styles: bool = True

    def __post_init__(self) -> None:
        for name in ("depth_weight", "augmented_weight", "whitening_weight"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least 0")
        for name in ("live_share", "attack_share"):
            if not 0.0 < getattr(self, name) <= 0.5:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected above 0 to 0.5")
        if self.base_styles < 1:
            raise ValueError(f"base_styles is {self.base_styles!r}, expected at least 1")

    @property
    def restyles(self) -> bool:
        """Whether a second look at each sample is needed."""
        return bool(self.augmented_weight or self.whitening_weight)


def covariance(feature: Tensor) -> Tensor:
    """`[b, c, c]` over the map of `[b, c, s, s]`, each channel normalised by sample first."""
    columns = instance_normalised(feature).flatten(2)
    product: Tensor = columns @ columns.transpose(1, 2) / columns.shape[2]
    return product


def sensitive_entries(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Which entries above the diagonal differ most between two covariances, `bool [b, c, c]`; at least one a sample.

    Args:
        first, second: covariances `[b, c, c]`; no gradient passes.
        share: `[b]`, of c * c entries.
    """
    channels = first.shape[1]
    above = torch.ones(channels, channels, dtype=torch.bool, device=first.device).triu(1)
    # Of two values the variance is a quarter of their squared difference.
    variance = (first.detach() - second.detach()).square() / 4.0
    variance = torch.where(above, variance, -torch.ones_like(variance)).flatten(1)
    number = (share * channels * channels).long().clamp(1, max(1, channels * (channels - 1) // 2))
    rank = variance.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < number[:, None]).reshape(first.shape) & above


def whitening_loss(matrix: Tensor, chosen: Tensor) -> Tensor:
    """Mean over samples of the mean absolute value of the chosen entries.

    Args:
        matrix: covariances `[b, c, c]`. chosen: `bool [b, c, c]`; a sample without one counts 0.
    """
    sums = torch.where(chosen, matrix.abs(), torch.zeros_like(matrix)).sum(dim=(1, 2))
    mean: Tensor = (sums / chosen.sum(dim=(1, 2)).clamp_min(1)).mean()
    return mean


def depth_loss(depth: Tensor, label: Tensor) -> Tensor:
    """Mean squared error of a map `[b, s, s]` against 1 everywhere for live faces and 0 for attacks."""
    return F.mse_loss(depth, (label == LIVE_COLUMN).to(depth)[:, None, None].expand_as(depth))


class Iadg(MeanLossMethod):
    """All terms are means over samples, each sample's mask and style its own; base styles are an epoch's constants."""

    terms = ("cross_entropy", "depth", "augmented_cross_entropy", "augmented_depth", "whitening")

    def __init__(self, context: MethodContext, network: IadgNetwork, settings: IadgSettings) -> None:
        super().__init__(context, network)
        self._network = network
        self._settings = settings
        self.bank: StyleBank | None = None
        self._bank_epoch = _NO_EPOCH

    def start_epoch(self, epoch: int, clean_batches: Callable[[], Iterable[TrainingBatch]]) -> Scalars:
        """Takes the epoch's base styles; of an epoch that was begun before a restart they are kept as restored.

        Returns:
            `style_bank/live`, `style_bank/attack`: how many there are.

        Raises:
            TrainingDiverged: features that are not finite.
        """
        if not self._settings.restyles:
            return {}
        if self._bank_epoch != str(epoch):
            self.bank = self._take_styles(clean_batches())
            self._bank_epoch = str(epoch)
        bank = self._current_bank()
        return {"style_bank/live": float(len(bank.live)), "style_bank/attack": float(len(bank.attack))}

    @torch.no_grad()
    def _take_styles(self, batches: Iterable[TrainingBatch]) -> StyleBank:
        parameter = next(self._network.parameters())
        styles = [parameter.new_zeros(0, 2, self._network.feature_width)]
        labels = [torch.zeros(0, dtype=torch.int64, device=parameter.device)]
        with evaluation_mode(self._network):
            for batch in batches:
                batch = batch.to(self.compute.device)
                with self.compute.autocast():
                    feature = self._network(batch.planes, batch.present).feature
                styles.append(styles_of(widened(feature)).to(parameter.dtype))
                labels.append(batch.label)
        found = torch.cat(styles)
        if not bool(found.isfinite().all()):
            raise TrainingDiverged(f"features are not finite at update {self.updates}; lower the learning rate, or "
                                   "look for a broken input")
        return StyleBank.of(found, torch.cat(labels), kept=self._settings.base_styles, compute=self.compute)

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """A term with weight 0 is not computed."""
        settings, output = self._settings, self._network(batch.planes, batch.present)
        zero = widened(output.logits).new_zeros(())
        terms = dict.fromkeys(self.terms, zero)
        terms["cross_entropy"] = F.cross_entropy(widened(output.logits), batch.label)
        if settings.depth_weight:
            terms["depth"] = settings.depth_weight * depth_loss(widened(output.depth), batch.label)
        if not settings.restyles:
            return terms
        restyled = self._network.assembly(self._restyled(output.feature, batch.label))
        if settings.augmented_weight:
            judged = self._network.judge(restyled)
            terms["augmented_cross_entropy"] = settings.augmented_weight * F.cross_entropy(widened(judged.logits),
                                                                                           batch.label)
            terms["augmented_depth"] = settings.augmented_weight * settings.depth_weight * depth_loss(
                widened(judged.depth), batch.label)
        if settings.whitening_weight:
            terms["whitening"] = settings.whitening_weight * self._whitening(output.feature, restyled, batch.label)
        return terms

    def _restyled(self, feature: Tensor, label: Tensor) -> Tensor:
        bank = self._current_bank()
        for _ in range(RESTYLINGS):
            own = styles_of(widened(feature))
            mean, spread = bank.mixed(own, label, drawn=self._settings.draw_styles).to(feature.dtype).unbind(1)
            feature = feature + assembled(feature, spread, mean)
        return feature

    def _whitening(self, feature: Tensor, restyled: Tensor, label: Tensor) -> Tensor:
        first, second = covariance(widened(self._network.assembly(feature))), covariance(widened(restyled))
        share = torch.where(label == LIVE_COLUMN, self._settings.live_share, self._settings.attack_share)
        chosen = sensitive_entries(first, second, share)
        return whitening_loss(first, chosen) + whitening_loss(second, chosen)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Also the base styles, and the epoch that they were taken for."""
        tensors, metadata = super().state()
        return tensors | (self.bank.state() if self.bank else {}), metadata | {_EPOCH: self._bank_epoch}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restores `state`.

        Raises:
            ValueError: missing entries, or a state of another run.
        """
        if _EPOCH not in metadata:
            raise ValueError(f"{_EPOCH} is missing: this state was saved by a method without base styles")
        bank = None
        if metadata[_EPOCH] != _NO_EPOCH:
            bank = StyleBank.from_state(tensors, self.compute.device)
        super().load_state(tensors, metadata)
        self.bank, self._bank_epoch = bank, metadata[_EPOCH]

    def _current_bank(self) -> StyleBank:
        if self.bank is None:
            raise RuntimeError("no base styles yet; call start_epoch before the first update")
        return self.bank


def build_iadg(context: MethodContext, settings: IadgSettings) -> Method:
    """Raises `MethodError` (see `check_start`), `BackboneError`."""
    check_start(context)
    config = context.model

    def drawn() -> IadgNetwork:
        match settings.trunk:
            case Trunk.OWN:
                return IadgNetwork(DynamicTrunk(config), config)
            case Trunk.VIT:
                return IadgNetwork(ViTTrunk(config, dense=True), config)
            case Trunk.U_ADAPTER:
                return IadgNetwork(UAdapterTrunk(config, dense=True), config)

    network = draw_network(context, drawn)
    start(network, context)
    return Iadg(context, network, settings)


_entry = partial(MethodEntry, settings=IadgSettings, build=build_iadg, still={"draw_styles": False},
                 cross_entropy_alone={"depth_weight": 0.0, "augmented_weight": 0.0, "whitening_weight": 0.0})

ROWS = (
    _entry(name="iadg", title="IADG", summary="restyled samples, covariance whitening, dynamic kernels",
           source="arXiv 2304.05640 (CVPR 2023); arXiv 2402.19298, Tables 1 to 3", fixed={"trunk": Trunk.OWN},
           own_backbone=True),
    _entry(name="iadg_vit", title="IADG on ViT", summary="IADG's styles and whitening on the plain ViT's patch tokens",
           source="arXiv 2304.05640; arXiv 2402.19298, Figure 5", fixed={"trunk": Trunk.VIT}),
    _entry(name="iadg_u_adapter", title="IADG on ViT + U-Adapter",
           summary="IADG's styles and whitening on the patch tokens of MMDG's network",
           source="arXiv 2304.05640; arXiv 2402.19298, Table 4 and Figure 5", fixed={"trunk": Trunk.U_ADAPTER}),
)
