"""`conditions`: from measures to guidance codes, worst first. Pure; the words for people are the kiosk's."""

from __future__ import annotations

from dataclasses import dataclass

from align.face_crop import CropQuality
from detect.face_finder import FaceFinding

#: All codes, worst first: what must be cured before the next one matters.
CODES = ("no_face", "multiple_faces", "too_dark", "too_bright", "modality_missing", "move_closer", "move_back",
         "centre_face", "look_at_camera", "depth_holes", "ir_saturated", "clean_lens")


@dataclass(frozen=True, kw_only=True)
class QualityLimits:
    """What a crop must meet to be judged. First guesses for a kiosk at arm's length; to be set from recordings.

    Attributes:
        nearest_m, farthest_m: distance of the face; `narrowest_px` its width where depth does not tell the distance.
        darkest, brightest: mean grey level of the face, 0..255.
        least_depth_fill: share of the face with a depth measurement. Screens and glass make holes, so this limit also
            decides when an attack is not judged at all instead of being judged as one.
        most_infrared_saturation: share of the face's infrared at full scale.
        least_sharpness: variance of the Laplacian on the crop.
        most_yaw_deg, most_pitch_deg, most_roll_deg: absolute angles.
        most_off_centre: distance of the face's centre from the image's, as a share of half the image's width or height.
    """

    nearest_m: float = 0.30
    farthest_m: float = 1.0
    narrowest_px: float = 60.0
    darkest: float = 40.0
    brightest: float = 225.0
    least_depth_fill: float = 0.5
    most_infrared_saturation: float = 0.25
    least_sharpness: float = 8.0
    most_yaw_deg: float = 30.0
    most_pitch_deg: float = 30.0
    most_roll_deg: float = 30.0
    most_off_centre: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.nearest_m < self.farthest_m:
            raise ValueError(f"nearest_m {self.nearest_m} and farthest_m {self.farthest_m} must be positive and rise")
        if not 0 <= self.darkest < self.brightest <= 255:
            raise ValueError(f"darkest {self.darkest} and brightest {self.brightest} must rise within 0..255")


def conditions(finding: FaceFinding, quality: CropQuality | None = None, limits: QualityLimits | None = None, *,
               refusal: str | None = None) -> list[str]:
    """Codes that hold for this frame, worst first; `[]` when the crop is fit to be judged.

    Args:
        finding: of the face finder. quality: of the subject's crop, None when there is none.
        refusal: `CropRefused.condition` when the subject could not be cropped.
    """
    limits = limits or QualityLimits()
    found = set(finding.conditions)
    if refusal is not None:
        found.add(refusal)
    if finding.subject is not None and _off_centre(finding) > limits.most_off_centre:
        found.add("centre_face")
    if quality is not None:
        found |= _quality_conditions(quality, limits)
    unknown = found - set(CODES)
    assert not unknown, f"codes without a rank: {sorted(unknown)}"
    return [code for code in CODES if code in found]


def _quality_conditions(quality: CropQuality, limits: QualityLimits) -> set[str]:
    distance_m = quality.distance_m
    checks = {
        "too_dark": quality.brightness < limits.darkest,
        "too_bright": quality.brightness > limits.brightest,
        "move_closer": quality.face_width_px < limits.narrowest_px or (distance_m or 0.0) > limits.farthest_m,
        "move_back": distance_m is not None and distance_m < limits.nearest_m,
        "look_at_camera": (abs(quality.yaw_deg) > limits.most_yaw_deg or abs(quality.pitch_deg) > limits.most_pitch_deg
                           or abs(quality.roll_deg) > limits.most_roll_deg),
        "depth_holes": quality.depth_fill is not None and quality.depth_fill < limits.least_depth_fill,
        "ir_saturated": (quality.infrared_saturation or 0.0) > limits.most_infrared_saturation,
        "clean_lens": quality.sharpness < limits.least_sharpness,
    }
    return {code for code, holds in checks.items() if holds}


def _off_centre(finding: FaceFinding) -> float:
    assert finding.subject is not None
    width, height = finding.image_size
    x, y = finding.subject.box.centre
    return max(abs(x / width - 0.5), abs(y / height - 0.5)) * 2
