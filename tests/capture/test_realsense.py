"""`RealSenseCamera` through the real SDK, with a simulated device in the place of hardware."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from capture.camera import CameraError, DisconnectedError, FrameTimeoutError, NoDeviceError
from capture.frames import ClockDomain, EmitterState, Spectrum, StreamKind
from capture.realsense import RealSenseCamera
from capture.realsense_frames import DeviceFacts
from capture.realsense_optics import EmitterMode, RealSenseSettings
from capture.realsense_restart import RestartPolicy
from capture.simulated_device import SimulatedDevice, SimulatedDevices
from tests.capture.realsense_scenes import PERIOD_NS, SETTINGS, frame, frame_set, plane, rig

COLOUR, DEPTH, INFRARED = StreamKind.COLOUR, StreamKind.DEPTH, StreamKind.INFRARED
#: Waits on the SDK are real but a millisecond long; patience is measured on the test's own clock.
POLICY = RestartPolicy(wait_ms=1, stall_ms=1_000, settle_ms=1_000, reopen_every_ms=200, reenumerate_ms=1_000)


class Clock:
    """Moves 20 ms each time it is read."""

    def __init__(self):
        self.ticks = itertools.count(0, 20_000_000)

    def __call__(self):
        return next(self.ticks)


@pytest.fixture
def device():
    return SimulatedDevice(rig())


@pytest.fixture
def source(device):
    return SimulatedDevices(device)


@pytest.fixture
def camera(source):
    camera = RealSenseCamera(settings=SETTINGS, device_source=source, restart_policy=POLICY, monotonic_ns=Clock())
    camera.open()
    yield camera
    camera.close()


def everything(camera):
    sets = []
    while True:
        try:
            sets.append(camera.read(0.03))
        except FrameTimeoutError:
            return sets


def numbers(sets):
    return [{f.kind: f.frame_number for f in each.frames()} for each in sets]


def all_equal(number):
    return dict.fromkeys((COLOUR, DEPTH, INFRARED), number)


def test_three_streams_become_sets_with_exact_pixels_and_stamps(camera, device):
    for number in range(1, 6):
        device.feed(frame_set(number))
    sets = everything(camera)
    assert numbers(sets) == [all_equal(n) for n in range(1, 6)]
    assert [s.sequence for s in sets] == [0, 1, 2, 3, 4]
    for each in sets:
        assert (each.source, each.epoch, each.depth_scale_m) == ("SIM1", camera.epoch, 0.001)
        for got in each.frames():
            assert np.array_equal(got.pixels, plane(got.kind, got.frame_number))
            assert got.sensor_timestamp_ns == 1_000_000_000 + got.frame_number * PERIOD_NS
            assert got.clock_domain is ClockDomain.SIMULATED
    assert not +camera.counters


def test_a_dead_colour_stream_never_lends_its_last_frame_to_new_depth(camera, device):
    device.feed(frame_set(1))
    assert numbers(everything(camera)) == [all_equal(1)]
    for number in range(2, 20):
        device.feed_frame(frame(DEPTH, number))
        device.feed_frame(frame(INFRARED, number))
    assert everything(camera) == []
    assert camera.counters["incomplete"] > 0


def test_colour_at_half_the_rate_gives_half_the_sets_each_with_its_own_colour(camera, device):
    sets = []
    for number in range(1, 21):
        device.feed_frame(frame(DEPTH, number))
        device.feed_frame(frame(INFRARED, number))
        if number % 2 == 0:
            device.feed_frame(frame(COLOUR, number // 2, stamp_ns=1_000_000_000 + number * PERIOD_NS))
        sets += everything(camera)
    assert [s.colour.frame_number for s in sets] == list(range(1, 11))
    assert all(s.skew_ns == 0 for s in sets)


@pytest.mark.parametrize(("max_skew_ms", "sets"), [(10.0, 0), (20.0, 5)])
def test_a_skew_of_17_ms_is_judged_by_the_limit(device, source, max_skew_ms, sets):
    settings = replace(SETTINGS, max_skew_ms=max_skew_ms)
    with RealSenseCamera(settings=settings, device_source=source, restart_policy=POLICY,
                         monotonic_ns=Clock()) as camera:
        for number in range(1, 6):
            for kind in StreamKind:
                late_ns = 17_000_000 if kind is COLOUR else 0
                device.feed_frame(frame(kind, number, stamp_ns=1_000_000_000 + number * PERIOD_NS + late_ns))
        got = everything(camera)
        assert [s.skew_ns for s in got] == [17_000_000] * sets
        assert (camera.counters["skew"] > 0) == (sets == 0)


def test_a_missing_plane_costs_its_set_and_no_other(camera, device):
    for number in range(1, 8):
        for kind in StreamKind:
            if (kind, number) != (INFRARED, 4):
                device.feed_frame(frame(kind, number))
    assert numbers(everything(camera)) == [all_equal(n) for n in (1, 2, 3, 5, 6, 7)]
    assert camera.counters["gap_infrared"] == 1


def test_a_repeated_frame_is_stale(camera, device):
    device.feed(frame_set(1))
    device.feed_frame(frame(COLOUR, 1))
    device.feed(frame_set(2))
    assert numbers(everything(camera)) == [all_equal(1), all_equal(2)]
    assert camera.counters["stale_colour"] == 1


def test_sets_own_their_pixels_so_holding_fifty_freezes_nothing(camera, device):
    held = []
    for number in range(1, 51):
        device.feed(frame_set(number))
        held.append(camera.read(1.0))
    assert numbers(held) == [all_equal(n) for n in range(1, 51)]
    assert all(f.pixels.base is None and f.pixels.flags.owndata for each in held for f in each.frames())
    assert np.array_equal(held[0].depth.pixels, plane(DEPTH, 1)), "the first set was not overwritten"


def test_silence_is_a_timeout_and_frames_after_it_are_read(camera, device):
    with pytest.raises(FrameTimeoutError, match=r"no complete set within 0\.1 s"):
        camera.read(0.1)
    device.feed(frame_set(1))
    assert numbers(everything(camera)) == [all_equal(1)]


def test_a_stall_restarts_the_streams_and_begins_a_new_epoch(camera, device):
    device.feed(frame_set(7))
    before = camera.read(1.0)
    with pytest.raises(FrameTimeoutError):
        camera.read(1.5)
    assert camera.counters["restart_restart_streams"] == 1
    device.feed(frame_set(1))  # a restarted sensor counts from one again
    after = camera.read(1.0)
    assert numbers([after]) == [all_equal(1)]
    assert after.epoch != before.epoch
    assert after.sequence == 0


def test_a_camera_that_comes_back_after_a_hardware_reset_delivers_again(camera, device, source):
    while not source.resets:
        with pytest.raises(FrameTimeoutError):
            camera.read(0.2)
    with pytest.raises(FrameTimeoutError):
        camera.read(0.6)
    device.feed(frame_set(1))
    assert numbers(everything(camera)) == [all_equal(1)]
    assert camera.counters["restart_reopen"] == 2


def test_an_unplugged_camera_ends_in_disconnected_and_stays_so(camera, source):
    source.unplug("SIM1")
    with pytest.raises(DisconnectedError, match="RealSense SIM1 is gone"):
        camera.read(60.0)
    assert camera.counters["restart_failed"] > 1
    with pytest.raises(DisconnectedError):
        camera.read(0.1)


def test_a_camera_plugged_in_again_in_time_is_found_by_its_serial(camera, device, source):
    source.unplug("SIM1")
    while not camera.counters["restart_failed"]:
        with pytest.raises(FrameTimeoutError):
            camera.read(0.1)
    source.plug("SIM1")
    with pytest.raises(FrameTimeoutError):
        camera.read(0.6)
    device.feed(frame_set(1))
    assert numbers(everything(camera)) == [all_equal(1)]


def test_rig_comes_from_the_device_with_distortion_and_transposed_rotation(source):
    camera = RealSenseCamera(settings=SETTINGS, device_source=source)
    with camera:
        pass
    got, expected = camera.open().rig, rig()
    camera.close()
    assert got.depth_scale_m == expected.depth_scale_m
    assert got.serial == "SIM1"
    for kind in StreamKind:
        assert got.intrinsics[kind].model is expected.intrinsics[kind].model
        assert np.allclose(got.intrinsics[kind].coefficients, expected.intrinsics[kind].coefficients, atol=1e-7)
        assert np.allclose(got.intrinsics[kind].matrix, expected.intrinsics[kind].matrix)
        assert np.allclose(got.to_colour[kind].matrix, expected.to_colour[kind].matrix, atol=1e-6)
        assert np.allclose(got.to_colour[kind].translation, expected.to_colour[kind].translation, atol=1e-7)


def test_metadata_of_each_plane_is_its_own_and_absent_metadata_is_unknown(camera, device):
    device.feed(frame_set(1))
    device.feed(frame_set(2, emitter=EmitterState.ON, exposure_us=8_500.0, gain=16.0))
    device.feed(frame_set(3, emitter=EmitterState.OFF, exposure_us=4_000.0, gain=32.0))
    bare, lit, dark = everything(camera)
    assert (bare.infrared.emitter, bare.infrared.exposure_us, bare.infrared.gain) == (EmitterState.UNKNOWN, None, None)
    assert (lit.infrared.emitter, lit.infrared.exposure_us, lit.depth.gain) == (EmitterState.ON, 8_500.0, 16.0)
    assert (dark.depth.emitter, dark.infrared.exposure_us, dark.depth.gain) == (EmitterState.OFF, 4_000.0, 32.0)
    assert lit.colour.emitter is EmitterState.UNKNOWN


def test_description_says_simulated_and_names_the_sdk(source):
    camera = RealSenseCamera(settings=SETTINGS, device_source=source)
    description = camera.open()
    camera.close()
    assert description.simulated
    assert description.live
    assert description.details["sdk"].startswith("2.59")
    assert description.streams == (COLOUR, DEPTH, INFRARED)


def test_options_are_set_preset_first_and_reported_as_asked_and_got(source):
    settings = replace(
        SETTINGS, emitter=EmitterMode.ALTERNATING, laser_power=90.0, exposure_us=6_000.0, gain=400.0,
        depth_preset="high_accuracy")
    camera = RealSenseCamera(settings=settings, device_source=source)
    details = camera.open().details
    camera.close()
    optics = {name: text for name, text in details.items() if name.startswith(("depth.", "colour."))}
    assert optics == {
        "depth.visual_preset": "asked 3, got 3", "depth.emitter_enabled": "asked 1, got 1",
        "depth.emitter_on_off": "asked 1, got 1", "depth.laser_power": "asked 90, got 90",
        "depth.enable_auto_exposure": "asked 0, got 0", "depth.exposure": "asked 6000, got 6000",
        "depth.gain": "asked 400, outside 16 to 248, is 16",
        "colour.auto_exposure_priority": "asked 0, got 0", "colour.enable_auto_exposure": "asked 1, got 1"}
    assert next(iter(optics)) == "depth.visual_preset"


@pytest.mark.parametrize(("change", "message"), [
    ({"streams": (DEPTH,)}, "colour is required"), ({"frame_rate": 0}, "frame_rate is 0"),
    ({"gain": 16.0}, "needs exposure_us"), ({"max_skew_ms": -1.0}, "max_skew_ms is -1"),
])
def test_settings_that_cannot_be_meant_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        RealSenseSettings(**change)


def test_unknown_preset_lists_the_known_ones(source):
    camera = RealSenseCamera(settings=replace(SETTINGS, depth_preset="best"), device_source=source)
    with pytest.raises(ValueError, match=r"'best' is not one of .*high_accuracy"):
        camera.open()


def test_a_mode_that_is_not_offered_names_those_that_are(source):
    camera = RealSenseCamera(settings=RealSenseSettings(), device_source=source)
    with pytest.raises(CameraError, match=r"no colour at 640x480@30; it offers 64x48@30 rgb8"):
        camera.open()


def test_a_camera_without_depth_works_when_depth_is_not_required():
    two = (COLOUR, INFRARED)
    device = SimulatedDevice(rig(streams=two))
    settings = replace(SETTINGS, streams=two)
    with RealSenseCamera(settings=settings, device_source=SimulatedDevices(device)) as camera:
        device.feed(frame_set(1, streams=two))
        got = camera.read(1.0)
    assert got.depth is None
    assert got.depth_scale_m is None
    assert got.infrared.frame_number == 1


def test_usb_2_is_warned_about():
    camera = RealSenseCamera(settings=SETTINGS, device_source=SimulatedDevices(SimulatedDevice(rig(), usb_type="2.1")))
    details = camera.open().details
    camera.close()
    assert "connected as USB 2.1" in details["warning"]


@pytest.mark.parametrize(("serials", "asked", "message"), [
    ((), None, "found none"), (("A",), "B", "asked for B, found A"), (("A", "B"), None, "found A, B"),
])
def test_no_or_no_single_device_is_refused_with_a_listing(serials, asked, message):
    source = SimulatedDevices(*(SimulatedDevice(rig(serial=s)) for s in serials))
    camera = RealSenseCamera(asked, settings=SETTINGS, device_source=source)
    with pytest.raises(NoDeviceError, match=message):
        camera.open()
    camera.close()


def test_without_a_camera_open_fails_at_once():
    """`rs.pipeline.start` would block for 15 s here."""
    camera = RealSenseCamera("000000000000")
    began = time.monotonic()
    with pytest.raises(NoDeviceError, match="RealSense camera"):
        camera.open()
    assert time.monotonic() - began < 5.0


def test_read_before_open_and_after_close_is_refused(camera):
    camera.close()
    camera.close()
    with pytest.raises(CameraError, match="not open"):
        camera.read(0.1)


@pytest.mark.parametrize(("name", "product_id", "spectrum"), [
    ("RealSense D435", "0B07", Spectrum.VISIBLE_AND_NEAR_INFRARED),
    ("Intel RealSense D435F", "0B07", Spectrum.NEAR_INFRARED),
    ("RealSense D455", "0B5C", Spectrum.VISIBLE_AND_NEAR_INFRARED), ("RealSense D405", "0B5B", Spectrum.VISIBLE),
    ("RealSense D999", "FFFF", Spectrum.UNKNOWN),
])
def test_spectrum_follows_the_model(name, product_id, spectrum):
    facts = DeviceFacts(name=name, serial="1", product_id=product_id, product_line="D400", usb_type="3.2", firmware="5")
    assert facts.infrared_spectrum is spectrum


def test_the_operator_may_know_the_spectrum_better(device, source):
    settings = replace(SETTINGS, infrared_spectrum=Spectrum.NEAR_INFRARED)
    with RealSenseCamera(settings=settings, device_source=source) as camera:
        device.feed(frame_set(1))
        got = camera.read(1.0)
    assert got.infrared.spectrum is Spectrum.NEAR_INFRARED
    assert got.colour.spectrum is Spectrum.VISIBLE


def test_opening_again_begins_a_new_epoch_with_fresh_counters(camera, device):
    device.feed(frame_set(1))
    device.feed_frame(frame(COLOUR, 1))
    device.feed(frame_set(2))
    first = everything(camera)
    assert camera.counters["stale_colour"] == 1
    camera.open()
    assert camera.counters["stale_colour"] == 0
    device.feed(frame_set(1))
    again = everything(camera)
    assert numbers(again) == [all_equal(1)]
    assert (again[0].sequence, again[0].epoch == first[0].epoch) == (0, False)
