"""`OperatingPoint`: what calibration on recorded sessions found out about a checkpoint's scores. Needs no torch.

A network's logit is no log-likelihood ratio (LLR): it holds the prior of the training data and is as a rule too sure
of itself. Platt's scaling makes it one (Platt, "Probabilistic outputs for support vector machines", 1999; with two
parameters, as Guo et al., "On calibration of modern neural networks", 2017, use one):

    LLR = logit_scale · logit + logit_offset

It is measured once, on validation sessions that nothing was trained on, written to a JSON file, and stored in the
checkpoint, whose SHA-256 covers it. Decisions apply it (`pipeline.policy.Policy.calibrated`); scores stay raw.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mmdg_model.whole_file import write_whole

#: Kinds of data that an operating point may be measured on; anything else is a misspelling, never a new kind.
DATA_KINDS = ("simulated", "real")


class OperatingPointError(ValueError):
    """An operating point cannot be used; the message quotes the place, the key and the value."""


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Calibration of one checkpoint's scores, and what it was measured on.

    Attributes:
        logit_scale, logit_offset: LLR of a frame in nats = scale · logit + offset. The scale is positive and at most
            100; the offset within ±100 and free of any prior: the LLR is 0 where a frame speaks for neither.
        frame_correlation: ρ of successive scored frames (AR(1)), in [0, 1), fitted within sessions.
        threshold: of a session's evidence in nats (`sequential_test.for_acceptance`): at or above it the session was
            accepted when the rates below were measured. Decisions accept at the larger of it and Wald's bound, so that
            it can make acceptance harder, never easier.
        apcer, bpcer: rates of sessions at that threshold in [0, 1], the worst attack species and all bona fide
            sessions, as measured on the calibration sessions; they promise nothing about others.
        sessions: how many were used.
        data: `simulated` or `real`.
        command: that measured it, as typed.

    Raises:
        OperatingPointError: a value out of range.
    """

    logit_scale: float
    logit_offset: float
    frame_correlation: float
    threshold: float
    apcer: float
    bpcer: float
    sessions: int
    data: str
    command: str

    def __post_init__(self) -> None:
        for key, low, high in (("logit_scale", 1e-3, 100.0), ("logit_offset", -100.0, 100.0),
                               ("frame_correlation", 0.0, 1.0 - 1e-6), ("threshold", -1000.0, 1000.0),
                               ("apcer", 0.0, 1.0), ("bpcer", 0.0, 1.0)):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise OperatingPointError(f"{key} is {value!r}, expected a number in [{low:g}, {high:.7g}]")
        if isinstance(self.sessions, bool) or not isinstance(self.sessions, int) or self.sessions < 1:
            raise OperatingPointError(f"sessions is {self.sessions!r}, expected an integer of at least 1")
        if self.data not in DATA_KINDS:
            raise OperatingPointError(f"data is {self.data!r}, expected one of {', '.join(DATA_KINDS)}")
        if not isinstance(self.command, str) or not self.command.strip():
            raise OperatingPointError(f"command is {self.command!r}, expected the command that measured it")

    def llr(self, logit: float) -> float:
        """A frame's log-likelihood ratio in nats, neither clipped nor tempered."""
        return self.logit_scale * logit + self.logit_offset

    @property
    def calibration_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of its canonical JSON, as an operating-point file has one."""
        blob = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(blob.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, float | int | str]:
        """Plain values for JSON, under the field names."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: object, *, place: str) -> Self:
        """Strictly back from `to_dict`'s form.

        Raises:
            OperatingPointError: no mapping, an unknown or missing key, a value out of range; names `place`.
        """
        keys = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(values, Mapping):
            raise OperatingPointError(f"{place}: {values!r}, expected an object with {', '.join(keys)}")
        if unknown := sorted(str(key) for key in values if key not in keys):
            raise OperatingPointError(f"{place}: unknown key {unknown[0]!r}; known keys: {', '.join(keys)}")
        if missing := [key for key in keys if key not in values]:
            raise OperatingPointError(f"{place}: key {missing[0]!r} is missing; an operating point states every key")
        try:
            numbers: dict[str, Any] = {
                key: float(value) if isinstance(value, int) and not isinstance(value, bool) and key != "sessions"
                else value for key, value in values.items()}
            return cls(**numbers)
        except (OperatingPointError, OverflowError) as error:
            raise OperatingPointError(f"{place}: {error}") from error


def read_operating_point(path: Path) -> OperatingPoint:
    """Reads `operating_point.json`.

    Raises:
        OperatingPointError: unreadable, not JSON, or not an operating point; quotes the file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise OperatingPointError(f"{path}: no readable JSON ({error}); measure the operating point again") from error
    return OperatingPoint.from_dict(values, place=str(path))


def write_operating_point(point: OperatingPoint, path: Path) -> None:
    """Writes it whole or not at all; read back it is equal."""
    blob = json.dumps(point.to_dict(), indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_whole(path, blob.encode())


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number that JSON knows")


