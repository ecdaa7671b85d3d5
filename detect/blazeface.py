"""`BlazeFaceDetector`: MediaPipe's BlazeFace behind the `Detector` contract. The only module that imports mediapipe.

BlazeFace short range (Bazarevsky et al., arXiv 1907.05047) sees faces up to about 2 m and works on a 128x128 copy of
the image, so its time hardly depends on the resolution. It was trained on visible light; how well it does
on near-infrared images of real people has not been measured here.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detect.faces import KEYPOINT_NAMES, DetectorError, FaceBox
from detect.model_assets import check_face_model, find_face_model


class BlazeFaceDetector:
    """Faces of one image at a time, without memory between images.

    Args:
        model_path: the `.tflite` file; default: the installed one (`detect.model_assets`). Its hash is checked.
        min_score: faces with a lower confidence are not reported, in (0, 1).

    Raises:
        DetectorError: mediapipe or the model is missing, or MediaPipe refuses to start.
        ValueError: `min_score` out of range.
    """

    def __init__(self, model_path: Path | None = None, min_score: float = 0.5) -> None:
        if not 0.0 < min_score < 1.0:
            raise ValueError(f"min_score is {min_score}, must lie between 0 and 1")
        self._detector: Any = None
        path = find_face_model() if model_path is None else check_face_model(model_path)
        with _native_stderr_silenced():
            self._mediapipe, vision, base_options = _import_mediapipe()
            options = vision.FaceDetectorOptions(
                # As a buffer: MediaPipe resolves relative paths against its own package folder.
                base_options=base_options.BaseOptions(model_asset_buffer=path.read_bytes()),
                running_mode=vision.RunningMode.IMAGE, min_detection_confidence=min_score)
            try:
                self._detector = vision.FaceDetector.create_from_options(options)
                # The graph logs on its first run; do it here, where its noise is caught and costs no frame.
                self.detect(np.zeros((128, 128, 3), np.uint8))
            except (RuntimeError, ValueError) as error:
                raise DetectorError(f"MediaPipe could not start the face detector from {path}: {error}") from error

    def detect(self, image: NDArray[np.uint8]) -> list[FaceBox]:
        """Boxes in pixels of `image` (`uint8 HxWx3` RGB), best score first; `[]` without a face.

        Raises:
            ValueError: another dtype or shape. DetectorError: used after `close`.
        """
        if self._detector is None:
            raise DetectorError("the face detector is closed; make a new BlazeFaceDetector")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image is {image.dtype} {image.shape}, expected uint8 HxWx3 RGB")
        height, width = image.shape[:2]
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB,
                                        data=np.ascontiguousarray(image))
        found = self._detector.detect(picture)
        boxes = [_face_box(detection, width, height) for detection in found.detections or ()]
        return sorted(boxes, key=lambda box: box.score, reverse=True)

    def close(self) -> None:
        """Free the native detector. Idempotent; do not leave it to interpreter exit."""
        detector, self._detector = self._detector, None
        if detector is not None:
            with _native_stderr_silenced():
                detector.close()

    def __enter__(self) -> BlazeFaceDetector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _face_box(detection: Any, width: int, height: int) -> FaceBox:
    box = detection.bounding_box
    points = tuple((float(point.x) * width, float(point.y) * height) for point in detection.keypoints)
    if len(points) != len(KEYPOINT_NAMES):
        raise DetectorError(f"the model gave {len(points)} keypoints, expected {len(KEYPOINT_NAMES)}: "
                            "not the BlazeFace short-range model")
    return FaceBox(x=float(box.origin_x), y=float(box.origin_y), width=float(box.width), height=float(box.height),
                   score=float(detection.categories[0].score), keypoints=points)


def _import_mediapipe() -> tuple[Any, Any, Any]:
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import mediapipe
        from mediapipe.tasks.python import vision
        from mediapipe.tasks.python.core import base_options
    except ImportError as error:
        raise DetectorError(f"face detection needs mediapipe ({error}); install the extra: "
                            "pip install 'mmdg-live[engine]'") from error
    except OSError as error:  # its native library could not be loaded
        raise DetectorError(f"mediapipe is installed but its library does not load ({error}); on Debian: "
                            "apt-get install libegl1 libgles2") from error
    return mediapipe, vision, base_options


@contextlib.contextmanager
def _native_stderr_silenced() -> Iterator[None]:
    """Point file descriptor 2 at /dev/null: MediaPipe's C++ logs go there past Python, whatever the log level.

    Python's own stderr is flushed first; exceptions still travel. Used only while starting and closing, and not at
    all with MMDG_LOG=info or debug.
    """
    if os.environ.get("MMDG_LOG", "").upper() in ("INFO", "DEBUG"):
        yield  # a library that aborts says why only on this descriptor
        return
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
