"""Tables and figures of the paper as grids: which methods, protocols and modalities each of them needs.

Rows are named by `methods.registry.METHODS`. A row that is not in the registry is no job: it is listed with the reason.
Hyper-parameters are those of each method's recipe file (`method_recipes`); a *scale* (`recipes/scales/`) then overrides
for all methods alike what a smaller machine cannot do: size of the network, length, optimiser.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from mmdg_model.scorer import Modality
from mmdg_model.training.benchmark_grid import GridConfig, GridError, GridPart, MethodRow
from mmdg_model.training.method_recipes import MethodRecipeError, method_recipe
from mmdg_model.training.methods.clip_start import clip_shortfall
from mmdg_model.training.methods.registry import METHODS
from mmdg_model.training.protocols import PROTOCOL_1, PROTOCOL_3
from mmdg_model.weights.backbone import load_backbone

#: Rows of later papers; they are run where the registry has them, by name or in `all`.
LATER_METHODS = ("mmdg_plus_plus", "flip", "clip", "dadm", "mmda")
_NEEDS_CLIP = "needs CLIP weights"

_VIT = ("vit_early", "vit_late", "vit_cross")
_TABLE_1 = ("ssdg", "ssan", "iadg", "vitaf", "mm_cdcn", "cmfl", "vit_ama", "vp_fas", *_VIT, "mmdg")
_TABLE_4 = ("vit_early", "vit_late", "vit_cross", "vit_late_regrad", "ssdg_u_adapter", "ssan_u_adapter",
            "iadg_u_adapter", "pmr_u_adapter", "ogm_ge_u_adapter", "u_adapter", "mmdg_conflicted_only",
            "mmdg_unconflicted_only", "mmdg")
_TABLE_5 = ("mmdg_without_certainty", "mmdg_certainty_in_regrad_only", "mmdg_certainty_in_adapter_only", "mmdg")
#: Method -> its rows on its own backbone (empty: it has none of its own), on a plain ViT, on ViT + U-Adapter.
BACKBONE_SWAPS: Mapping[str, tuple[str, str, str]] = MappingProxyType({
    "SSDG": ("ssdg", "ssdg_vit", "ssdg_u_adapter"), "SSAN": ("ssan", "ssan_vit", "ssan_u_adapter"),
    "IADG": ("iadg", "iadg_vit", "iadg_u_adapter"), "CMFL": ("cmfl", "cmfl_vit", "cmfl_u_adapter"),
    "PMR": ("", "pmr_vit", "pmr_u_adapter"), "OGM-GE": ("", "ogm_ge_vit", "ogm_ge_u_adapter")})
#: Of Fig. 1(c): each is trained with one modality alone and with all three.
ONE_AND_ALL = ("vit_late",)
FUSED = ("vit_late", "u_adapter", "mmdg")
#: Of Fig. 6: the same losses without and with ReGrad.
BALANCE = ("u_adapter_ssp", "mmdg")

#: Keys of a scale that are the evaluation's, not a run's.
_OF_EVALUATION = ("resamples", "permutations")
#: Key of a scale: settings in which methods count updates or epochs themselves, cut as the training is cut.
_LENGTHS = "method_lengths"
_P1 = tuple(each.name for each in PROTOCOL_1)
_P3 = tuple(each.name for each in PROTOCOL_3)


@dataclass(frozen=True, kw_only=True)
class PaperItem:
    """A table or figure.

    Attributes:
        name: as `--table` has it. title: for people. protocols: trainings.
        methods: rows with all modalities. single: methods that are also trained on one modality alone.
        tests_only: nothing is trained: the checkpoints of Table 1 are tested again.
    """

    name: str
    title: str
    methods: tuple[str, ...]
    protocols: tuple[str, ...] = _P1
    single: tuple[str, ...] = ()
    tests_only: bool = False


def _distinct(*groups: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group if name))


_SWAPPED = _distinct(*BACKBONE_SWAPS.values())

ITEMS: Mapping[str, PaperItem] = MappingProxyType({item.name: item for item in (
    PaperItem(name="1", title="Table 1, Protocol 1: three data sets train, the fourth is the target",
              methods=_TABLE_1),
    PaperItem(name="2", title="Table 2, Protocol 2: Table 1's checkpoints with modalities withheld", methods=_TABLE_1,
              tests_only=True),
    PaperItem(name="3", title="Table 3, Protocol 3: two data sets train, two are the target", methods=_TABLE_1,
              protocols=_P3),
    PaperItem(name="4", title="Table 4: ReGrad and other ways of balancing, on ViT + U-Adapter", methods=_TABLE_4),
    PaperItem(name="5", title="Table 5: where the certainty is used", methods=_TABLE_5),
    PaperItem(name="fig1c", title="Fig. 1(c): one modality against all of them fused", methods=FUSED,
              single=ONE_AND_ALL),
    PaperItem(name="fig5", title="Fig. 5: backbones swapped", methods=_distinct(_SWAPPED, ("u_adapter", "mmdg"))),
    PaperItem(name="fig6", title="Fig. 6: variance of the SSP losses without and with ReGrad", methods=BALANCE),
    PaperItem(name="fig7", title="Fig. 7: where MMDG is uncertain and what its adapters attend to",
              methods=("mmdg",)),
    PaperItem(name="all",
              title="every row of Tables 1, 2, 4, 5 and Figs. 1(c), 5, 6, 7 and of later methods, on Protocol 1",
              methods=_distinct(("vit_late", "u_adapter", "mmdg"), _TABLE_1, _TABLE_4, _TABLE_5, _SWAPPED, BALANCE,
                                LATER_METHODS),
              single=ONE_AND_ALL),
)})


def why_absent(method: str) -> str:
    """Why a method was not run, of which nothing else is known."""
    if method not in METHODS:
        return "not implemented here"
    return _NEEDS_CLIP if METHODS[method].needs_clip else "not run"


@dataclass(frozen=True, kw_only=True)
class PaperGrid:
    """A grid, and the rows that it lacks: (method, reason)."""

    item: PaperItem
    grid: GridConfig
    absent: tuple[tuple[str, str], ...]


def paper_grid(name: str, *, seeds: Sequence[int] = (0,), methods: Sequence[str] = (), protocols: Sequence[str] = (),
               scale: str = "", preset: str = "", method_recipes: Path | None = None,
               backbone: Path | None = None) -> PaperGrid:
    """The jobs of a table or figure.

    Args:
        methods: only these of its rows, or of `LATER_METHODS`. protocols: only these of its trainings.
        scale: a name in `recipes/scales/` or a YAML file; empty for the paper's size with each method's own recipe.
        preset: of the network, over the scale's.
        method_recipes: folder of recipe files that go before those of the program.
        backbone: file that runs start from. Rows on CLIP are left out with the reason where it holds no CLIP.

    Raises:
        BackboneError: rows on CLIP are asked for, and the file cannot be used.
        GridError: an unknown name, a row or training that the table does not have, or no row that can be run.
    """
    if name not in ITEMS:
        raise GridError(f"no table {name!r}; there are {', '.join(ITEMS)}")
    item = ITEMS[name]
    chosen = _chosen(methods, item.methods, (*item.methods, *LATER_METHODS), f"table {name} has no row")
    trained = _chosen(protocols, item.protocols, item.protocols, f"table {name} has no training")
    changes = read_scale(scale)
    if preset:
        changes["model"] = dict(changes.get("model", {})) | {"preset": preset}
    present = [method for method in chosen if method in METHODS]
    if not present:
        raise GridError(f"table {name}: none of {', '.join(chosen)} is implemented here; there are "
                        f"{', '.join(METHODS)}")
    if on_clip := [method for method in present if METHODS[method].needs_clip]:
        shortfall = clip_shortfall(load_backbone(backbone) if backbone is not None else None)
        present = [method for method in present if not shortfall or method not in on_clip]
        if not present:
            raise GridError(f"table {name}: {', '.join(on_clip)} {shortfall}")
    parts = [GridPart(name="rows", methods=tuple(_row(method, changes, method_recipes) for method in present),
                      protocols=trained)]
    parts += [GridPart(name=f"only_{modality}", protocols=trained, run={"inputs": {"modalities": [str(modality)]}},
                       methods=tuple(_row(method, changes, method_recipes) for method in item.single
                                     if method in present))
              for modality in Modality if set(item.single) & set(present)]
    grid = GridConfig(parts=tuple(parts), seeds=tuple(seeds), resamples=int(changes.get("resamples", 2000)),
                      permutations=int(changes.get("permutations", 2000)))
    return PaperGrid(
        item=item, grid=grid,
        absent=tuple((method, why_absent(method)) for method in chosen if method not in present))


def _chosen(wanted: Sequence[str], default: Sequence[str], known: Sequence[str],
            what: str) -> tuple[str, ...]:
    if unknown := [name for name in wanted if name not in known]:
        raise GridError(f"{what} {unknown[0]!r}; it has {', '.join(known)}")
    return tuple(name for name in known if name in wanted) if wanted else tuple(default)


def _row(method: str, scale: Mapping[str, Any], folder: Path | None) -> MethodRow:
    """A method with its recipe, and over it what the scale says."""
    try:
        recipe = method_recipe(method, folder)
    except MethodRecipeError as error:
        raise GridError(str(error)) from error
    run = {key: value for key, value in scale.items() if key not in (*_OF_EVALUATION, _LENGTHS)}
    own = _settings_of(method)
    lengths = {name: value for name, value in scale.get(_LENGTHS, {}).items() if name in own}
    return MethodRow(method=method, settings=dict(recipe.settings) | lengths, run=_over(recipe.run, run))


def _settings_of(method: str) -> frozenset[str]:
    return frozenset(each.name for each in dataclasses.fields(METHODS[method].settings))


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two levels of plain values; what `above` names wins, `model.changes` and the like whole."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = dict(merged[key]) | dict(value) if both else value
    return merged


def read_scale(scale: str) -> dict[str, Any]:
    """What a scale changes of every run, nested plain values; empty for the paper's size.

    Raises:
        GridError: no such scale, or a file that is none.
    """
    if not scale:
        return {}
    folder = resources.files("mmdg_model.training") / "recipes" / "scales"
    known = sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml"))
    try:
        text = (Path(scale).read_text(encoding="utf-8") if scale.endswith((".yaml", ".yml"))
                else (folder / f"{scale}.yaml").read_text(encoding="utf-8") if scale in known else None)
        values = yaml.safe_load(text) if text is not None else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GridError(f"scale {scale} cannot be read: {error}") from error
    if text is None:
        raise GridError(f"no scale {scale!r}; there are {', '.join(known)}, or name a .yaml file")
    if not isinstance(values, Mapping):
        raise GridError(f"scale {scale}: {values!r}, expected a mapping such as model, recipe, optimiser")
    lengths = values.get(_LENGTHS, {})
    if not isinstance(lengths, Mapping):
        raise GridError(f"scale {scale}: {_LENGTHS} is {lengths!r}, expected settings and their values")
    for name in lengths:
        if not any(name in _settings_of(method) for method in METHODS):
            raise GridError(f"scale {scale}: {_LENGTHS}.{name} is no setting of any method")
    return dict(values)
