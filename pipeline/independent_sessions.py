"""Films planned simulated sessions with the independent renderer: a camera that no training ever sees.

    mmdg simulate films OUT --camera pipeline.independent_sessions:independent_camera ...

People, instruments, places and movements are those of the plan; light, sensors, noise and depth are the independent
renderer's own, and so is the camera's geometry. Needs the extra `independent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from capture.camera import Camera
from capture.independent.camera import IndependentCamera

if TYPE_CHECKING:
    from pipeline.simulated_sessions.plan import PlannedSession


def independent_camera(planned: PlannedSession) -> Camera:
    """The `pipeline.simulated_sessions.presentation.CameraFactory` of the independent renderer."""
    from pipeline.simulated_sessions.presentation import session_scene

    options = planned.options
    return IndependentCamera(session_scene(planned), seed=planned.recording.noise_seed, frames=options.frames,
                             frame_rate=options.frame_rate,
                             serial=f"{planned.recording.session.camera.serial}-INDEPENDENT")
