"""`METHODS`: every training method by name. A new method is its file and a row here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mmdg_model.training.methods import (
    clip,
    cmfl,
    dadm,
    flip,
    iadg,
    mm_cdcn,
    mmdg_plus_plus,
    ogm_ge,
    pmr,
    ssan,
    ssdg,
    vit_ama,
    vit_cross,
    vitaf,
    vp_fas,
)
from mmdg_model.training.methods.clip_start import clip_shortfall
from mmdg_model.training.methods.contract import Method, MethodContext, MethodError
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.mmdg import MmdgSettings, build_mmdg_method
from mmdg_model.training.methods.vit_early import ViTEarlySettings, build_vit_early
from mmdg_model.training.methods.vit_late import ViTLateSettings, build_vit_late
from mmdg_model.training.regrad import CertaintyFactor, ReGradCases
from mmdg_model.weights.backbone import Backbone

__all__ = ["METHODS", "MethodEntry", "MethodError", "build", "entry", "require_clip", "resolve_settings"]


def _mmdg(name: str, title: str, summary: str, source: str, **fixed: Any) -> MethodEntry:
    return MethodEntry(name=name, title=title, summary=summary, source=f"arXiv 2402.19298, {source}",
                       settings=MmdgSettings, build=build_mmdg_method, fixed=fixed)


def _by_name(*rows: MethodEntry) -> dict[str, MethodEntry]:
    found = {row.name: row for row in rows}
    assert len(found) == len(rows), "a method's name occurs twice"
    return found


METHODS: dict[str, MethodEntry] = _by_name(
    _mmdg("mmdg", "MMDG", "U-Adapters, cross entropy and SSP loss, ReGrad: the paper's method",
          "Sections 3.2 to 3.4, Tables 1 to 5"),
    _mmdg("u_adapter_ssp", "ViT + U-Adapter, CE + SSP", "MMDG without ReGrad", "Sections 3.2 and 3.3",
          regrad_cases=ReGradCases.OFF),
    _mmdg("u_adapter", "ViT + U-Adapter", "U-Adapters trained with the cross entropy alone",
          "Section 3.2, Table 4, row ViT + U-Adapter, -", ssp_weight=0.0, regrad_cases=ReGradCases.OFF),
    _mmdg("mmdg_conflicted_only", "MMDG, ReGrad (conflicted-only)", "ReGrad acts on conflicting gradients only",
          "Eq. 5, Table 4", regrad_cases=ReGradCases.CONFLICTED_ONLY),
    _mmdg("mmdg_unconflicted_only", "MMDG, ReGrad (unconflicted-only)", "ReGrad acts on agreeing gradients only",
          "Eq. 5, Table 4", regrad_cases=ReGradCases.UNCONFLICTED_ONLY),
    _mmdg("mmdg_without_certainty", "MMDG, U in neither", "certainty neither in the adapters nor in ReGrad",
          "Table 5, Eq. 4 no, Eq. 5 no", adapter_certainty=False, regrad_certainty=CertaintyFactor.ONE),
    _mmdg("mmdg_certainty_in_regrad_only", "MMDG, U in ReGrad only", "certainty in ReGrad, not in the adapters",
          "Table 5, Eq. 4 no, Eq. 5 yes", adapter_certainty=False, regrad_certainty=CertaintyFactor.MODALITY),
    _mmdg("mmdg_certainty_in_adapter_only", "MMDG, U in the adapters only", "certainty in the adapters, not in ReGrad",
          "Table 5, Eq. 4 yes, Eq. 5 no", adapter_certainty=True, regrad_certainty=CertaintyFactor.ONE),
    MethodEntry(name="vit_early", title="ViT, early fusion", summary="nine channels, a 1x1 convolution, one plain ViT",
                source="arXiv 2010.11929; fusion as arXiv 2402.19298, Section 4.1, has it for single-modality methods",
                settings=ViTEarlySettings, build=build_vit_early, fixed={}),
    MethodEntry(name="vit_late", title="ViT, late fusion", summary="one plain ViT for all modalities, tokens joined",
                source="arXiv 2010.11929; arXiv 2402.19298, Tables 1 to 4, row ViT (fusion not stated there)",
                settings=ViTLateSettings, build=build_vit_late, fixed={}),
    MethodEntry(name="vit_late_regrad", title="ViT, late fusion, ReGrad", summary="ReGrad on the plain ViT",
                source="arXiv 2402.19298, Table 4, row ViT, ReGrad", settings=ViTLateSettings, build=build_vit_late,
                fixed={"regrad": True}),
    *ssdg.ROWS,
    *ssan.ROWS,
    *iadg.ROWS,
    *vitaf.ROWS,
    *vit_cross.ROWS,
    *mm_cdcn.ROWS,
    *cmfl.ROWS,
    *vit_ama.ROWS,
    *vp_fas.ROWS,
    *pmr.ROWS,
    *ogm_ge.ROWS,
    *mmdg_plus_plus.ROWS,
    *clip.ROWS,
    *flip.ROWS,
    *dadm.ROWS,
)


def entry(name: str) -> MethodEntry:
    """By name.

    Raises:
        MethodError: no such method.
    """
    if name not in METHODS:
        raise MethodError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def has_own_backbone(name: str) -> bool:
    """Whether a method takes nothing from a pretrained ViT. False for a name that is no row: building it says so."""
    return name in METHODS and METHODS[name].own_backbone


def require_clip(name: str, backbone: Backbone | None) -> None:
    """Refuses a backbone that cannot start a method on CLIP, before anything is written for the run.

    Raises:
        MethodError: with the remedy; or no such method.
    """
    if entry(name).needs_clip and (shortfall := clip_shortfall(backbone)):
        raise MethodError(f"method {name} {shortfall}")


def resolve_settings(name: str, settings: Mapping[str, Any]) -> Any:
    """The method's settings dataclass from plain values, strictly.

    Raises:
        MethodError: an unknown method or key, a wrong type, a value out of range, or another value than the row's own.
    """
    row = entry(name)
    known = msgspec.to_builtins(row.settings())
    for key, value in settings.items():
        if key not in known:
            raise MethodError(f"method {name}: settings.{key} is unknown; known: {', '.join(known) or 'none'}")
        if key in row.fixed and value != msgspec.to_builtins(row.fixed[key]):
            raise MethodError(f"method {name}: settings.{key} is {value!r}, but this row is {row.fixed[key]!r} by "
                              "definition; choose another row")
    try:
        return msgspec.convert(known | msgspec.to_builtins(dict(row.fixed)) | dict(settings), row.settings)
    except (msgspec.ValidationError, ValueError) as error:
        raise MethodError(f"method {name}: settings: {error}") from error


def build(name: str, settings: Mapping[str, Any], context: MethodContext) -> Method:
    """The method, on the context's device.

    Raises:
        MethodError: as `resolve_settings`.
    """
    return entry(name).build(context, resolve_settings(name, settings))
