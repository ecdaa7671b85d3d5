"""Messages survive the wire; foreign, old and out-of-range ones are refused by name."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import messages
from pipeline.messages import CameraEnded, MessageError, ObservationAck, Progress, Ready


def test_round_trip() -> None:
    ended = CameraEnded(camera="door", source="S", epoch=4, reason="device_lost", detail="cable", stamp_ns=9,
                        counters={"stale_colour": 2})
    assert messages.decode(messages.encode(ended), CameraEnded) == ended


@pytest.mark.parametrize(("data", "expected", "message"), [
    (b"", Ready, "expected Ready"),
    (b"\xc1" * 9, Ready, "expected Ready"),
    (messages.encode(ObservationAck(epoch=1, sequence=1)), Ready, "got ObservationAck"),
    (messages.encode(Ready(worker="w", credit=1, schema=7)), Ready, "schema 7"),
    (msgspec.msgpack.encode({"type": "ready", "schema": 1, "worker": "w", "credit": -1}), Ready, "credit"),
    (msgspec.msgpack.encode({"type": "ready", "schema": 1, "worker": "", "credit": 1}), Ready, "worker"),
    (msgspec.msgpack.encode({"type": "ready", "schema": 1, "worker": "w", "credit": 1, "gift": 1}), Ready, "gift"),
    (msgspec.msgpack.encode({"type": "surprise"}), Progress, "surprise"),
])
def test_a_foreign_message_is_refused_by_name(data: bytes, expected: type[messages.Message], message: str) -> None:
    with pytest.raises(MessageError, match=message):
        messages.decode(data, expected)


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        messages.decode(data, Ready)
