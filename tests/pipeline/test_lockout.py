"""The lock-out: pure steps as tables, and a state that neither a restart nor a damaged file shortens."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decision import LockedOut, RateLimited
from pipeline.lockout import (
    CameraLockout,
    LockoutFile,
    LockoutFileError,
    LockoutLimits,
    LockoutState,
    charge,
    locked_cameras,
    rebased,
    remaining_s,
)
from pipeline.session_guards import Lockout, clear_lockout

S = 1_000_000_000
LIMITS = LockoutLimits(attacks=3, window_s=100, lock_s=60, longest_s=400, forget_s=1000, sessions_per_minute=0)


def charged(*seconds: int, start: CameraLockout | None = None) -> tuple[CameraLockout, list[int | None]]:
    camera, locks = start or CameraLockout(), []
    for second in seconds:
        camera, lasts_s = charge(camera, second * S, LIMITS)
        locks.append(lasts_s)
    return camera, locks


@pytest.mark.parametrize(("seconds", "locks"), [
    ((0, 1), [None, None]),
    ((0, 1, 2), [None, None, 60]),
    ((0, 50, 101), [None, None, None]),  # the first left the window
    ((0, 50, 100), [None, None, 60]),
    ((0, 0, 0, 70, 71, 72), [None, None, 60, None, None, 120]),
    ((0, 0, 0, 70, 71, 72, 200, 201, 202, 500, 501, 502, 1000, 1001, 1002),
     [None, None, 60, None, None, 120, None, None, 240, None, None, 400, None, None, 400]),  # capped
    ((0, 0, 0, 1100, 1101, 1102), [None, None, 60, None, None, 60]),  # forgotten
    ((0, 0, 0, 1000, 1001, 1002), [None, None, 60, None, None, 120]),  # not yet
])
def test_so_many_attacks_within_the_window_lock_for_longer_each_time(seconds: tuple[int, ...],
                                                                     locks: list[int | None]) -> None:
    assert charged(*seconds)[1] == locks


@pytest.mark.parametrize(("second", "left"), [(2, 60), (32, 30), (62, 0), (500, 0)])
def test_what_remains_of_a_lock(second: int, left: float) -> None:
    camera, _ = charged(0, 1, 2)
    assert remaining_s(camera, second * S) == left
    assert remaining_s(None, second * S) == 0


def test_many_locks_overflow_nothing() -> None:
    camera, locks = charged(0, 0, 0, start=CameraLockout(locks=10**9, locked_until_ns=0))
    assert locks == [None, None, 400]
    assert camera.locks == 10**9 + 1


@given(boot=st.booleans(), saved=st.integers(0, 10**6), later=st.integers(-10**6, 10**6))
def test_neither_time_nor_a_boot_makes_a_lock_longer_or_lets_it_end_before_its_time(boot: bool, saved: int,
                                                                                     later: int) -> None:
    """Whatever the monotonic clock shows after a boot, the whole rest of the lock is still to come."""
    state = LockoutState(boot_id="a", saved_ns=saved * S, cameras={
        "door": CameraLockout(locks=1, locked_until_ns=(saved + 60) * S)})
    now_ns = max(0, saved + later) * S
    if boot:
        assert locked_cameras(rebased(state, "b", now_ns).cameras, now_ns) == {"door": 60.0}
    elif now_ns < state.saved_ns:
        with pytest.raises(ValueError, match="future"):
            rebased(state, "a", now_ns)
    else:
        assert rebased(state, "a", now_ns) == state


def opened(path: Path, boot: str = "a") -> Lockout:
    return Lockout(LIMITS, LockoutFile(path, boot_id=boot))


def lock(path: Path, boot: str = "a") -> Lockout:
    made = opened(path, boot)
    for second in range(3):
        made.charge("door", second * S)
    return made


def refused(made: Lockout, second: int, camera: str = "door") -> bool:
    try:
        made.gate(camera, second * S)
    except LockedOut:
        return True
    return False


def test_a_lock_outlives_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "lockout.json"
    assert refused(lock(path), 3)
    assert refused(opened(path), 61)
    assert not refused(opened(path), 62)
    assert not refused(opened(path), 3, camera="other")
    assert path.stat().st_mode & 0o777 == 0o600


def test_after_another_boot_no_time_has_passed(tmp_path: Path) -> None:
    path = tmp_path / "lockout.json"
    lock(path)
    reopened = opened(path, "b")
    assert refused(reopened, 1)  # the clock began anew
    assert refused(reopened, 60)
    assert not refused(reopened, 61)


@pytest.mark.parametrize("content", [b"", b"{}x", b"[]", b"\xff\xff", b'{"format":"other"}',
                                     b'{"cameras":{"door":{"locks":-1}}}', b'{"unknown":1}'])
def test_a_damaged_file_locks_every_camera_until_it_is_cleared(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "lockout.json"
    path.write_bytes(content)
    made = opened(path)
    with pytest.raises(LockedOut, match=r"mmdg lockout clear --path .*lockout\.json --all"):
        made.gate("door", 5 * S)
    made.charge("door", 6 * S)
    assert refused(made, 7)
    assert path.read_bytes() == content
    with pytest.raises(LockoutFileError):
        clear_lockout(path, "door", now_ns=8 * S, wall_clock="x")
    clear_lockout(path, None, now_ns=8 * S, wall_clock="x")
    # The command runs in this machine's boot; to the engine of boot `a` that is another one.
    assert not refused(made, 9)


def test_stamps_of_this_boot_that_lie_in_the_future_lock(tmp_path: Path) -> None:
    (tmp_path / "lockout.json").write_text('{"boot_id":"a","saved_ns":999000000000}')
    assert refused(opened(tmp_path / "lockout.json"), 998)
    assert not refused(opened(tmp_path / "lockout.json"), 999)


def test_an_operator_ends_a_lock_of_a_running_engine_and_the_engine_hears_who_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lockout.json"
    made = lock(path)
    made.charge("window", 3 * S)
    clear_lockout(path, "door", now_ns=4 * S, wall_clock="2026-01-01")
    assert not refused(made, 5)
    (clearing,) = made.take_unlogged(5 * S)
    assert (clearing.camera, clearing.wall_clock) == ("door", "2026-01-01")
    assert made.take_unlogged(6 * S) == []
    assert opened(path).take_unlogged(6 * S) == []
    made.charge("window", 6 * S)
    assert made.charge("window", 7 * S) == 60  # what was held against others stayed


def test_a_state_that_cannot_be_written_locks_and_is_written_once_it_can(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lockout.json"
    made = opened(path)
    made.gate("door", 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.lockout.write_whole", full)
        for second in range(3):
            made.charge("door", second * S)
        with pytest.raises(LockedOut, match="No space left"):
            made.gate("window", 3 * S)
    assert not refused(made, 4, camera="window")
    assert refused(made, 5)  # what was charged meanwhile was not forgotten
    assert refused(opened(path), 6)


def test_a_file_of_one_camera_is_small_and_readable(tmp_path: Path) -> None:
    lock(tmp_path / "lockout.json")
    state = msgspec.json.decode((tmp_path / "lockout.json").read_bytes(), type=LockoutState)
    assert state.cameras["door"] == CameraLockout(locks=1, locked_until_ns=62 * S)


def test_so_many_sessions_a_minute() -> None:
    made = Lockout(msgspec.structs.replace(LIMITS, sessions_per_minute=2))
    made.gate("door", 0)
    made.gate("door", 30 * S)
    with pytest.raises(RateLimited, match="2 sessions a minute"):
        made.gate("door", 59 * S)
    made.gate("window", 59 * S)
    made.gate("door", 60 * S)
