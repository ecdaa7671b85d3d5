"""Lock-out: after several attacks on a camera its sessions are refused for a while, longer each time. Pure but for
`LockoutFile`, which keeps the state across restarts.

Stamps are host `CLOCK_MONOTONIC`, which no one can set. After another boot they mean nothing any more: then no time is
taken to have passed since the file was written, so that neither a wall clock that jumps nor a restart shortens a lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mmdg_model.whole_file import write_whole

_NS_PER_S = 1_000_000_000
FORMAT = "mmdg-lockout-1"
#: Stands for every camera in a state that could not be read.
EVERY_CAMERA = "*"

NonNegative = Annotated[int, Meta(ge=0)]


class LockoutLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a camera is locked.

    Attributes:
        attacks: verdicts `attack` within `window_s` that lock it.
        lock_s: the first lock; each further one lasts twice as long, up to `longest_s`.
        forget_s: without an attack for this long after a lock, the next one is a first one again.
        sessions_per_minute: sessions of one camera, whatever their outcome; 0 = as many as asked for.
    """

    attacks: Annotated[int, Meta(ge=1, le=1000)] = 5
    window_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] = 600
    lock_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    longest_s: Annotated[int, Meta(ge=1, le=7 * 86_400)] = 3600
    forget_s: Annotated[int, Meta(ge=1, le=30 * 86_400)] = 86_400
    sessions_per_minute: Annotated[int, Meta(ge=0, le=10_000)] = 120


class CameraLockout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One camera: stamps of its attacks within the window, number of locks so far, end and start of the last one."""

    attacks_ns: tuple[int, ...] = ()
    locks: NonNegative = 0
    locked_until_ns: int | None = None


class Clearing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator's clearing that no audit log tells of yet. camera: `EVERY_CAMERA` for all."""

    camera: str
    uid: int
    wall_clock: str


class LockoutState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file holds. boot_id, saved_ns: the boot and the monotonic time in which its stamps count."""

    format: str = FORMAT
    boot_id: str = ""
    saved_ns: int = 0
    cameras: dict[str, CameraLockout] = {}
    unlogged: list[Clearing] = []


# --- pure -----------------------------------------------------------------------------------------------------------
def charge(camera: CameraLockout, now_ns: int, limits: LockoutLimits) -> tuple[CameraLockout, int | None]:
    """One attack more; also the length in seconds of the lock that it brought, None when it brought none."""
    since_ns = now_ns - limits.window_s * _NS_PER_S
    attacks = (*(stamp for stamp in camera.attacks_ns if stamp >= since_ns), now_ns)
    last_end_ns = camera.locked_until_ns
    forgotten = last_end_ns is not None and now_ns - last_end_ns > limits.forget_s * _NS_PER_S
    locks = 0 if forgotten else camera.locks
    if len(attacks) < limits.attacks:
        return CameraLockout(attacks_ns=attacks, locks=locks, locked_until_ns=last_end_ns), None
    # The exponent is bounded, so that no count of locks overflows anything.
    lasts_s = min(limits.lock_s * 2 ** min(locks, 32), max(limits.longest_s, limits.lock_s))
    return CameraLockout(locks=locks + 1, locked_until_ns=now_ns + lasts_s * _NS_PER_S), lasts_s


def remaining_s(camera: CameraLockout | None, now_ns: int) -> float:
    """How long the camera stays locked, 0 when it is not."""
    if camera is None or camera.locked_until_ns is None:
        return 0.0
    return max(0.0, (camera.locked_until_ns - now_ns) / _NS_PER_S)


def rebased(state: LockoutState, boot_id: str, now_ns: int) -> LockoutState:
    """The same state in this boot's time; within one boot it is taken as it is.

    Raises:
        ValueError: stamps of this very boot that lie in the future.
    """
    if boot_id and state.boot_id == boot_id:
        if state.saved_ns > now_ns or any(s > state.saved_ns for c in state.cameras.values() for s in c.attacks_ns):
            raise ValueError("its stamps lie in the future")
        return state
    moved = now_ns - state.saved_ns

    def moved_camera(camera: CameraLockout) -> CameraLockout:
        until_ns = None if camera.locked_until_ns is None else camera.locked_until_ns + moved
        return CameraLockout(attacks_ns=tuple(stamp + moved for stamp in camera.attacks_ns), locks=camera.locks,
                             locked_until_ns=until_ns)

    return msgspec.structs.replace(state, boot_id=boot_id, saved_ns=now_ns, cameras={
        name: moved_camera(camera) for name, camera in state.cameras.items()})


def cleared(state: LockoutState, camera: str, uid: int, wall_clock: str) -> LockoutState:
    """The state without what is held against `camera`, or every one, and with a note of who did it."""
    kept = {} if camera == EVERY_CAMERA else {n: c for n, c in state.cameras.items() if n != camera}
    return msgspec.structs.replace(state, cameras=kept, unlogged=[
        *state.unlogged, Clearing(camera=camera, uid=uid, wall_clock=wall_clock)])


# --- the file -------------------------------------------------------------------------------------------------------
class LockoutFileError(RuntimeError):
    """The state cannot be read or written: everything counts as locked. The message names the file and the remedy."""


class LockoutFile:
    """The state at rest; each change is one read, one step and one whole write under a lock of its own.

    A missing file is an empty state: `existed` tells whether it was there, so that its loss can be noted.
    """

    def __init__(self, path: Path, *, boot_id: str) -> None:
        self.path, self.boot_id = path, boot_id
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LockoutFileError(f"{path}: {error.strerror}; name a folder that this user can write") from error
        self.existed = path.exists()

    def read(self, now_ns: int) -> LockoutState:
        """The state in this boot's time.

        Raises:
            LockoutFileError: unreadable, or not a state: locked until an operator clears it.
        """
        try:
            blob = self.path.read_bytes()
        except FileNotFoundError:
            return LockoutState(boot_id=self.boot_id, saved_ns=now_ns)
        except OSError as error:
            raise LockoutFileError(f"{self.path}: {error.strerror}; every camera stays locked until it can be read") \
                from error
        try:
            state = msgspec.json.decode(blob, type=LockoutState)
            if state.format != FORMAT:
                raise ValueError(f"its format is {state.format!r}, this version knows {FORMAT!r}")
            return rebased(state, self.boot_id, now_ns)
        except (msgspec.DecodeError, ValueError, OverflowError) as error:
            raise LockoutFileError(f"{self.path}: no lock-out state ({error}); every camera is locked until an "
                                   f"operator runs `mmdg lockout clear --path {self.path} --all`") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes the file meanwhile."""
        try:
            lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise LockoutFileError(f"{self.path}: {error.strerror}; its folder must be writable") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def write(self, state: LockoutState, now_ns: int) -> None:
        """Replace the file as a whole.

        Raises:
            LockoutFileError: it cannot be written.
        """
        stamped = msgspec.structs.replace(state, boot_id=self.boot_id, saved_ns=now_ns)
        try:
            write_whole(self.path, msgspec.json.format(msgspec.json.encode(stamped), indent=1) + b"\n")
            self.path.chmod(0o600)
        except OSError as error:
            raise LockoutFileError(f"{self.path}: {error.strerror}; attacks cannot be kept across a restart, so every "
                                   "camera stays locked until it can be written") from error

    def fingerprint(self) -> tuple[int, int, int] | None:
        """Changes whenever someone replaced the file; None while there is none."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size


def locked_cameras(cameras: Mapping[str, CameraLockout], now_ns: int) -> dict[str, float]:
    """Cameras that are locked, with the seconds that remain."""
    return {name: left for name, camera in sorted(cameras.items()) if (left := remaining_s(camera, now_ns)) > 0}
