"""`ModelConfig`: every number that shapes the network, and the strict dictionary form that a checkpoint carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from mmdg_model.inputs import LARGEST_IMAGE_SIZE, AbsenceEncoding
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
    FINITE_SAMPLES = "finite_samples"  # exact mean over all outcomes of a finite number of samples; deterministic
    MONTE_CARLO = "monte_carlo"  # drawn, as released; scores depend on a seed
    NONE = "none"  # every token fully certain (U = 1): the ablation without uncertainty


class UncertaintyStatistic(StrEnum):
    """Which spread of an element under dropout counts as its uncertainty."""

    STANDARD_DEVIATION = "standard_deviation"  # the released code
    VARIANCE = "variance"  # the paper's text


class UncertaintyReduction(StrEnum):
    """How the channels of a token become one certainty."""

    EXP_THEN_MEAN = "exp_then_mean"  # the released code: mean over channels of exp(-rate * u)
    MEAN_THEN_EXP = "mean_then_exp"  # the paper's text: exp(-rate * mean over channels of u)


class TrainableParts(StrEnum):
    """Which parameters training may change."""

    RELEASE = "release"  # adapters, last block, final norm, class tokens, position embeddings, head
    ADAPTERS_AND_HEAD = "adapters_and_head"  # the paper's Figure 3
    EVERYTHING = "everything"  # for a start without a pretrained backbone


class HeadInput(StrEnum):
    """What the classifying layer sees."""

    CONCATENATED = "concatenated"  # the released code: the class tokens of all modalities, 3 d wide
    RGB_TOKEN = "rgb_token"  # noqa: S105 - one class token, d wide (paper), of the stream that hears both others
    MEAN_TOKEN = "mean_token"  # noqa: S105 - one token, d wide: mean over the modalities that count


class ResidualSource(StrEnum):
    """What a block's MLP and adapters are added to."""

    STREAM = "stream"  # the released code: the pre-norm residual stream, as pretrained ViTs expect
    NORMED = "normed"  # the paper's Eq. 1-3 as printed: the output of the norm before the MLP


class AttentionDivisor(StrEnum):
    """Square of what an adapter's attention logits are divided by."""

    HEAD_WIDTH = "head_width"  # the released code: channels of one head (1 by default, so no division)
    ADAPTER_WIDTH = "adapter_width"  # the paper's n_k read as channels of a token


class PositionEmbedding(StrEnum):
    """Where the position embeddings of a network with a pretrained backbone start. Always one a modality."""

    PRETRAINED = "pretrained"  # each a copy of the backbone's
    FRESH = "fresh"  # the released code: drawn anew, N(0, 0.02)


class AdapterDirections(StrEnum):
    """Between which modalities adapters stand."""

    RGB_CENTRED = "rgb_centred"  # RGB with depth and RGB with infrared, both ways; the paper prohibits the third pair
    ALL_PAIRS = "all_pairs"  # depth with infrared as well, which the released code declares and never fills


#: Largest accepted value of each size: beyond any published ViT's, and far below what would exhaust a machine.
LARGEST = {"width": 2048, "heads": 64, "depth": 64, "patch_size": 64, "image_size": LARGEST_IMAGE_SIZE, "mlp_ratio": 8,
           "adapter_width": 256, "adapter_heads": 256, "uncertainty_samples": 1000}

#: Largest number of patches along one side; attention grows with its fourth power.
LARGEST_GRID = 64


#: Complete sets of values by name: sizes with the default choices, then sets of choices at the paper's size.
PRESETS = ("base", "tiny", "micro", "default", "release", "paper")


class ConfigError(ValueError):
    """A model configuration is impossible; the message quotes the key, the value and what is allowed."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape, constants and choices of one MMDG network (arXiv 2402.19298), at ViT-B/16 size unless changed.

    The paper's text and the authors' released code differ in many places; each such choice is a field here, explained
    in docs/model.md. `default`, `paper` and `release` are complete sets of choices.

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
        uncertainty_samples: t, the dropout samples that `finite_samples` and `monte_carlo` think of (release: 20).
        uncertainty_estimator, uncertainty_statistic, uncertainty_reduction: see the enumerations.
        trainable_parts, head_input, residual_source, attention_divisor, position_embedding, adapter_directions: see
            the enumerations.
        absence: what the network is told of an absent modality; must equal the input specification's.

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
    uncertainty_samples: int = 20
    uncertainty_estimator: UncertaintyEstimatorKind = UncertaintyEstimatorKind.ANALYTIC
    uncertainty_statistic: UncertaintyStatistic = UncertaintyStatistic.STANDARD_DEVIATION
    uncertainty_reduction: UncertaintyReduction = UncertaintyReduction.EXP_THEN_MEAN
    trainable_parts: TrainableParts = TrainableParts.RELEASE
    head_input: HeadInput = HeadInput.CONCATENATED
    residual_source: ResidualSource = ResidualSource.STREAM
    attention_divisor: AttentionDivisor = AttentionDivisor.HEAD_WIDTH
    position_embedding: PositionEmbedding = PositionEmbedding.PRETRAINED
    adapter_directions: AdapterDirections = AdapterDirections.RGB_CENTRED
    absence: AbsenceEncoding = AbsenceEncoding.FLAG

    def __post_init__(self) -> None:
        # Before anything is allocated: a stranger's checkpoint may declare what it likes.
        for name, largest in LARGEST.items():
            if not 1 <= getattr(self, name) <= largest:
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}, expected 1 to {largest}")
        for name, divisor in (("width", "heads"), ("adapter_width", "adapter_heads"), ("image_size", "patch_size")):
            if getattr(self, name) % getattr(self, divisor):
                raise ConfigError(f"model.{name} is {getattr(self, name)}, expected a multiple of "
                                  f"model.{divisor} = {getattr(self, divisor)}")
        if self.grid > LARGEST_GRID:
            raise ConfigError(f"model.image_size {self.image_size} over model.patch_size {self.patch_size} gives "
                              f"{self.grid} patches a side, expected at most {LARGEST_GRID}")
        for name in ("cdc_theta", "adapter_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}, expected 0 to 1")
        if not 0.0 < self.uncertainty_dropout < 1.0:
            raise ConfigError(f"model.uncertainty_dropout is {self.uncertainty_dropout!r}, expected between 0 and 1, "
                              "both excluded")
        for name in ("uncertainty_rate", "layer_norm_eps"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}, expected a positive number")
        if self.uncertainty_samples < 2 and self.uncertainty_estimator in (UncertaintyEstimatorKind.FINITE_SAMPLES,
                                                                           UncertaintyEstimatorKind.MONTE_CARLO):
            raise ConfigError(f"model.uncertainty_samples is {self.uncertainty_samples}, expected at least 2: one "
                              "sample has no spread")

    @classmethod
    def default(cls) -> Self:
        """What we suggest: the release's choices, with exact certainty and pretrained position embeddings."""
        return cls()

    @classmethod
    def release(cls) -> Self:
        """The authors' released code, its sampling replaced by the exact mean over its 20 samples."""
        return cls(uncertainty_estimator=UncertaintyEstimatorKind.FINITE_SAMPLES,
                   position_embedding=PositionEmbedding.FRESH)

    @classmethod
    def paper(cls) -> Self:
        """The paper's text taken literally wherever it says something; the release's value where it is silent."""
        return cls(uncertainty_statistic=UncertaintyStatistic.VARIANCE,
                   uncertainty_reduction=UncertaintyReduction.MEAN_THEN_EXP,
                   trainable_parts=TrainableParts.ADAPTERS_AND_HEAD, head_input=HeadInput.RGB_TOKEN,
                   residual_source=ResidualSource.NORMED, attention_divisor=AttentionDivisor.ADAPTER_WIDTH,
                   position_embedding=PositionEmbedding.PRETRAINED)

    @classmethod
    def base(cls) -> Self:
        """ViT-B/16, the paper's size, with the default choices: 88,252,034 parameters."""
        return cls()

    @classmethod
    def tiny(cls) -> Self:
        """The same network at ViT-Ti width, for tests, demonstrations and small processors."""
        return cls(width=192, heads=3)

    @classmethod
    def micro(cls) -> Self:
        """`tiny` on 112 x 112 pixels, 49 patches: to train on two processor cores what would wait for a GPU."""
        return cls(width=192, heads=3, image_size=112)

    @classmethod
    def preset(cls, name: str) -> Self:
        """One of `PRESETS` by name.

        Raises:
            ConfigError: no such name; lists those there are.
        """
        if name not in PRESETS:
            raise ConfigError(f"model preset {name!r}, expected one of {', '.join(PRESETS)}")
        configuration: Self = getattr(cls, name)()
        return configuration

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
