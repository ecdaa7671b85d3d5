"""`Mesh`: triangles with smooth normals and texture coordinates, and the few meshes that are made by formula."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """Triangles in a body's own frame (x to its left, y up, z out of its front), metres.

    Attributes:
        vertices: float32 (V, 3). triangles: int32 (T, 3), counter-clockwise seen from outside.
        texels: float32 (T, 3, 2), the (column, row) in the body's texture of each corner.
    """

    vertices: Float32
    triangles: NDArray[np.int32]
    texels: Float32

    @cached_property
    def normals(self) -> Float32:
        """Unit normals at the vertices, (V, 3): the area-weighted mean of the faces around."""
        a, b, c = (self.vertices[self.triangles[:, i]] for i in range(3))
        faces = np.cross(b - a, c - a).astype(np.float64)
        total = np.stack([sum(np.bincount(self.triangles[:, corner], faces[:, axis], len(self.vertices))
                              for corner in range(3)) for axis in range(3)], axis=1)
        length = np.linalg.norm(total, axis=1, keepdims=True)
        return np.asarray(total / np.maximum(length, 1e-20), np.float32)

    @cached_property
    def _shading_attributes(self) -> tuple[Float32, Float32, Float32]:
        """Normal and texel at corner 0, and what barycentric u and v add to them: (T, 5) each."""
        corners = np.concatenate([self.normals[self.triangles], self.texels], axis=2)  # (T, 3, 5)
        return (np.ascontiguousarray(corners[:, 0]), corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])

    def normals_and_texels(self, triangle: NDArray[np.int32], u: Float32, v: Float32) -> Float32:
        """Normals (not of unit length) and texels, (N, 5), at barycentric (u, v) of the given triangles."""
        corner, along_u, along_v = self._shading_attributes
        values = corner.take(triangle, axis=0)
        for share, added in ((u, along_u), (v, along_v)):
            gathered = added.take(triangle, axis=0)
            gathered *= share[:, None]
            values += gathered
        return values

    @cached_property
    def texels_per_metre(self) -> float:
        """Mean density of the texture on the surface, along a line."""
        corners = self.vertices[self.triangles].astype(np.float64)
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum()
        first, second = (self.texels[:, i].astype(np.float64) - self.texels[:, 0] for i in (1, 2))
        covered = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum()
        return float(np.sqrt(covered / max(area, 1e-12)))

    def points(self, triangle: NDArray[np.int32], u: Float32, v: Float32) -> NDArray[np.float64]:
        """Points (N, 3) at barycentric (u, v) of the given triangles."""
        a, b, c = (self.vertices[self.triangles[triangle, i]].astype(np.float64) for i in range(3))
        return np.asarray(a + u[:, None] * (b - a) + v[:, None] * (c - a))


def grid_mesh(points: NDArray[np.floating], texels: NDArray[np.floating]) -> Mesh:
    """A surface from a (rows, columns, 3) grid of points and (rows, columns, 2) of texels.

    Rows go down and columns to the body's left as seen from outside, which makes the normals point outward.
    """
    rows, columns = points.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (index[:-1, :-1].ravel(), index[:-1, 1:].ravel(), index[1:, :-1].ravel(), index[1:, 1:].ravel())
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)
    flat = texels.reshape(-1, 2).astype(np.float32)
    return Mesh(vertices=points.reshape(-1, 3).astype(np.float32), triangles=triangles, texels=flat[triangles])


def joined(meshes: list[Mesh]) -> Mesh:
    """Several meshes as one; they share a texture."""
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(vertices=np.concatenate([mesh.vertices for mesh in meshes]),
                triangles=np.concatenate([mesh.triangles + np.int32(offset)
                                          for mesh, offset in zip(meshes, offsets[:-1], strict=True)]),
                texels=np.concatenate([mesh.texels for mesh in meshes]))


def capsule(start: NDArray[np.float64], end: NDArray[np.float64], start_radius: float, end_radius: float,
            rings: int = 10) -> Mesh:
    """A rod with round ends, thickness going from one radius to the other; texels from 1 to 62."""
    axis = end - start
    length = float(np.linalg.norm(axis))
    along = axis / max(length, 1e-9)
    side = np.cross(along, [0.0, 0.0, 1.0] if abs(along[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    up = np.cross(side, along)
    cap = np.linspace(0, np.pi / 2, rings // 2 + 1)
    place = np.concatenate([-start_radius * np.cos(cap), length + end_radius * np.sin(cap)])
    radius = np.concatenate([start_radius * np.sin(cap), end_radius * np.cos(cap)])
    around = np.linspace(0, 2 * np.pi, 15)
    points = (start + place[:, None, None] * along + radius[:, None, None]
              * (np.cos(around)[None, :, None] * side + np.sin(around)[None, :, None] * up))
    texels = np.stack(np.meshgrid(np.linspace(1, 62, 15), np.linspace(1, 62, len(place))), axis=-1)
    mesh = grid_mesh(points, texels)
    outward = np.einsum("ij,ij->i", mesh.normals.astype(np.float64), mesh.vertices - (start + end) / 2).mean()
    return mesh if outward > 0 else Mesh(vertices=mesh.vertices, triangles=mesh.triangles[:, ::-1].copy(),
                                         texels=mesh.texels[:, ::-1].copy())


def torso_mesh() -> Mesh:
    """Neck and shoulders below a head: ellipses stacked downward from the neck."""
    # y, half width (x), half depth (z), z of the centre; the head's origin lies between its eyes
    rings = np.array([[-0.115, 0.052, 0.055, -0.110], [-0.150, 0.062, 0.060, -0.115], [-0.170, 0.100, 0.070, -0.120],
                      [-0.190, 0.150, 0.085, -0.125], [-0.215, 0.190, 0.095, -0.125], [-0.250, 0.210, 0.105, -0.125],
                      [-0.300, 0.215, 0.115, -0.120], [-0.450, 0.200, 0.120, -0.115],
                      [-0.620, 0.185, 0.115, -0.115], [-0.900, 0.190, 0.120, -0.115]])
    turn = np.linspace(np.pi, -np.pi, 49)[None, :]  # around, so that columns run to the body's left at the front
    y, wide, deep, z = (rings[:, i:i + 1] for i in range(4))
    points = np.stack([-wide * np.sin(turn), np.broadcast_to(y, (len(rings), 49)), z + deep * np.cos(turn)], axis=2)
    texels = np.stack([np.broadcast_to((turn / (2 * np.pi) + 0.5) * 60 + 1, points.shape[:2]),
                       np.broadcast_to(np.linspace(1, 62, len(rings))[:, None], points.shape[:2])], axis=2)
    return grid_mesh(points, texels)
