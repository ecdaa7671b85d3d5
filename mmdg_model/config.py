"""`ModelConfig`: every number that shapes the network, and the strict dictionary form that a checkpoint carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from mmdg_model.plain_values import from_plain, to_plain


class Activation(StrEnum):
    """Non-linearity of the ViT's MLPs; pretrained weights fit one only."""

    GELU = "gelu"  # exact; torchvision, timm, Hugging Face
    QUICK_GELU = "quick_gelu"  # z * sigmoid(1.702 z); OpenAI CLIP


class EmbeddingNorm(StrEnum):
    """What happens to embedded tokens before the first block."""

    NONE = "none"
    LAYER_NORM = "layer_norm"  # OpenAI CLIP


class UncertaintyEstimatorKind(StrEnum):
    """How the spread of an activation under dropout is obtained."""

    ANALYTIC = "analytic"  # closed form, the limit of infinitely many dropout samples; deterministic


class UncertaintyStatistic(StrEnum):
    """Which spread of an element under dropout counts as its uncertainty."""

    STANDARD_DEVIATION = "standard_deviation"  # the released code
    VARIANCE = "variance"  # the paper's text


class UncertaintyReduction(StrEnum):
    """How the channels of a token become one certainty."""

    EXP_THEN_MEAN = "exp_then_mean"  # the released code: mean over channels of exp(-rate * u)
    MEAN_THEN_EXP = "mean_then_exp"  # the paper's text: exp(-rate * mean over channels of u)


class ConfigError(ValueError):
    """A model configuration is impossible; the message quotes the key, the value and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and constants of one MMDG network (arXiv 2402.19298). The defaults are the released ViT-B/16 form.

    Attributes:
        width: channels d of the residual stream.
        heads: attention heads of the ViT blocks; must divide `width`.
        depth: number of ViT blocks.
        patch_size, image_size: in pixels; the image is square and a whole number of patches wide.
        mlp_ratio: hidden width of a block's MLP over `width`.
        layer_norm_eps: of the ViT's layer norms (torchvision's ViT-B/16: 1e-6).
        activation, embedding_norm: see the enumerations; other values than the defaults serve imported backbones.
        adapter_width, adapter_heads: bottleneck of a U-Adapter and its attention heads.
        cdc_theta: share of the central difference in the adapter's convolution, 0 (plain convolution) to 1.
        adapter_dropout: dropout before an adapter's up projection, training only.
        uncertainty_rate: r_e of U = exp(-r_e * x). The paper gives no value; 2.25 is the release's.
        uncertainty_dropout: p of the dropout whose effect on an activation is its uncertainty (release: 0.3).
        uncertainty_estimator, uncertainty_statistic, uncertainty_reduction: see the enumerations.

    Raises:
        ConfigError: a value out of range, or two that do not fit together.
    """

    width: int = 768
    heads: int = 12
    depth: int = 12
    patch_size: int = 16
    image_size: int = 224
    mlp_ratio: int = 4
    layer_norm_eps: float = 1e-6
    activation: Activation = Activation.GELU
    embedding_norm: EmbeddingNorm = EmbeddingNorm.NONE
    adapter_width: int = 8
    adapter_heads: int = 8
    cdc_theta: float = 0.5
    adapter_dropout: float = 0.2
    uncertainty_rate: float = 2.25
    uncertainty_dropout: float = 0.3
    uncertainty_estimator: UncertaintyEstimatorKind = UncertaintyEstimatorKind.ANALYTIC
    uncertainty_statistic: UncertaintyStatistic = UncertaintyStatistic.STANDARD_DEVIATION
    uncertainty_reduction: UncertaintyReduction = UncertaintyReduction.EXP_THEN_MEAN

    def __post_init__(self) -> None:
        for name in ("width", "heads", "depth", "patch_size", "image_size", "mlp_ratio", "adapter_width",
                     "adapter_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}, expected an integer of at least 1")
        for name, divisor in (("width", "heads"), ("adapter_width", "adapter_heads"), ("image_size", "patch_size")):
            if getattr(self, name) % getattr(self, divisor):
                raise ConfigError(f"model.{name} is {getattr(self, name)}, expected a multiple of "
                                  f"model.{divisor} = {getattr(self, divisor)}")
        for name in ("cdc_theta", "adapter_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}, expected 0 to 1")
        if not 0.0 < self.uncertainty_dropout < 1.0:
            raise ConfigError(f"model.uncertainty_dropout is {self.uncertainty_dropout!r}, expected between 0 and 1, "
                              "both excluded")
        for name in ("uncertainty_rate", "layer_norm_eps"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}, expected a positive number")

    @classmethod
    def base(cls) -> Self:
        """ViT-B/16, the paper's size: 88,252,034 parameters."""
        return cls()

    @classmethod
    def tiny(cls) -> Self:
        """The same network at ViT-Ti width, for tests, demonstrations and small processors."""
        return cls(width=192, heads=3)

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """Tokens of one modality: the class token and one a patch."""
        return self.grid * self.grid + 1

    def to_dict(self) -> dict[str, int | float | str]:
        """Plain values under the field names, as JSON stores them."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Reads `to_dict`'s form: every key required, none unknown, no value coerced.

        Raises:
            ConfigError: naming the key and quoting the value.
        """
        return cls(**from_plain(cls, values, section="model", error=ConfigError))
