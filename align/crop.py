"""`FaceAligner`: a frame set and a tracked face in, a `FaceCrop` out, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from align.face_crop import FaceCrop
from align.planar_projection import PixelGrid
from align.quality import measure
from align.registration import Registration
from align.rig_geometry import Box, RegistrationError, RigGeometry
from capture.frames import FrameSet, StreamKind
from capture.rig import Rig
from detect.tracking import TrackedFace

#: Width of the face box at the face, metres; only to place a crop in another sensor's view when depth is unknown there.
TYPICAL_FACE_WIDTH_M = 0.15


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How a face is cut out.

    Attributes:
        size: side of the crop in pixels; 224 is what the networks take.
        face_scale: side of the crop as a multiple of the face box's longer side. 1.3 takes in hair line and chin (a
            BlazeFace box ends at brows and chin) and a rim of background, where masks and prints show their edges.
        view: whose geometry the planes share, `colour` or `depth`. `docs/registration.md` measures both.
        least_visible: share of the crop's area that must lie inside the view's image.
        least_face_px: narrower face boxes (in the view's image) carry no detail worth scoring.
    """

    size: int = 224
    face_scale: float = 1.3
    view: StreamKind = StreamKind.COLOUR
    least_visible: float = 0.7
    least_face_px: float = 24.0

    def __post_init__(self) -> None:
        if self.view not in (StreamKind.COLOUR, StreamKind.DEPTH):
            raise ValueError(f"view is {self.view!r}, must be colour or depth (infrared shares depth's geometry)")
        if not 16 <= self.size <= 1024:
            raise ValueError(f"size is {self.size} pixels, must lie in 16..1024")
        if not 0.5 <= self.face_scale <= 4.0:
            raise ValueError(f"face_scale is {self.face_scale}, must lie in 0.5..4")
        if not 0.0 < self.least_visible <= 1.0 or self.least_face_px < 1.0:
            raise ValueError(f"least_visible is {self.least_visible} (above 0, at most 1), least_face_px is "
                             f"{self.least_face_px} (at least 1)")


@dataclass(frozen=True, kw_only=True)
class CropRefused:
    """No crop could be made. `condition`: guidance code; `reason`: the values, for logs."""

    condition: str
    reason: str


class FaceAligner:
    """Crops faces of one camera's frame sets. Keeps nothing between frames.

    Raises:
        RegistrationError: the depth view with a rig that has no depth.
    """

    def __init__(self, rig: Rig, settings: CropSettings | None = None) -> None:
        self.settings = settings or CropSettings()
        self.rig = rig
        self._geometry = RigGeometry(rig)
        self._registration = Registration(self._geometry)
        if self.settings.view not in rig.intrinsics:
            raise RegistrationError(f"view {self.settings.view}: the rig of {rig.serial} has only "
                                    f"{', '.join(sorted(rig.intrinsics))}")

    def step(self, frame_set: FrameSet, face: TrackedFace) -> FaceCrop | CropRefused:
        """Register and crop one face; its box may come from the colour or the infrared image.

        Raises:
            RegistrationError: frames that are not of this rig.
        """
        geometry, view = self._geometry, self.settings.view
        geometry.check(frame_set)
        found_in = StreamKind(face.box.image)
        missing = {StreamKind.DEPTH: frame_set.depth, StreamKind.INFRARED: frame_set.infrared}
        for needed in (view, found_in):
            if needed in missing and missing[needed] is None:
                return CropRefused(condition="modality_missing", reason=f"no {needed} plane in set "
                                   f"{frame_set.sequence} of {frame_set.source}, needed for the {view} view of a face "
                                   f"found in {found_in}")
        box = (face.box.x, face.box.y, face.box.width, face.box.height)
        distance_m = geometry.distance_m(frame_set, box, found_in)
        box_in_view = self._in_view(box, found_in, distance_m)
        grid = self._grid(box_in_view)
        refused = self._refusal(box_in_view, grid)
        if refused is not None:
            return refused
        planes = self._registration.register(frame_set, grid, view, distance_m)
        bit_depth = frame_set.infrared.bit_depth if frame_set.infrared is not None else 8
        return FaceCrop(
            view=view, track_id=face.track_id, sequence=frame_set.sequence, infrared_bit_depth=bit_depth,
            colour=planes.colour, colour_valid=planes.colour_valid, depth=planes.depth, depth_valid=planes.depth_valid,
            infrared=planes.infrared, infrared_valid=planes.infrared_valid,
            quality=measure(planes, face.box, self.settings.face_scale, infrared_bit_depth=bit_depth))

    def _in_view(self, box: Box, found_in: StreamKind, distance_m: float | None) -> Box:
        if distance_m is None:
            distance_m = self._geometry.intrinsics(found_in).fx * TYPICAL_FACE_WIDTH_M / max(box[2], 1.0)
        return self._geometry.moved_box(box, found_in, self.settings.view, distance_m)

    def _grid(self, box: Box) -> PixelGrid:
        """The square around the box's centre, on whole pixels."""
        left, top, width, height = box
        side = max(round(max(width, height) * self.settings.face_scale), 1)
        return PixelGrid(left=round(left + (width - side) / 2), top=round(top + (height - side) / 2), side=side,
                         size=self.settings.size)

    def _refusal(self, box: Box, grid: PixelGrid) -> CropRefused | None:
        if box[2] < self.settings.least_face_px:
            return CropRefused(condition="move_closer", reason=f"the face is {box[2]:.0f} px wide, less than "
                               f"{self.settings.least_face_px:.0f}")
        image = self._geometry.intrinsics(self.settings.view)
        across = min(grid.left + grid.side, image.width) - max(grid.left, 0)
        down = min(grid.top + grid.side, image.height) - max(grid.top, 0)
        visible = max(across, 0) * max(down, 0) / grid.side**2
        if visible < self.settings.least_visible:
            return CropRefused(condition="centre_face", reason=f"only {visible:.0%} of the crop (left {grid.left}, top "
                               f"{grid.top}, side {grid.side}) lies inside the {image.width}x{image.height} image")
        return None
