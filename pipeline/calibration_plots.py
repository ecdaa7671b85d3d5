"""Pictures of a score calibration: reliability, Tippett, error trade-off of each map. matplotlib loads when drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from calibration.error_rates import roc
from calibration.evidence_maps import frames_of
from calibration.likelihood_ratio_cost import reliability
from calibration.operating_point_file import EvidenceMap, OperatingPointFile

if TYPE_CHECKING:
    from calibration.evidence_maps import ScoredSession
    from pipeline.calibrating_scores import ScoreCalibration

#: Rates named on the axes of the error trade-off.
_RATES = np.array([0.01, 0.05, 0.2, 0.5, 0.8])


def draw_calibration(found: ScoreCalibration, folder: Path) -> list[Path]:
    """One picture a map, `CAMERA_KIND-SUBSET.png`, of three panels; returns the paths.

    1. Reliability: what LLRs say against what labels show, in ten groups of equal weight; and before calibration.
    2. Tippett: share of frames with an LLR of at least x, by class; before and after.
    3. Error trade-off of frames on normal-deviate axes; calibration does not move it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for one in found.file.maps:
        own = [session for session in found.sessions[tuple(one.modalities)]
               if session.camera_kind == one.camera_kind and session.logits]
        path = folder / f"{one.camera_kind}-{'+'.join(one.modalities)}.png"
        _draw(one, own, found.file, path)
        paths.append(path)
    return paths


def _draw(one: EvidenceMap, sessions: Sequence[ScoredSession], file: OperatingPointFile, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    logits, labels, weights = frames_of(sessions, file.species_weights)
    llrs = np.clip(one.scale * logits + one.offset, -one.frame_llr_clip, one.frame_llr_clip)
    series = (("logit taken as LLR", logits, "0.6", "--"), ("calibrated", llrs, "tab:blue", "-"))
    limit = 1.3 * one.frame_llr_clip
    _reliability(panels[0], series, labels, weights, limit)
    _tippett(panels[1], series, labels, weights)
    _trade_off(panels[2], logits, labels)
    figure.suptitle(f"{file.data.upper()} sessions, {one.camera_kind}, {'+'.join(one.modalities)}: Cllr "
                    f"{one.cllr_raw:.3f} raw, {one.cllr:.3f} calibrated, {one.cllr_min:.3f} at least; "
                    f"{one.sessions_bona_fide} bona fide and {one.sessions_attack} attack sessions", fontsize=9)
    figure.savefig(path, dpi=100)


def _reliability(axis: Any, series: Sequence[tuple[str, Any, str, str]], labels: Any, weights: Any,
                 limit: float) -> None:
    axis.plot([-limit, limit], [-limit, limit], color="0.8")
    for name, llrs, colour, line in series:
        bins = [each for each in reliability(llrs, labels, weights) if math.isfinite(each.observed)]
        axis.plot([each.predicted for each in bins], [each.observed for each in bins], line, marker="o",
                  color=colour, label=name, markersize=4)
    axis.set(xlabel="LLR predicted (nats)", ylabel="LLR observed", title="reliability", xlim=(-2 * limit, 2 * limit),
             ylim=(-2 * limit, 2 * limit))
    axis.legend(fontsize=7)


def _tippett(axis: Any, series: Sequence[tuple[str, Any, str, str]], labels: Any, weights: Any) -> None:
    for name, llrs, _, line in series:
        for live, colour in ((True, "tab:green"), (False, "tab:red")):
            order = np.argsort(llrs[labels == live])
            own, weight = llrs[labels == live][order], weights[labels == live][order]
            axis.step(own, 1 - (np.cumsum(weight) - weight) / weight.sum(), line, where="pre", color=colour,
                      linewidth=1, label=f"{'bona fide' if live else 'attack'}, {name}")
    axis.axvline(0, color="0.8")
    axis.set(xlabel="x (nats)", ylabel="share of frames with LLR at least x", title="Tippett")
    axis.legend(fontsize=6)


def _trade_off(axis: Any, logits: Any, labels: Any) -> None:
    curve = roc(logits, labels)
    apcer, bpcer = (stats.norm.ppf(np.clip(rate, 0.002, 0.998)) for rate in (curve.fpr, 1 - curve.tpr))
    axis.plot(apcer, bpcer, drawstyle="steps-post", color="tab:blue", linewidth=1)
    ticks = stats.norm.ppf(_RATES)
    axis.set_xticks(ticks, [f"{rate:.0%}" for rate in _RATES])
    axis.set_yticks(ticks, [f"{rate:.0%}" for rate in _RATES])
    axis.set(xlabel="attack frames at or above the threshold", ylabel="bona fide frames below it",
             title="error trade-off of frames")
    axis.grid(alpha=0.3)
