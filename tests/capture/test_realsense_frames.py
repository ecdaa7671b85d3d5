"""What an SDK frame becomes, with a device that claims to be hardware."""

import numpy as np
import pytest

from capture import realsense_sdk
from capture.frames import ClockDomain, FrameSet, Spectrum, StreamKind
from capture.realsense_frames import DeviceFacts, frame_from_sdk
from capture.simulated_device import SimulatedDevice
from tests.capture.realsense_scenes import PERIOD_NS, frame, plane, rig

FACTS = DeviceFacts(name="RealSense D435", serial="1", product_id="0B07", product_line="D400", usb_type="3.2",
                    firmware="5.16")


@pytest.fixture
def exposed():
    """Expose a frame on a device and get the SDK's frame for it."""
    device, sdk_queue = SimulatedDevice(rig()), realsense_sdk.load().frame_queue(4)
    sensors = device.device.query_sensors()
    for sensor in sensors:
        sensor.open(sensor.get_stream_profiles())
        sensor.start(sdk_queue)

    def expose(each):
        device.feed_frame(each)
        arrived, sdk_frame = sdk_queue.try_wait_for_frame(1_000)
        assert arrived
        return sdk_frame

    yield expose
    for sensor in sensors:
        sensor.stop()
        sensor.close()


@pytest.mark.parametrize("domain", [ClockDomain.HARDWARE, ClockDomain.GLOBAL, ClockDomain.HOST])
@pytest.mark.parametrize("kind", list(StreamKind))
def test_every_stream_and_clock_domain_maps(exposed, kind, domain):
    got = frame_from_sdk(exposed(frame(kind, 7, domain=domain)), FACTS, Spectrum.UNKNOWN, arrival_ns=123)
    assert (got.kind, got.clock_domain, got.frame_number, got.arrival_ns) == (kind, domain, 7, 123)
    assert got.sensor_timestamp_ns == 1_000_000_000 + 7 * PERIOD_NS
    assert got.bit_depth == (16 if kind is StreamKind.DEPTH else 8)
    assert np.array_equal(got.pixels, plane(kind, 7))


def test_a_stamp_of_today_keeps_its_microseconds(exposed):
    """Global time is about 1.76e12 ms: a float64 of milliseconds still resolves a quarter of a microsecond."""
    stamp_ns = 1_760_000_000_123_456_000
    sdk_frame = exposed(frame(StreamKind.DEPTH, 1, stamp_ns=stamp_ns, domain=ClockDomain.GLOBAL))
    got = frame_from_sdk(sdk_frame, FACTS, Spectrum.UNKNOWN, 0)
    assert abs(got.sensor_timestamp_ns - stamp_ns) < 1_000


def test_frames_make_a_frame_set_of_owned_pixels(exposed):
    planes = {k: frame_from_sdk(exposed(frame(k, 1)), FACTS, FACTS.infrared_spectrum, 0) for k in StreamKind}
    made = FrameSet(source="1", epoch=0, sequence=0, depth_scale_m=0.001, **planes)
    assert all(f.pixels.flags.owndata and f.pixels.flags.c_contiguous for f in made.frames())
    assert made.infrared.spectrum is Spectrum.VISIBLE_AND_NEAR_INFRARED


@pytest.mark.parametrize(("kind", "exposure_us"), [(StreamKind.DEPTH, 8_500.0), (StreamKind.INFRARED, 8_500.0),
                                                   (StreamKind.COLOUR, None)])
def test_exposure_of_a_real_colour_sensor_is_unknown(exposed, kind, exposure_us):
    got = frame_from_sdk(exposed(frame(kind, 1, exposure_us=8_500.0)), FACTS, Spectrum.UNKNOWN, 0)
    assert got.exposure_us == exposure_us
