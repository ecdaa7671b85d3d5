"""Check 6: noise at the sensor. What is fixed belongs to a camera's serial; the rest changes from frame to frame.

Filmed here, not read from a tree: crops are compressed, and the face moves. The scene stands still.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.simulator_audit.findings import BOUNDS, Findings, number_line

NOISE = "6 seeds and noise"
_FLOAT = NDArray[np.float64]
_REGION = np.s_[140:340, 220:420]


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """Frames of a scene at rest: `[t, h, w]` of the middle of each plane; depth in metres with its truth, NaN holes."""

    colour: _FLOAT
    infrared: _FLOAT
    depth_m: _FLOAT
    true_depth_m: _FLOAT


def film(*, seed: int, serial: str, frames: int, profile: str = "d4xx", scene_seed: int = 5) -> Film:
    """Films a flat print at rest; scenes of one `scene_seed` are equal, `seed` is of the sensors' noise."""
    from capture.camera import Pace
    from capture.simulated.camera import SimulatedCamera
    from capture.simulated.catalogue import make_scene
    from capture.simulated.truth import SimulatedTruth

    colour, infrared, depth, truth = [], [], [], None
    scene = make_scene("flat_print", seed=scene_seed, distance_m=0.5, speed=0.0)
    with SimulatedCamera(scene, seed=seed, serial=serial, profile=profile, pace=Pace.LOCKSTEP, frames=frames,
                         with_truth=True) as camera:
        for _ in range(frames):
            frame_set = camera.read(1.0)
            assert frame_set.depth is not None, "no fault was asked for"
            assert frame_set.infrared is not None, "no fault was asked for"
            colour.append(frame_set.colour.pixels[..., 1][_REGION].astype(np.float64))
            infrared.append(frame_set.infrared.pixels[_REGION].astype(np.float64))
            depth.append(frame_set.depth.pixels[_REGION].astype(np.float64) * (frame_set.depth_scale_m or 0.0))
            if truth is None:
                assert isinstance(frame_set.truth, SimulatedTruth), "asked for with_truth"
                truth = frame_set.truth.render_truth().depth_m[_REGION].astype(np.float64)
    assert truth is not None, "at least one frame is filmed"
    metres = np.stack(depth)
    return Film(colour=np.stack(colour), infrared=np.stack(infrared),
                depth_m=np.where(metres > 0, metres, np.nan), true_depth_m=truth)


def check_sensor_noise(findings: Findings, *, frames: int = 8) -> None:
    """Residuals between frames, fixed patterns between recordings, and depth noise in space and time."""
    one, two, three = (film(seed=seed, serial="AUDIT-A", frames=frames) for seed in (1, 2, 3))
    another = film(seed=4, serial="AUDIT-B", frames=frames)
    for name in ("colour", "infrared"):
        planes = [_sharp(getattr(each, name)) for each in (one, two, three, another)]
        # Scene and fixed pattern are taken from two *other* recordings, one for each frame of a pair: their own noise
        # then is not shared by the pair.
        first, second = (each.mean(axis=0) for each in planes[1:3])
        pairs = [_correlation(_without(planes[0][i], first), _without(planes[0][j], second))
                 for i in range(frames) for j in range(frames) if i != j]
        between = float(np.mean(pairs))
        findings.add(number_line(
            NOISE, f"{name}: correlation of two frames of a recording, scene and fixed pattern removed",
            "camera at rest", abs(between), f"≤ {BOUNDS.residual_correlation:.2f}",
            abs(between) <= BOUNDS.residual_correlation, units=f"{len(pairs)} pairs of frames"))
        # Both units' mean is the scene; what is left of each recording is its unit's pattern.
        scene = (first + planes[3].mean(axis=0)) / 2
        pattern = _correlation(_without(planes[0].mean(axis=0), scene), _without(second, scene))
        findings.add(number_line(
            NOISE, f"{name}: correlation of one serial's pattern over two recordings", "camera at rest", pattern,
            f"≥ {BOUNDS.fixed_pattern:.2f}", pattern >= BOUNDS.fixed_pattern, units=f"{frames} frames each"))
    _check_depth(one, findings)


def _check_depth(of: Film, findings: Findings) -> None:
    # Disparity is what is noisy: errors of 1/z do not depend on where the surface lies.
    error = 1 / of.depth_m - 1 / of.true_depth_m
    error -= np.nanmean(error, axis=(1, 2), keepdims=True)
    spread = np.nanstd(error)
    error = np.where(np.abs(error) < 5 * spread, error, np.nan)
    across = {lag: _lagged(error[:, :, lag:], error[:, :, :-lag]) for lag in (1, 2, 4, 8)}
    along = {lag: _lagged(error[lag:], error[:-lag]) for lag in (1, 2, 4)}
    for what, values in (("neighbouring pixels", across), ("successive frames", along)):
        findings.add(number_line(
            NOISE, f"depth noise of d4xx: correlation between {what}", "camera at rest", values[1],
            f"≥ {BOUNDS.noise_correlation:.2f}", values[1] >= BOUNDS.noise_correlation,
            note=", ".join(f"{value:.2f} at {lag}" for lag, value in values.items())))


def _sharp(planes: _FLOAT) -> _FLOAT:
    """Without what is smooth: exposure and light differ a little between recordings."""
    return np.stack([plane - cv2.GaussianBlur(plane, (0, 0), 3.0) for plane in planes])


def _without(plane: _FLOAT, content: _FLOAT) -> _FLOAT:
    """The plane less its share of a content; each recording's exposure makes that share its own.

    The response is curved, so the share may differ between dark and bright places: one for each tenth of the content.
    """
    rest = np.empty_like(plane)
    edges = np.quantile(content, np.linspace(0, 1, 11))
    part = np.clip(np.searchsorted(edges, content, side="right") - 1, 0, 9)
    for one in range(10):
        here = part == one
        centred = content[here] - content[here].mean()
        share = (centred @ plane[here]) / max(float(centred @ centred), 1e-9)
        rest[here] = plane[here] - plane[here].mean() - share * centred
    return rest


def _correlation(one: _FLOAT, other: _FLOAT) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _lagged(one: _FLOAT, other: _FLOAT) -> float:
    known = np.isfinite(one) & np.isfinite(other)
    return _correlation(one[known], other[known])
