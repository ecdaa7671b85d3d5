"""A foreign weight file to one of ours: a backbone, a whole MMDG checkpoint, or MMDG++ weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from mmdg_model.checkpoint import Checkpoint, save_checkpoint
from mmdg_model.config import ConfigError
from mmdg_model.inputs import DepthEncoding, InputSpecification
from mmdg_model.network import MODALITIES, build_mmdg
from mmdg_model.scorer import Purpose
from mmdg_model.torch_scorer import measure_known_answer
from mmdg_model.weights.backbone import BACKBONE_FIELDS, Backbone, BackboneConfig, save_backbone
from mmdg_model.weights.clip_text import ClipTextError, text_tower_of
from mmdg_model.weights.layout import Layout, Result, Translation, WeightImportError
from mmdg_model.weights.layouts import AUTO, choose_layout
from mmdg_model.weights.official import is_official
from mmdg_model.weights.openai_clip import OPENAI_CLIP
from mmdg_model.weights.plus_plus_file import PlusPlusWeights, save_plus_plus
from mmdg_model.weights.released_mmdg import RELEASED_CHOICES
from mmdg_model.weights.released_mmdg_plus_plus import plus_plus_shapes
from mmdg_model.weights.source_file import SourceFile, read_source

#: Weights do not say how many heads share their width. ViT-Ti, S, B, L and CLIP's all have 64 channels a head.
CHANNELS_A_HEAD = 64

_CREATED_BY = "mmdg import-weights"


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        layout, result: which layout it was, and what was written.
        source_sha256, output_sha256: of the two files.
        prefix, container: taken off every name; the key the weights were under.
        left_out: names that belong to the layout and were not needed, and what they are.
        config: of the result, plain values.
        purpose: of a checkpoint; None for a backbone.
        text_tower: whether CLIP's text tower was kept beside the backbone.
    """

    layout: str
    result: Result
    source_sha256: str
    output_sha256: str
    prefix: str
    container: str
    left_out: dict[str, str]
    config: dict[str, int | float | str]
    purpose: Purpose | None
    text_tower: bool = False


def import_weights(source: Path, output: Path, *, layout: str = AUTO, purpose: Purpose | None = None,
                   heads: int | None = None, depth_encoding: DepthEncoding | None = None,
                   text_tower: bool = False) -> ImportReport:
    """Reads `source`, translates every weight, writes `output`, which must not exist.

    Args:
        source: safetensors or `torch.save` file.
        output: written whole or not at all.
        layout: a name of `LAYOUTS`, or `auto`.
        purpose: of a resulting checkpoint, `test` unless stated; a backbone has none.
        heads: attention heads; by default one for each 64 channels.
        depth_encoding: what the checkpoint's depth input is; by default `identity_8bit`, because released models were
            trained on data-set images. A backbone has none.
        text_tower: keep CLIP's text tower, too, for training methods that compare with sentences.

    Raises:
        WeightImportError: anything that does not fit. Nothing is written then.
    """
    if output.exists():
        raise WeightImportError(f"output {output}: exists and is not overwritten; name another or remove it")
    file = read_source(source, trusted_torchscript=is_official)
    chosen = choose_layout(layout, file.weights, str(source))
    if text_tower and chosen.name != OPENAI_CLIP.name:
        raise WeightImportError(f"weights {source}: --text-tower goes with layout {OPENAI_CLIP.name!r}, this is "
                                f"{chosen.name!r}: give the whole CLIP")
    translation = chosen.translate(file.weights, str(source))
    try:
        if chosen.result is Result.BACKBONE:
            if purpose is not None or depth_encoding is not None:
                raise WeightImportError(f"weights {source}: layout {chosen.name!r} gives a backbone, which decides "
                                        "nothing: it takes no purpose and no depth encoding")
            config, output_hash = _write_backbone(file, chosen, translation, heads, output, text_tower)
        elif chosen.result is Result.MMDG_PLUS_PLUS:
            if depth_encoding is not None:
                raise WeightImportError(f"weights {source}: a file of MMDG++ weights takes no depth encoding yet")
            purpose = purpose or Purpose.TEST
            config, output_hash = _write_plus_plus(file, chosen, translation, heads, purpose, output)
        else:
            purpose = purpose or Purpose.TEST
            config, output_hash = _write_checkpoint(file, chosen, translation, heads, purpose,
                                                    depth_encoding or DepthEncoding.IDENTITY_8BIT, output)
    except (ConfigError, ClipTextError) as error:
        raise WeightImportError(f"weights {source}: {error}") from error
    return ImportReport(layout=chosen.name, result=chosen.result, source_sha256=file.sha256, output_sha256=output_hash,
                        prefix=file.prefix, container=file.container, left_out=translation.left_out, config=config,
                        purpose=purpose, text_tower=text_tower)


def infer_config(translation: Translation, layout: Layout, place: str, *, heads: int | None = None,
                 embedding: str = "embedding", block: str = "blocks.{}",
                 patches_name: str = "") -> BackboneConfig:
    """Sizes from the shapes of three weights, conventions from the layout.

    Args:
        translation, layout, place: what was read, as what, from where.
        heads: attention heads; by default one for each 64 channels.
        embedding, block, patches_name: what these parts are called in the translation.

    Raises:
        WeightImportError: shapes that no ViT has, or a width that does not tell the number of heads.
        ConfigError: sizes that do not fit together.
    """
    patches, position, expansion = (translation.weights[patches_name or f"{embedding}.patches.weight"],
                                    translation.weights[f"{embedding}.position"],
                                    translation.weights[f"{block.format(0)}.mlp.0.weight"])
    projection = translation.weights.get("projection")
    if (patches.dim() != 4 or patches.shape[1] != 3 or patches.shape[2] != patches.shape[3] or 0 in patches.shape):
        raise _misshapen(place, patches_name or f"{embedding}.patches.weight", translation, "(width, 3, patch, patch)")
    width, patch_size = patches.shape[0], patches.shape[2]
    grid = round(max(position.shape[1] - 1, 0) ** 0.5) if position.dim() == 3 else 0
    if grid < 1 or tuple(position.shape) != (1, grid * grid + 1, width):
        raise _misshapen(place, f"{embedding}.position", translation,
                         f"one row for the class token and one for each patch of a square image, {width} wide")
    if expansion.dim() != 2 or expansion.shape[0] < width or expansion.shape[0] % width:
        raise _misshapen(place, f"{block.format(0)}.mlp.0.weight", translation, f"(a multiple of {width}, {width})")
    if projection is not None and projection.dim() != 2:
        raise _misshapen(place, "projection", translation, f"({width}, any)")
    if heads is None and width % CHANNELS_A_HEAD:
        raise WeightImportError(f"weights {place}: width is {width}, no multiple of {CHANNELS_A_HEAD}, so the number "
                                "of attention heads cannot be told; state it with --heads")
    depth = sum(1 for name in translation.weights if name.endswith(".mlp.0.weight"))
    return BackboneConfig(width=width, heads=heads if heads is not None else width // CHANNELS_A_HEAD, depth=depth,
                          patch_size=patch_size, image_size=grid * patch_size, mlp_ratio=expansion.shape[0] // width,
                          layer_norm_eps=layout.convention.layer_norm_eps, activation=layout.convention.activation,
                          embedding_norm=layout.convention.embedding_norm,
                          projection_width=0 if projection is None else projection.shape[1])


def _misshapen(place: str, name: str, translation: Translation, needed: str) -> WeightImportError:
    return WeightImportError(f"weights {place}: {translation.sources[name]} has shape "
                             f"{tuple(translation.weights[name].shape)}, needed {needed}; this is no such ViT, choose "
                             "the layout that fits")


def _write_backbone(file: SourceFile, layout: Layout, translation: Translation, heads: int | None,
                    output: Path, text_tower: bool) -> tuple[dict[str, int | float | str], str]:
    config = infer_config(translation, layout, str(file.path), heads=heads)
    weights = translation.checked(config.shapes(), str(file.path), layout.name)
    backbone = Backbone(config=config, weights=weights, layout=layout.name, source_sha256=file.sha256,
                        pixel_mean=layout.convention.pixel_mean, pixel_std=layout.convention.pixel_std,
                        created_by=_CREATED_BY, text=text_tower_of(file.weights) if text_tower else None)
    return config.to_dict(), save_backbone(backbone, output)


def _write_checkpoint(file: SourceFile, layout: Layout, translation: Translation, heads: int | None, purpose: Purpose,
                      depth_encoding: DepthEncoding, output: Path) -> tuple[dict[str, int | float | str], str]:
    vit = infer_config(translation, layout, str(file.path), heads=heads, embedding="embeddings.0",
                       block="blocks.{}.block")
    down = translation.weights["blocks.0.adapters.rgb_from_depth.own_down.weight"]
    adapter_width = down.shape[0] if down.dim() else 0
    shared = {name: getattr(vit, name) for name in BACKBONE_FIELDS}
    config = dataclasses.replace(RELEASED_CHOICES, **shared, adapter_width=adapter_width)
    with torch.device("meta"):
        network = build_mmdg(config)
    shapes = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    weights = translation.checked(shapes, str(file.path), layout.name)
    network.load_state_dict(weights, assign=True)
    specification = InputSpecification(image_size=config.image_size, depth_encoding=depth_encoding)
    checkpoint = Checkpoint(
        config=config, input_spec=specification, purpose=purpose, weights=weights,
        known_answer=measure_known_answer(network.eval(), specification), created_by=_CREATED_BY,
        training={"weights": "imported", "layout": layout.name, "source_sha256": file.sha256})
    return config.to_dict(), save_checkpoint(checkpoint, output)


def _write_plus_plus(file: SourceFile, layout: Layout, translation: Translation, heads: int | None, purpose: Purpose,
                     output: Path) -> tuple[dict[str, int | float | str], str]:
    place, first = str(file.path), MODALITIES[0]
    vit = infer_config(translation, layout, place, heads=heads, embedding=f"embeddings.{first}",
                       block="blocks.{}.block", patches_name="patches.weight")
    prompts, projection = translation.weights[f"prompts.{first}"], translation.weights[f"projections.{first}"]
    down = translation.weights[f"blocks.0.adapters.{first}.own_down.weight"]
    for name, weight, axes in (("prompts", prompts, 3), ("projections", projection, 2)):
        if weight.dim() != axes or 0 in weight.shape:
            raise _misshapen(place, f"{name}.{first}", translation, f"{axes} axes")
    if down.dim() != 2 or 0 in down.shape:
        raise _misshapen(place, f"blocks.0.adapters.{first}.own_down.weight", translation, "2 axes")
    sizes = {"width": vit.width, "heads": vit.heads, "depth": vit.depth, "patch_size": vit.patch_size,
             "image_size": vit.image_size, "mlp_ratio": vit.mlp_ratio, "adapter_width": down.shape[0],
             "projection_width": projection.shape[1], "domains": prompts.shape[0], "prompt_tokens": prompts.shape[1],
             "prompt_width": prompts.shape[2]}
    weights = translation.checked(plus_plus_shapes(sizes), place, layout.name)
    released = PlusPlusWeights(sizes=sizes, weights=weights, purpose=purpose, source_sha256=file.sha256)
    return {**vit.to_dict(), **sizes}, save_plus_plus(released, output)
