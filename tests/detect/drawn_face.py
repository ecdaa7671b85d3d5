"""A face drawn with ellipses: BlazeFace takes it for one, and no person's picture is needed in the repository."""

from __future__ import annotations

import cv2
import numpy as np

from detect.faces import FaceBox


def draw(image: np.ndarray, x: float, y: float, scale: float = 1.0) -> None:
    """Draw a frontal face, 136 px wide at scale 1, centred at (x, y)."""

    def ellipse(dx: float, dy: float, a: float, b: float, colour: tuple[int, int, int]) -> None:
        cv2.ellipse(image, (int(x + dx * scale), int(y + dy * scale)), (max(1, int(a * scale)), max(1, int(b * scale))),
                    0, 0, 360, colour, -1, cv2.LINE_AA)

    ellipse(0, -25, 78, 100, (60, 42, 30))
    ellipse(0, 0, 68, 92, (214, 170, 140))
    ellipse(0, 60, 34, 26, (206, 160, 130))
    for side in (-1, 1):
        ellipse(side * 70, 5, 9, 18, (200, 150, 125))
        ellipse(side * 28, -14, 14, 8, (240, 235, 230))
        ellipse(side * 28, -14, 7, 7, (60, 40, 30))
        ellipse(side * 28, -14, 3, 3, (10, 10, 10))
        ellipse(side * 28, -32, 18, 4, (70, 48, 35))
        ellipse(side * 7, 24, 5, 3, (150, 100, 85))
    ellipse(0, 10, 9, 18, (224, 182, 152))
    ellipse(0, 22, 12, 7, (220, 174, 145))
    ellipse(0, 48, 24, 8, (170, 80, 80))
    ellipse(0, 48, 22, 1, (110, 50, 50))


def picture(*faces: tuple[float, float, float], width: int = 640, height: int = 480) -> np.ndarray:
    """A grey room with faces (x, y, scale)."""
    image = np.full((height, width, 3), (120, 130, 140), np.uint8)
    for x, y, scale in faces:
        draw(image, x, y, scale)
    return cv2.GaussianBlur(image, (0, 0), 1.2)


def box(x: float = 100, y: float = 100, width: float = 100, *, image: str = "colour") -> FaceBox:
    """A square box with keypoints of a frontal face."""
    points = ((0.3, 0.27), (0.7, 0.27), (0.5, 0.49), (0.5, 0.68), (0.05, 0.38), (0.95, 0.38))
    return FaceBox(x=x, y=y, width=width, height=width, score=0.9, image=image,
                   keypoints=tuple((x + u * width, y + v * width) for u, v in points))
