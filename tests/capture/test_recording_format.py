"""The manifest, and sets that do not match it."""

import json

import pytest

from capture.frames import StreamKind
from capture.recording_format import FormatError, Manifest, decode_set, encode_set
from tests.capture.sessions import make_description, make_rig, make_set


def make_manifest():
    return Manifest.of(make_description(), created="2026-01-02T03:04:05.678+00:00", label="replay", notes="ü")


def test_a_manifest_comes_back_equal():
    manifest = make_manifest()
    assert Manifest.from_record(manifest.to_record()) == manifest
    assert Manifest.from_record(manifest.recovered("cut").to_record()).recovered_from == "cut"


def rewritten(change):
    """A record whose content was changed by someone who also put the hash right."""
    from hashlib import sha256

    record = make_manifest().to_record()
    raw = json.loads(record["manifest"])
    change(raw)
    text = json.dumps(raw)
    return {**record, "manifest": text, "sha256": sha256(text.encode()).hexdigest()}


@pytest.mark.parametrize(("record", "message"), [
    ({}, "format None version None, this build reads 'mmdg-session' version 1"),
    ({**make_manifest().to_record(), "version": "2"}, "version '2'"),
    ({**make_manifest().to_record(), "manifest": "{}"}, "does not match its SHA-256"),
    (rewritten(lambda raw: raw["rig"].update(serial="other")), "the rig does not match its SHA-256"),
    (rewritten(lambda raw: raw["rig"]["streams"]["colour"].update(fx=-1)), "fx=-1"),
    (rewritten(lambda raw: raw.pop("rig")), "rig"),
    (rewritten(lambda raw: raw.update(frame_rate=0)), "frame_rate is 0"),
    (rewritten(lambda raw: raw.update(frame_rate="fast")), "manifest: "),
    (rewritten(lambda raw: raw.update(colour="blue")), "colour"),
])
def test_a_manifest_that_is_not_ours_is_refused(record, message):
    with pytest.raises(FormatError, match=message):
        Manifest.from_record(record)


def changed_plane(**changes):
    def change(raw):
        raw["planes"]["depth"].update(changes)
    return change


@pytest.mark.parametrize(("change", "message"), [
    (lambda raw: raw.update(position=3), "found set 3 where set 0 was expected"),
    (lambda raw: raw["planes"].pop("depth"), "a required stream is missing"),
    (lambda raw: raw.update(depth_scale_m=None), "depth_scale_m is None"),
    (changed_plane(sha256="0" * 64), "depth plane: its bytes do not match"),
    (changed_plane(shape=[40, 30]), "depth plane: 30x40, but the rig says 40x30"),
    (changed_plane(dtype="uint8"), "index of set 0"),
    (changed_plane(dtype="object"), "index of set 0"),
    (changed_plane(clock_domain="sundial"), "sundial"),
    (changed_plane(frame_number="first"), "first"),
    (lambda raw: raw.pop("planes"), "planes"),
])
def test_an_index_that_does_not_match_its_planes_is_refused(change, message):
    index, images = encode_set(make_set(0), 0)
    raw = json.loads(index)
    change(raw)
    with pytest.raises(FormatError, match=message):
        decode_set(json.dumps(raw).encode(), images, make_rig(), 0)


@pytest.mark.parametrize("index", [b"", b"[]", b"null", b"\xff", b"{}"])
def test_an_index_that_is_no_index_is_refused(index):
    with pytest.raises(FormatError, match="index of set 0"):
        decode_set(index, {}, make_rig(), 0)


def test_an_image_message_that_is_no_protobuf_is_refused():
    index, images = encode_set(make_set(0), 0)
    images[StreamKind.DEPTH] = b"\xff\xff\xff"
    with pytest.raises(FormatError, match="depth plane: its image message is damaged"):
        decode_set(index, images, make_rig(), 0)
