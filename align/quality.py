"""Measures of one crop. They say whether it is fit to be judged, never that a face is live."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from align.depth_surface import Mask
from align.face_crop import CROP_DEPTH_UNIT_M, CropQuality
from align.head_pose import head_pose_deg
from align.registration import RegisteredPlanes
from detect.faces import FaceBox

#: The interior is an ellipse of this share of the face box's width and height: no background beside a turned head.
INTERIOR_SHARE = 0.75
#: Infrared at or above this share of full scale is saturated (a sensor's white level lies a little below its maximum).
SATURATED = 0.98


def measure(planes: RegisteredPlanes, box: FaceBox, face_scale: float, *, infrared_bit_depth: int = 8) -> CropQuality:
    """Quality of a registered crop whose side is `face_scale` face boxes.

    Sharpness and brightness look at the valid colour pixels of the interior, 0 where there is none. A measure of a
    plane that is absent is None, and so are the distance and the infrared levels where not one interior pixel is valid:
    unknown is not zero.
    """
    interior = face_interior(planes.colour.shape[0], face_scale)
    grey = cv2.cvtColor(planes.colour, cv2.COLOR_RGB2GRAY)
    visible = interior & planes.colour_valid
    # Where the 3x3 Laplacian looks at an invalid (black) neighbour it would measure the mask's edge.
    solid = cv2.erode(visible.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    edges = cv2.Laplacian(grey, cv2.CV_32F)[solid]
    distance_m = depth_fill = infrared_brightness = infrared_saturation = None
    if planes.depth is not None and planes.depth_valid is not None:
        measured = interior & planes.depth_valid
        depth_fill = float(measured.sum() / interior.sum())
        if measured.any():
            distance_m = float(np.median(planes.depth[measured])) * CROP_DEPTH_UNIT_M
    if planes.infrared is not None and planes.infrared_valid is not None:
        levels = planes.infrared[interior & planes.infrared_valid]
        if levels.size:
            shares = levels.astype(np.float32) / float(2**infrared_bit_depth - 1)
            infrared_brightness = min(float(shares.mean()), 1.0)
            infrared_saturation = float((shares >= SATURATED).mean())
    yaw_deg, pitch_deg, roll_deg = head_pose_deg(box)
    return CropQuality(face_width_px=box.width, distance_m=distance_m,
                       sharpness=float(edges.var()) if edges.size else 0.0,
                       brightness=float(grey[visible].mean()) if visible.any() else 0.0, depth_fill=depth_fill,
                       infrared_brightness=infrared_brightness, infrared_saturation=infrared_saturation,
                       yaw_deg=yaw_deg, pitch_deg=pitch_deg, roll_deg=roll_deg)


@lru_cache(maxsize=8)
def face_interior(size: int, face_scale: float) -> Mask:
    """`bool size x size`: the face's interior, an ellipse around the centre. Do not write to it, it is shared."""
    reach = INTERIOR_SHARE / (2 * face_scale)
    offsets = (np.arange(size) + 0.5) / size - 0.5
    mask: Mask = (offsets[None, :] ** 2 + offsets[:, None] ** 2) <= reach**2
    mask.setflags(write=False)
    return mask
