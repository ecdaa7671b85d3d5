"""`PretrainingConfig`: everything that decides the outcome of one pretraining run, and nothing else.

Its canonical JSON is hashed. Where the data lies, threads, and time limits are the machine's business and not part
of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from mmdg_model.config import ConfigError
from mmdg_model.training.methods.contract import OptimiserConfig
from mmdg_model.training.run_config import ModelChoice
from mmdg_model.training.samples import PUBLIC_DOMAINS, Domain
from mmdg_model.weights.backbone import BACKBONE_FIELDS, BackboneConfig

_Part = TypeVar("_Part", "PretrainingConfig", "ObjectiveConfig", OptimiserConfig)

#: float16 is not offered: it needs a loss scale, and bfloat16 is as quick wherever it exists.
PRECISIONS = ("32-true", "bf16-mixed")


class PretrainingError(ValueError):
    """A pretraining run cannot be made or gone on with; the message quotes the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The light decoder that is thrown away afterwards. MAE's defaults for ViT-B are 512 wide, 8 deep, 16 heads.

    Raises:
        ValueError: a value out of range.
    """

    width: int = 96
    depth: int = 2
    heads: int = 3

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            if not 1 <= getattr(self, name) <= 2048:
                raise ValueError(f"decoder.{name} is {getattr(self, name)!r}, expected 1 to 2048")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"decoder.width is {self.width}, expected a multiple of 4 and of heads = {self.heads}")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What is minimised: masked + cross_modal_weight · cross-modal + class_token_weight · class token.

    Attributes:
        mask_share: share of the patches hidden from the encoder (MAE: 0.75).
        cross_modal_weight: of reconstructing another modality of the same crop from the visible patches of one; 0
            leaves plain MAE, single images one by one.
        class_token_weight: of predicting every patch's mean colour from the class token alone. MAE gives the class
            token no target; MMDG reads nothing else.
        variance_floor_levels: standard deviation, in 8-bit levels, below which a patch counts as flat. Targets are
            normalised by sqrt(variance + floor²); MAE's own 1e-6 would blow up JPEG noise of one level on black and on
            depth to full size.

    Raises:
        ValueError: a value out of range.
    """

    mask_share: float = 0.75
    cross_modal_weight: float = 1.0
    class_token_weight: float = 1.0
    variance_floor_levels: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.mask_share < 1.0:
            raise ValueError(f"objective.mask_share is {self.mask_share!r}, expected between 0 and 1, both excluded")
        for name, low, high in (("cross_modal_weight", 0.0, 100.0), ("class_token_weight", 0.0, 100.0),
                                ("variance_floor_levels", 1e-3, 255.0)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"objective.{name} is {getattr(self, name)!r}, expected {low:g} to {high:g}")


@dataclass(frozen=True, kw_only=True)
class CropAugmentationConfig:
    """MAE's: a random square crop, resized, and a flip; the same for all modalities of a sample.

    Attributes:
        least_side: least side of the random crop as a share of the image. MAE takes areas from 0.2 of whole
            photographs; a face crop has no margin to lose, so half a side here.
        flip: probability of mirroring.

    Raises:
        ValueError: a value out of range.
    """

    least_side: float = 0.5
    flip: float = 0.5

    def __post_init__(self) -> None:
        for name, low in (("least_side", 0.1), ("flip", 0.0)):
            if not low <= getattr(self, name) <= 1.0:
                raise ValueError(f"augmentation.{name} is {getattr(self, name)!r}, expected {low:g} to 1")


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """One pretraining run.

    Attributes:
        model: preset and changes; of the network only what a backbone decides is used (`BACKBONE_FIELDS`).
        decoder, objective, augmentation, optimiser: see their classes. MAE's AdamW betas, 0.9 and 0.95.
        domains: letters of the data sets whose training lists are read.
        epochs, batch_size: passes over the samples, and samples of an update; each is up to three images.
        seed: of initial weights, order, augmentation and masks.
        precision: one of `PRECISIONS`.
        data: fingerprint of the crops (`crops.UnlabelledCrops.fingerprint`), empty until they have been read.
        simulated: whether the tree says that it is simulated.
        disjoint_from: SHA-256 of the `simulated.json` of each benchmark whose identities were found to be others.

    Raises:
        ValueError: a value out of range.
    """

    model: ModelChoice = field(default_factory=lambda: ModelChoice(preset="micro"))
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    augmentation: CropAugmentationConfig = field(default_factory=CropAugmentationConfig)
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(
        name="adamw", learning_rate=1e-3, weight_decay=0.05, warmup_updates=50, final_rate_share=0.0))
    domains: tuple[str, ...] = tuple(str(domain) for domain in PUBLIC_DOMAINS)
    epochs: int = 40
    batch_size: int = 32
    seed: int = 0
    precision: str = "bf16-mixed"
    data: str = ""
    simulated: bool = False
    disjoint_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least {least}")
        if not self.domains or len(set(self.domains)) != len(self.domains) or set(self.domains) - set(Domain):
            raise ValueError(f"domains are {self.domains!r}, expected some of {', '.join(Domain)}, each once")
        if self.optimiser.name != "adamw":
            raise ValueError(f"optimiser.name is {self.optimiser.name!r}, expected adamw")
        model = self.model.resolve()
        if model.width % 4:
            raise ValueError(f"model.width is {model.width}, expected a multiple of 4 for sines as positions")
        visible = visible_patches(model.grid**2, self.objective.mask_share)
        if not 0 < visible < model.grid**2:
            raise ValueError(f"objective.mask_share {self.objective.mask_share:g} leaves {visible} of {model.grid**2} "
                             "patches visible, expected at least one visible and one hidden")

    def backbone_config(self) -> BackboneConfig:
        """Shape of the backbone that comes out. Raises `ConfigError`."""
        model = self.model.resolve()
        return BackboneConfig(**{name: getattr(model, name) for name in BACKBONE_FIELDS})

    def to_json(self) -> str:
        """Canonical: keys sorted, every value stated."""
        return json.dumps(msgspec.to_builtins(self), sort_keys=True, indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> PretrainingConfig:
        """Raises `PretrainingError`."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, ValueError) as error:
            raise PretrainingError(f"pretraining configuration: {error}") from error

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of `to_json`."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]


def visible_patches(patches: int, mask_share: float) -> int:
    """How many patches the encoder sees; MAE rounds down."""
    return int(patches * (1.0 - mask_share))


#: Recipes by name. `micro` and `tiny`: for processors (cost: docs/pretraining.md); `base`: MAE's own decoder and rate,
#: for a GPU.
_RECIPES: dict[str, dict[str, Any]] = {
    "micro": {},
    "tiny": {},
    "base": {"decoder": DecoderConfig(width=512, depth=8, heads=16), "epochs": 400, "batch_size": 256,
             "optimiser": OptimiserConfig(name="adamw", learning_rate=4.5e-4, weight_decay=0.05, warmup_updates=500,
                                          final_rate_share=0.0)},
}
RECIPES = tuple(_RECIPES)


def recipe(name: str, **changes: Any) -> PretrainingConfig:
    """The recipe of a model preset, with fields changed.

    Raises:
        PretrainingError: no such recipe, or an impossible change.
    """
    if name not in _RECIPES:
        raise PretrainingError(f"no pretraining recipe {name!r}; there are {', '.join(RECIPES)}")
    return changed(PretrainingConfig(model=ModelChoice(preset=name), **_RECIPES[name]), **changes)


def changed(config: _Part, **changes: Any) -> _Part:
    """A copy of a configuration or of a part of one, with fields replaced. Raises `PretrainingError`."""
    try:
        return dataclasses.replace(config, **changes)
    except (ConfigError, ValueError) as error:
        raise PretrainingError(f"pretraining configuration: {error}") from error
