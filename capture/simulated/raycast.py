"""Ray casting against rigid meshes with Embree. The only importer of `embreex`.

Meshes that move together stay as they are in one Embree scene; the rays are moved into their frame, which costs a
small matrix product instead of a rebuilt acceleration structure.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from capture.camera import CameraError
from capture.simulated.meshes import Float32, Mesh


class SimulatorMissingError(CameraError):
    """The ray caster is not installed; the message names the extra."""


class Hits(NamedTuple):
    """Rays that met a mesh, in the order they were given.

    `ray` indices of those rays; `mesh` which one was met; `distance` in multiples of the ray's direction; `triangle`
    of that mesh; barycentric `u`, `v`.
    """

    ray: NDArray[np.intp]
    mesh: NDArray[np.int32]
    distance: Float32
    triangle: NDArray[np.int32]
    u: Float32
    v: Float32


class RayCaster:
    """Answers rays against one or more meshes, all in the meshes' own frame.

    Raises:
        SimulatorMissingError: embreex is not installed.
    """

    def __init__(self, *meshes: Mesh) -> None:
        try:
            from embreex.mesh_construction import TriangleMesh
            from embreex.rtcore_scene import EmbreeScene
        except ImportError as error:
            raise SimulatorMissingError(f"the simulated camera needs embreex ({error}): "
                                        "pip install 'mmdg-live[simulate]'") from None
        self._scene = EmbreeScene()
        self._geometry = [TriangleMesh(self._scene, np.ascontiguousarray(mesh.vertices, np.float32),
                                       np.ascontiguousarray(mesh.triangles, np.int32)) for mesh in meshes]

    def cast(self, origin: NDArray[np.floating], directions: Float32) -> Hits:
        """First hits of rays from one origin (3,) along `directions` (N, 3); a distance of 1 is one direction long."""
        directions = np.ascontiguousarray(directions, np.float32)
        origins = np.empty_like(directions)
        origins[:] = origin
        found = self._scene.run(origins, directions, output=True)
        ray = np.flatnonzero(found["primID"] >= 0)
        mesh, distance, triangle, u, v = (found[name][ray] for name in ("geomID", "tfar", "primID", "u", "v"))
        return Hits(ray, mesh, distance, triangle, u, v)
