"""Backbone files: a pretrained ViT at rest, from which training starts. A backbone is no liveness model.

One safetensors file; the header carries one metadata key, `mmdg_live_backbone`, with sorted JSON. `load_checkpoint`
refuses such a file, and no scorer takes one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from mmdg_model.config import Activation, ConfigError, EmbeddingNorm, ModelConfig, PositionEmbedding
from mmdg_model.network import MMDG
from mmdg_model.plain_values import from_plain, to_plain
from mmdg_model.safetensors_header import BACKBONE_KEY, header_metadata
from mmdg_model.vit import build_block, build_embedding
from mmdg_model.weights.clip_text import ClipTextError, check_text_weights
from mmdg_model.whole_file import write_whole

FORMAT_VERSION = 1

#: What a backbone's and a network's configuration both hold.
BACKBONE_FIELDS = ("width", "heads", "depth", "patch_size", "image_size", "mlp_ratio", "layer_norm_eps", "activation",
                   "embedding_norm")

#: Before the names of a CLIP's text tower in a file; `import-weights --text-tower` keeps it.
_TEXT = "text."

_ABOUT_KEYS = ("format_version", "backbone", "layout", "source_sha256", "pixel_mean", "pixel_std", "created_by")


class BackboneError(ValueError):
    """A backbone cannot be used; the message quotes the file, the key, the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Shape and conventions of a pretrained ViT: the part of `ModelConfig` that a backbone decides.

    Attributes:
        projection_width: columns of CLIP's image projection; 0 for backbones without one.
        others: as in `ModelConfig`.

    Raises:
        ConfigError: a value out of range.
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
    projection_width: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.projection_width <= 65536:
            raise ConfigError(f"backbone.projection_width is {self.projection_width!r}, expected 0 to 65536")
        self.model_config()

    def model_config(self, **choices: Any) -> ModelConfig:
        """A network around this backbone; `choices` are `ModelConfig`'s other values."""
        return ModelConfig(**{name: getattr(self, name) for name in BACKBONE_FIELDS}, **choices)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of a backbone's weights: `embedding.*`, `blocks.<k>.*`, `norm.*`, perhaps `projection`."""
        config = self.model_config()
        with torch.device("meta"):
            parts = nn.ModuleDict({"embedding": build_embedding(config),
                                   "blocks": nn.ModuleList(build_block(config) for _ in range(self.depth)),
                                   "norm": nn.LayerNorm(self.width)})
        shapes = {name: tuple(weight.shape) for name, weight in parts.state_dict().items()}
        if self.projection_width:
            shapes["projection"] = (self.width, self.projection_width)
        return shapes

    def to_dict(self) -> dict[str, int | float | str]:
        """Plain values under the field names, as JSON stores them."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Reads `to_dict`'s form strictly.

        Raises:
            ConfigError: naming the key and quoting the value.
        """
        return cls(**from_plain(cls, values, section="backbone", error=ConfigError))


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A pretrained ViT.

    Attributes:
        config: see `BackboneConfig`.
        weights: float32, names and shapes of `config.shapes()`.
        layout, source_sha256: what it was imported from.
        pixel_mean, pixel_std: of RGB in 0..1, as it was trained; for the record, applied by nobody.
        created_by: program that wrote the file.
        hash: SHA-256 of the file in hexadecimal; empty before it is saved.
        text: CLIP's text tower (`clip_text`), where the file carries it; None where not. Scores never need it.
    """

    config: BackboneConfig
    weights: dict[str, Tensor] = field(repr=False)
    layout: str
    source_sha256: str
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    created_by: str
    hash: str = ""
    text: dict[str, Tensor] | None = field(default=None, repr=False)


def save_backbone(backbone: Backbone, path: Path) -> str:
    """Writes the file whole or not at all, and returns its SHA-256. Same backbone, same bytes.

    Raises:
        BackboneError: weights that `load_backbone` would refuse.
    """
    _check_weights(backbone.weights, backbone.config, str(path))
    _check_text(backbone.text, str(path))
    about = {"format_version": FORMAT_VERSION, "backbone": backbone.config.to_dict(), "layout": backbone.layout,
             "source_sha256": backbone.source_sha256, "pixel_mean": list(backbone.pixel_mean),
             "pixel_std": list(backbone.pixel_std), "created_by": backbone.created_by}
    named = backbone.weights | {f"{_TEXT}{name}": weight for name, weight in (backbone.text or {}).items()}
    weights = {name: weight.detach().cpu().contiguous() for name, weight in named.items()}
    blob = safetensors.torch.save(weights, metadata={BACKBONE_KEY: json.dumps(about, sort_keys=True, allow_nan=False)})
    write_whole(path, blob)
    return hashlib.sha256(blob).hexdigest()


def load_backbone(path: Path) -> Backbone:
    """Reads and checks a backbone file.

    Raises:
        BackboneError: unreadable, damaged, another kind of file, or weights that do not fit its configuration.
    """
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise BackboneError(f"backbone {path}: cannot be read ({error.strerror}); make one with "
                            "mmdg import-weights") from error
    try:
        weights = safetensors.torch.load(blob)
        metadata = header_metadata(blob)
        about = json.loads(metadata[BACKBONE_KEY]) if BACKBONE_KEY in metadata else None
    except (safetensors.SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise BackboneError(f"backbone {path}: not a whole safetensors file ({error}); import it again") from error
    if about is None:
        raise BackboneError(f"backbone {path}: no metadata key {BACKBONE_KEY!r}; this is another kind of file: make a "
                            "backbone with mmdg import-weights")
    config = _described(about, str(path))
    text = {name.removeprefix(_TEXT): weight for name, weight in weights.items() if name.startswith(_TEXT)} or None
    weights = {name: weight for name, weight in weights.items() if not name.startswith(_TEXT)}
    _check_weights(weights, config, str(path))
    _check_text(text, str(path))
    return Backbone(config=config, weights=weights, text=text, layout=about["layout"],
                    source_sha256=about["source_sha256"],
                    pixel_mean=tuple(about["pixel_mean"]), pixel_std=tuple(about["pixel_std"]),
                    created_by=about["created_by"], hash=hashlib.sha256(blob).hexdigest())


def check_fit(config: ModelConfig, backbone: Backbone) -> None:
    """Refuses a backbone for a network of another shape or convention.

    Raises:
        BackboneError: listing each value that differs.
    """
    ours, theirs = config.to_dict(), backbone.config.to_dict()
    if differing := [f"{key} is {ours[key]} in the network, {value} in the backbone" for key, value in theirs.items()
                     if key in ours and ours[key] != value]:
        raise BackboneError(f"backbone of {backbone.layout} does not fit the network: {'; '.join(differing)}; "
                            "build the network from backbone.config.model_config()")


def place_backbone(network: MMDG, backbone: Backbone, *, positions: bool | None = None) -> None:
    """Puts a backbone into a network: blocks and final norm once, the embedding into each modality.

    Adapters and head stay as they are. An image projection is not used.

    Args:
        network: whose configuration agrees with the backbone's wherever both speak.
        backbone: as loaded.
        positions: also the position embeddings, each modality its own copy; False leaves the network's fresh ones, as
            the release of MMDG does. None: as the network's `position_embedding` says.

    Raises:
        BackboneError: listing each value that differs.
    """
    check_fit(network.config, backbone)
    if positions is None:
        positions = network.config.position_embedding is PositionEmbedding.PRETRAINED
    placed: dict[str, Tensor] = {}
    for name, weight in backbone.weights.items():
        part, _, rest = name.partition(".")
        if part == "embedding" and (positions or rest != "position"):
            placed.update({f"embeddings.{index}.{rest}": weight for index in range(len(network.embeddings))})
        elif part == "blocks":
            number, _, inner = rest.partition(".")
            placed[f"blocks.{number}.block.{inner}"] = weight
        elif part == "norm":
            placed[name] = weight
    unexpected = network.load_state_dict(placed, strict=False).unexpected_keys
    assert not unexpected, unexpected


def _described(about: object, place: str) -> BackboneConfig:
    if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
        version = about.get("format_version") if isinstance(about, dict) else about
        raise BackboneError(f"backbone {place}: format_version is {version!r}, this program reads {FORMAT_VERSION}; "
                            "import it again")
    if set(about) != set(_ABOUT_KEYS):
        odd = sorted(set(about) ^ set(_ABOUT_KEYS))
        raise BackboneError(f"backbone {place}: metadata key {odd[0]!r} is unknown or missing; import it again")
    for key in ("layout", "source_sha256", "created_by"):
        if not isinstance(about[key], str):
            raise BackboneError(f"backbone {place}: {key} is {about[key]!r}, expected a text; import it again")
    for key in ("pixel_mean", "pixel_std"):
        value = about[key]
        if not isinstance(value, list) or len(value) != 3 or not all(isinstance(number, float) for number in value):
            raise BackboneError(f"backbone {place}: {key} is {value!r}, expected three numbers; import it again")
    if not isinstance(about["backbone"], dict):
        raise BackboneError(f"backbone {place}: backbone is {about['backbone']!r}, expected an object; import it again")
    try:
        return BackboneConfig.from_dict(about["backbone"])
    except ConfigError as error:
        raise BackboneError(f"backbone {place}: {error}; import it again") from error


def _check_text(text: Mapping[str, Tensor] | None, place: str) -> None:
    try:
        if text is not None:
            check_text_weights(text)
    except ClipTextError as error:
        raise BackboneError(f"backbone {place}: {error}; import it again with --text-tower") from error


def _check_weights(weights: Mapping[str, Tensor], config: BackboneConfig, place: str) -> None:
    # Before anything of the declared size is made: a declared depth must be backed by as many weights.
    if config.depth > len(weights):
        raise BackboneError(f"backbone {place}: depth is {config.depth}, but there are {len(weights)} weights; import "
                            "it again")
    expected = config.shapes()
    if odd := sorted(set(expected) ^ set(weights)):
        raise BackboneError(f"backbone {place}: weight {odd[0]!r} is {'missing' if odd[0] in expected else 'unknown'}, "
                            f"as are {len(odd) - 1} more; import it again")
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape or weights[name].dtype is not torch.float32:
            raise BackboneError(f"backbone {place}: weight {name!r} is {weights[name].dtype} "
                                f"{tuple(weights[name].shape)}, expected float32 {shape}; import it again")
        if not bool(torch.isfinite(weights[name]).all()):
            raise BackboneError(f"backbone {place}: weight {name!r} holds NaN or infinity; import it again")
