"""Rough head pose from BlazeFace's six keypoints: enough to ask someone to look at the camera, not for more.

A rigid head of average size is fitted under weak perspective (DeMenthon and Davis, 1995: one affine least-squares step,
then the nearest rotation). Simulated on the same head the fit is exact; on people, individual proportions and the
detector's pixel of jitter leave some 5 to 10 degrees (an estimate, not a measurement).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detect.faces import KEYPOINT_NAMES, FaceBox

#: Average adult head in millimetres, facing the camera: x to the person's left (image right), y down, z away from the
#: camera, origin between the eyes. Round figures of ordinary proportions, taken from no data set.
HEAD_POINTS_MM = np.array([
    (-31.5, 0.0, 0.0), (31.5, 0.0, 0.0),  # right eye, left eye
    (0.0, 42.0, -30.0), (0.0, 70.0, -12.0),  # nose tip, mouth centre
    (-70.0, 20.0, 85.0), (70.0, 20.0, 85.0),  # right ear, left ear
])
assert len(HEAD_POINTS_MM) == len(KEYPOINT_NAMES)


def head_pose_deg(box: FaceBox) -> tuple[float, float, float]:
    """(yaw, pitch, roll) in degrees; 0 = facing the camera along its axis.

    yaw positive = turned to the person's left; pitch positive = face raised; roll positive = head tilted towards the
    person's left shoulder (clockwise in the image). Applied in the order roll, then pitch, then yaw.

    Raises:
        ValueError: not six keypoints.
    """
    points = np.array(box.keypoints, dtype=np.float64)
    if points.shape != HEAD_POINTS_MM[:, :2].shape:
        raise ValueError(f"{len(box.keypoints)} keypoints, expected {len(KEYPOINT_NAMES)}: {', '.join(KEYPOINT_NAMES)}")
    model = HEAD_POINTS_MM - HEAD_POINTS_MM.mean(axis=0)
    affine, *_ = np.linalg.lstsq(model, points - points.mean(axis=0), rcond=None)
    rotation = _nearest_rotation(affine.T)
    # R = Ry(-yaw) Rx(-pitch) Rz(roll) in x right, y down, z away from the camera.
    yaw = -np.degrees(np.arctan2(rotation[0, 2], rotation[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(rotation[1, 2], -1, 1)))
    roll = np.degrees(np.arctan2(rotation[1, 0], rotation[1, 1]))
    return float(yaw), float(pitch), float(roll)


def _nearest_rotation(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation whose first two rows, scaled, are nearest to a 2x3 affine map."""
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    return np.vstack((rows, np.cross(rows[0], rows[1])))
