"""Liveness is judged on shown progress, not on the operating system's word alone."""

from __future__ import annotations

import pytest

from pipeline.process_watch import Health, ProcessWatch


@pytest.mark.parametrize(("state", "heard_s", "now_s", "alive", "expected"), [
    ("starting", None, 5.0, True, Health.STARTING),
    ("starting", None, 31.0, True, Health.SILENT),  # never came up
    ("starting", None, 5.0, False, Health.GONE),
    ("running", 10.0, 11.9, True, Health.SERVING),
    ("running", 10.0, 12.1, True, Health.SILENT),  # hung: alive for the system, no progress
    ("running", 10.0, 10.1, False, Health.GONE),
    ("ended", 10.0, 99.0, False, Health.ENDED),
    ("failed", 10.0, 10.0, True, Health.FAILED),
])
def test_health(state: str, heard_s: float | None, now_s: float, alive: bool, expected: Health) -> None:
    watch = ProcessWatch(started_s=0.0, silent_after_s=2.0, start_within_s=30.0)
    if heard_s is not None:
        watch.heard(state, heard_s)
    assert watch.health(now_s, alive=alive) is expected
