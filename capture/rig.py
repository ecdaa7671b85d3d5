"""`Rig`: the geometry of one camera (intrinsics, distortion, extrinsics, depth scale), as a versioned, hashed file."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capture.frames import StreamKind

RIG_VERSION = 1


class RigError(ValueError):
    """A rig file or rig value is wrong; the message quotes the value and its place."""


class DistortionModel(StrEnum):
    """Distortion models of the RealSense SDK (`rs2_distortion`); coefficients in OpenCV's order k1, k2, p1, p2, k3.

    `MODIFIED_BROWN_CONRADY` cannot be inverted by the SDK (`rs2_deproject_pixel_to_point` ignores its coefficients).
    """

    NONE = "none"
    BROWN_CONRADY = "brown_conrady"
    INVERSE_BROWN_CONRADY = "inverse_brown_conrady"
    MODIFIED_BROWN_CONRADY = "modified_brown_conrady"


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """Pinhole intrinsics of one stream at one resolution, in pixels; pixel centres at integer coordinates.

    Attributes:
        width, height: resolution. fx, fy: focal lengths. cx, cy: principal point.
        model: how `coefficients` are to be read. coefficients: five numbers k1, k2, p1, p2, k3.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    model: DistortionModel = DistortionModel.NONE
    coefficients: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise RigError(f"resolution {self.width}x{self.height} is not positive")
        if not (self.fx > 0 and self.fy > 0 and math.isfinite(self.fx) and math.isfinite(self.fy)):
            raise RigError(f"focal lengths fx={self.fx}, fy={self.fy} must be positive and finite")
        if len(self.coefficients) != 5 or not all(math.isfinite(c) for c in (*self.coefficients, self.cx, self.cy)):
            raise RigError(f"expected five finite coefficients and a finite principal point, got {self.coefficients}, "
                           f"({self.cx}, {self.cy})")

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The 3x3 camera matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def is_distorted(self) -> bool:
        return self.model is not DistortionModel.NONE and any(self.coefficients)


@dataclass(frozen=True, kw_only=True)
class Extrinsics:
    """A rigid transform between two sensors' frames (x right, y down, z forward): `p_target = R p_source + t`.

    Attributes:
        rotation: nine numbers of R, row by row (`rs.extrinsics.rotation` is column-major: transpose it on the way in).
        translation_m: t in metres.
    """

    rotation: tuple[float, ...]
    translation_m: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.rotation) != 9 or len(self.translation_m) != 3:
            raise RigError(f"expected 9 rotation and 3 translation numbers, got {len(self.rotation)} and "
                           f"{len(self.translation_m)}")
        residual = float(np.abs(self.matrix @ self.matrix.T - np.eye(3)).max())
        if not residual < 1e-3 or np.linalg.det(self.matrix) < 0:
            raise RigError(f"rotation {self.rotation} is not a rotation: |R Rt - 1| reaches {residual:.3g}")

    @classmethod
    def identity(cls) -> Extrinsics:
        return cls(rotation=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), translation_m=(0.0, 0.0, 0.0))

    @classmethod
    def from_arrays(cls, rotation: NDArray[Any], translation_m: NDArray[Any]) -> Extrinsics:
        x, y, z = (float(v) for v in np.asarray(translation_m).ravel())
        return cls(rotation=tuple(float(v) for v in np.asarray(rotation).ravel()), translation_m=(x, y, z))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """R, 3x3."""
        return np.array(self.rotation, dtype=np.float64).reshape(3, 3)

    @property
    def translation(self) -> NDArray[np.float64]:
        """t, (3,), metres."""
        return np.array(self.translation_m, dtype=np.float64)

    def inverse(self) -> Extrinsics:
        transposed = self.matrix.T
        return Extrinsics.from_arrays(transposed, -transposed @ self.translation)

    def then(self, second: Extrinsics) -> Extrinsics:
        """This transform followed by `second`."""
        return Extrinsics.from_arrays(second.matrix @ self.matrix, second.matrix @ self.translation
                                      + second.translation)


@dataclass(frozen=True, kw_only=True)
class Rig:
    """Geometry of one camera.

    Attributes:
        serial: the camera's serial number; `name`: product name for people.
        intrinsics: per present stream.
        to_colour: per present stream, the transform from that stream's frame to the colour frame (colour: identity).
        depth_scale_m: metres per depth unit, None without depth.

    Raises:
        RigError: no colour, a stream with intrinsics but no extrinsics, depth without scale.
    """

    serial: str
    name: str
    intrinsics: dict[StreamKind, Intrinsics]
    to_colour: dict[StreamKind, Extrinsics]
    depth_scale_m: float | None = None

    def __post_init__(self) -> None:
        if StreamKind.COLOUR not in self.intrinsics:
            raise RigError(f"rig of {self.serial}: no colour stream, only {sorted(self.intrinsics)}")
        if set(self.intrinsics) != set(self.to_colour):
            raise RigError(f"rig of {self.serial}: intrinsics for {sorted(self.intrinsics)} but extrinsics for "
                           f"{sorted(self.to_colour)}")
        if StreamKind.DEPTH in self.intrinsics and not (self.depth_scale_m and self.depth_scale_m > 0):
            raise RigError(f"rig of {self.serial}: depth_scale_m is {self.depth_scale_m!r}, must be positive")

    def transform(self, source: StreamKind, target: StreamKind) -> Extrinsics:
        """From the frame of `source` to the frame of `target`."""
        return self.to_colour[source].then(self.to_colour[target].inverse())

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": RIG_VERSION, "serial": self.serial, "name": self.name, "depth_scale_m": self.depth_scale_m,
            "streams": {
                kind.value: {
                    "width": i.width, "height": i.height, "fx": i.fx, "fy": i.fy, "cx": i.cx, "cy": i.cy,
                    "model": i.model.value, "coefficients": list(i.coefficients),
                    "to_colour": {"rotation": list(self.to_colour[kind].rotation),
                                  "translation_m": list(self.to_colour[kind].translation_m)},
                } for kind, i in sorted(self.intrinsics.items())
            },
        }

    @classmethod
    def from_dict(cls, raw: Any, place: str = "rig") -> Rig:
        """Read what `to_dict` wrote. `place` names the file in errors."""
        try:
            if raw["version"] != RIG_VERSION:
                raise RigError(f"{place}: version {raw['version']!r}, this build reads {RIG_VERSION}")
            intrinsics, to_colour = {}, {}
            for name, s in raw["streams"].items():
                kind = StreamKind(name)
                intrinsics[kind] = Intrinsics(
                    width=s["width"], height=s["height"], fx=s["fx"], fy=s["fy"], cx=s["cx"], cy=s["cy"],
                    model=DistortionModel(s["model"]), coefficients=tuple(s["coefficients"]))
                to_colour[kind] = Extrinsics(rotation=tuple(s["to_colour"]["rotation"]),
                                             translation_m=tuple(s["to_colour"]["translation_m"]))
            return cls(serial=raw["serial"], name=raw["name"], intrinsics=intrinsics, to_colour=to_colour,
                       depth_scale_m=raw["depth_scale_m"])
        except RigError as error:
            raise RigError(f"{place}: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RigError(f"{place}: {type(error).__name__} {error}") from error

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the canonical JSON form, hexadecimal."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"sha256": self.hash, "rig": self.to_dict()}, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Rig:
        """Read a rig file; a content that does not match the hash it carries is refused.

        Raises:
            RigError: missing, not JSON, wrong version, a bad value, or a hash mismatch.
        """
        try:
            raw = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise RigError(f"{path}: {error}") from error
        if not isinstance(raw, dict) or "rig" not in raw:
            raise RigError(f"{path}: not a rig file (no 'rig' key)")
        rig = cls.from_dict(raw["rig"], place=str(path))
        if raw.get("sha256") != rig.hash:
            raise RigError(f"{path}: its hash says {raw.get('sha256')!r} but its content has {rig.hash}; "
                           "recalibrate, or restore the file")
        return rig
