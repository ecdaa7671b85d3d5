"""`MMDGPlusPlusConfig` and `DomainPromptConfig`: every number of MMDG++, and what differs from its release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from mmdg_model.config import ConfigError
from mmdg_model.inputs import AbsenceEncoding
from mmdg_model.plain_values import from_plain, to_plain


class QueryEstimator(StrEnum):
    """How an adapter's query distribution N(mu, diag(exp(logvar))) becomes one query and one certainty."""

    ANALYTIC = "analytic"  # the query is mu, the uncertainty mean exp(logvar): no randomness
    SAMPLED = "sampled"  # mean and unbiased variance of draws, in training and in use (release)


class QuerySelection(StrEnum):
    """Which of an adapter's two queries a token takes in training. In use it is always the more certain one."""

    BY_CERTAINTY = "by_certainty"  # the other modality's with probability certainty_1 / (certainty_1 + certainty_2)
    OTHER_MODALITY = "other_modality"  # always the other modality's: what the release's inverted fraction amounts to


class PlaceholderSearch(StrEnum):
    """How the places of the learnable tokens in a tokenised sentence are found."""

    TOKEN_ID = "token_id"  # where the placeholder's token id stands  # noqa: S105
    WHITESPACE_WORDS = "whitespace_words"  # by counting words (release): wrong once a word has several tokens


#: Largest accepted values, so that a stranger's checkpoint cannot ask for gigabytes.
_LARGEST = {
    "width": 4096, "heads": 64, "depth": 64, "patch_size": 1024, "image_size": 1024, "mlp_ratio": 16,
    "feature_width": 4096, "adapter_width": 1024, "adapter_heads": 64, "query_samples": 1000,
    "context_length": 1024, "vocabulary_size": 1_000_000, "num_domains": 1000, "prompt_tokens": 64,
}


@dataclass(frozen=True, kw_only=True)
class MMDGPlusPlusConfig:
    """Shape and constants of the network that scores: CLIP's image tower, adapters, projections, head.

    Attributes:
        width, heads, depth, patch_size, image_size, mlp_ratio, layer_norm_eps: CLIP ViT-B/16's image tower.
        feature_width: channels of CLIP's joint space, which the projections lead to.
        adapter_width, adapter_heads: bottleneck of a U-Adapter++ and its attention heads.
        cdc_theta: share of the central difference in the adapter's convolution.
        uncertainty_rate: of certainty = exp(-rate * uncertainty). The release's network passes 2.5 (the default of its
            adapter class is 2.25).
        query_estimator, query_selection: see the enumerations.
        query_samples: draws of the sampled estimator.
        sampling_seed: of the draws in evaluation mode, where each pass begins anew.

    Raises:
        ConfigError: a value out of range, or two that do not fit together.
    """

    width: int = 768
    heads: int = 12
    depth: int = 12
    patch_size: int = 16
    image_size: int = 224
    mlp_ratio: int = 4
    layer_norm_eps: float = 1e-5
    feature_width: int = 512
    adapter_width: int = 8
    adapter_heads: int = 8
    cdc_theta: float = 0.5
    uncertainty_rate: float = 2.5
    query_estimator: QueryEstimator = QueryEstimator.ANALYTIC
    query_selection: QuerySelection = QuerySelection.BY_CERTAINTY
    query_samples: int = 50
    sampling_seed: int = 0

    def __post_init__(self) -> None:
        _check_integers(self, ("width", "heads", "depth", "patch_size", "image_size", "mlp_ratio", "feature_width",
                               "adapter_width", "adapter_heads"))
        _check_integers(self, ("query_samples",), smallest=2)  # one draw has no variance
        _check_multiples(self, (("width", "heads"), ("adapter_width", "adapter_heads"), ("image_size", "patch_size")))
        if not 0.0 <= self.cdc_theta <= 1.0:
            raise ConfigError(f"model.cdc_theta is {self.cdc_theta!r}, expected 0 to 1")
        for name in ("uncertainty_rate", "layer_norm_eps"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"model.{name} is {getattr(self, name)!r}, expected a positive number")
        if not 0 <= self.sampling_seed < 2**63:
            raise ConfigError(f"model.sampling_seed is {self.sampling_seed!r}, expected 0 to 2**63 - 1")

    @classmethod
    def base(cls) -> Self:
        """CLIP ViT-B/16, deterministic, with the intended selection probability."""
        return cls()

    @classmethod
    def release(cls) -> Self:
        """As `base`, with the released code's sampling and its training-time selection."""
        return cls(query_estimator=QueryEstimator.SAMPLED, query_selection=QuerySelection.OTHER_MODALITY)

    @classmethod
    def tiny(cls) -> Self:
        """The same network at ViT-Ti width, for tests and small processors. No CLIP weights fit it."""
        return cls(width=192, heads=3, feature_width=128)

    @property
    def absence(self) -> AbsenceEncoding:
        """Always the flag: the only encoding that MMDG++ was made for."""
        return AbsenceEncoding.FLAG

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


@dataclass(frozen=True, kw_only=True)
class DomainPromptConfig:
    """Shape of the text side, which only training needs: CLIP's text tower and the learnable prompts.

    Attributes:
        width, heads, depth, mlp_ratio, layer_norm_eps, context_length, vocabulary_size: CLIP ViT-B/16's text tower.
        feature_width: channels of the joint space; equal to `MMDGPlusPlusConfig.feature_width`.
        num_domains: one for all live faces and one for each data set's attacks.
        live_domain: the row that all live faces share; the release's order is WMCA, live, CeFA, CASIA-SURF, PADISI.
        prompt_tokens: learnable tokens of a domain.
        placeholder_search: see `PlaceholderSearch`.

    Raises:
        ConfigError: a value out of range, or two that do not fit together.
    """

    width: int = 512
    heads: int = 8
    depth: int = 12
    mlp_ratio: int = 4
    layer_norm_eps: float = 1e-5
    context_length: int = 77
    vocabulary_size: int = 49408
    feature_width: int = 512
    num_domains: int = 5
    live_domain: int = 1
    prompt_tokens: int = 5
    placeholder_search: PlaceholderSearch = PlaceholderSearch.TOKEN_ID

    def __post_init__(self) -> None:
        _check_integers(self, ("width", "heads", "depth", "mlp_ratio", "context_length", "vocabulary_size",
                               "feature_width", "num_domains", "prompt_tokens"), section="prompts")
        _check_multiples(self, (("width", "heads"),), section="prompts")
        if not 0 <= self.live_domain < self.num_domains:
            raise ConfigError(f"prompts.live_domain is {self.live_domain!r}, expected 0 to {self.num_domains - 1}")
        if not 0.0 < self.layer_norm_eps < float("inf"):
            raise ConfigError(f"prompts.layer_norm_eps is {self.layer_norm_eps!r}, expected a positive number")


def _check_integers(config: object, names: tuple[str, ...], *, smallest: int = 1, section: str = "model") -> None:
    for name in names:
        value = getattr(config, name)
        if not smallest <= value <= _LARGEST[name]:
            raise ConfigError(f"{section}.{name} is {value!r}, expected an integer of {smallest} to {_LARGEST[name]}")


def _check_multiples(config: object, pairs: tuple[tuple[str, str], ...], *, section: str = "model") -> None:
    for name, divisor in pairs:
        if getattr(config, name) % getattr(config, divisor):
            raise ConfigError(f"{section}.{name} is {getattr(config, name)}, expected a multiple of "
                              f"{section}.{divisor} = {getattr(config, divisor)}")
