"""Stage durations come from pairs of stamps; a stage without both is absent, not zero."""

from __future__ import annotations

import pytest

from pipeline.telemetry import KEPT, StageLatencies, stage_durations_ms


def test_durations_of_the_stages_that_are_there() -> None:
    durations = stage_durations_ms({"arrival": 0, "detected": 3_000_000, "cropped": 5_500_000})
    assert durations == {"detect": 3.0, "align": 2.5}


def test_percentiles() -> None:
    latencies = StageLatencies()
    for milliseconds in range(1, 101):
        latencies.add({"arrival": 0, "detected": milliseconds * 1_000_000})
    summary = latencies.percentiles_ms()
    assert list(summary) == ["detect"]
    assert summary["detect"]["p50"] == pytest.approx(50.5)
    assert summary["detect"]["count"] == 100


def test_memory_is_bounded() -> None:
    latencies = StageLatencies()
    for _ in range(KEPT + 10):
        latencies.add({"arrival": 0, "detected": 1})
    assert latencies.percentiles_ms()["detect"]["count"] == KEPT
