"""Where the time of a face goes: stage durations from the stamps of a score, and their percentiles."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

import numpy as np

#: Stage -> the two stamps it lies between, in the order of a face's path.
STAGES: dict[str, tuple[str, str]] = {
    "detect": ("arrival", "detected"),
    "align": ("detected", "cropped"),
    "pack": ("cropped", "sent"),
    "to hub": ("sent", "hub_received"),
    "wait": ("hub_received", "handed_out"),
    "to worker": ("handed_out", "received"),
    "inference": ("inference_start", "inference_end"),
    "until inference": ("arrival", "inference_start"),
    "until score": ("arrival", "inference_end"),
}
#: Samples kept per stage: a few minutes at camera rate, bounded memory.
KEPT = 4096


def stage_durations_ms(stamps_ns: dict[str, int]) -> dict[str, float]:
    """Duration of each stage whose two stamps are there, in milliseconds."""
    return {stage: (stamps_ns[end] - stamps_ns[start]) / 1e6 for stage, (start, end) in STAGES.items()
            if start in stamps_ns and end in stamps_ns}


@dataclass
class StageLatencies:
    """Durations by stage, the newest `KEPT` of each."""

    _samples_ms: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=KEPT)))

    def add(self, stamps_ns: dict[str, int]) -> None:
        for stage, duration_ms in stage_durations_ms(stamps_ns).items():
            self._samples_ms[stage].append(duration_ms)

    def percentiles_ms(self) -> dict[str, dict[str, float]]:
        """`{stage: {p50, p95, count}}`, in the order of a face's path."""
        summary = {}
        for stage in STAGES:
            if samples := self._samples_ms.get(stage):
                p50, p95 = np.percentile(samples, [50, 95])
                summary[stage] = {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "count": len(samples)}
        return summary
