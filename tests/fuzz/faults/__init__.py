"""The faults, by what they befall; importing this registers them all."""

from tests.fuzz.faults import camera, guards, kiosks, scores, time_and_path

__all__ = ["camera", "guards", "kiosks", "scores", "time_and_path"]
