"""Check 5: one rendering path for both labels, as measured: noise levels and the fall of the spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmdg_model.training.samples import BONA_FIDE
from pipeline.simulator_audit.areas import Area, area, units
from pipeline.simulator_audit.describing import NOISE
from pipeline.simulator_audit.findings import Findings, at_chance
from pipeline.simulator_audit.frames import Frames
from pipeline.simulator_audit.linear_probe import folds_by, held_out_scores

PARITY = "5 rendering parity"


def check_parity(null: Frames, findings: Findings) -> None:
    """On null attacks: the same surfaces, so noise and sharpness must be the same, measure by measure and together."""
    for number, name in enumerate(NOISE):
        score = null.noise[:, number].astype(np.float64)
        findings.add(at_chance(PARITY, name, "all domains, null attacks", _area(null, score),
                               note=_means(null, number)))
    together = held_out_scores(null.noise, null.live, folds_by(null.person.astype(str)), null.domain)
    if together is not None:
        findings.add(at_chance(PARITY, "all six in one linear probe", "all domains, null attacks",
                               _area(null, together)))


def tabulate_noise(frames: Frames, findings: Findings) -> None:
    """Medians by scene with physics on: there, paper may be smoother than skin, and this says by how much."""
    rows = [["scene", "frames", *NOISE]]
    for scene in sorted(set(frames.scene.tolist()), key=lambda name: (name != BONA_FIDE, name)):
        own = frames.noise[frames.scene == scene]
        medians = [float(np.median(column[np.isfinite(column)])) if np.isfinite(column).any() else np.nan
                   for column in own.T]
        rows.append([scene, str(len(own)), *("-" if np.isnan(each) else f"{each:.2f}" for each in medians)])
    findings.tables["Noise levels (codes) and spectral slopes by scene: medians over frames"] = rows


def _area(frames: Frames, score: NDArray[np.float64]) -> Area | None:
    known = np.isfinite(score)
    if not known.any() or np.ptp(score[known]) == 0:
        return None
    return area(units(score, frames.live, frames.domain, frames.person.astype(str), frames.recording))


def _means(frames: Frames, number: int) -> str:
    live, other = (frames.noise[which, number] for which in (frames.live, ~frames.live))
    return f"median {np.nanmedian(live):.3f} live, {np.nanmedian(other):.3f} null attacks"
