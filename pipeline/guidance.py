"""What to tell the person in front of the camera: stable codes, held long enough that a screen does not flicker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

#: Part of the public contract: codes are added, never renamed. Worst first: the earliest that applies is shown.
GUIDANCE_ORDER = ("multiple_faces", "no_face", "face_changed", "too_dark", "too_bright", "ir_saturated", "move_closer",
                  "move_back", "centre_face", "look_at_camera", "remove_mask", "remove_sunglasses", "depth_holes",
                  "clean_lens", "hold_still")
GUIDANCE_CODES = frozenset(GUIDANCE_ORDER)

#: A code stays this long. It also bounds the rate: two changes a second, below the contract's four.
HOLD_NS = 500_000_000


def worst(conditions: Iterable[str]) -> str | None:
    """The condition to show; None when nothing is wrong. Codes outside the contract are not shown."""
    present = set(conditions)
    return next((code for code in GUIDANCE_ORDER if code in present), None)


@dataclass(frozen=True)
class Guidance:
    """What the screen shows. code: None = nothing to correct; since_ns: when it was first shown, None = never."""

    code: str | None = None
    since_ns: int | None = None


def step(shown: Guidance, conditions: Iterable[str], now_ns: int) -> Guidance:
    """What to show now; the same object when nothing changes.

    The first code is shown at once. After that a new one replaces it only when it was held for `HOLD_NS`.
    """
    code = worst(conditions)
    if code == shown.code:
        return shown
    if shown.since_ns is not None and now_ns - shown.since_ns < HOLD_NS:
        return shown
    return replace(shown, code=code, since_ns=now_ns)
