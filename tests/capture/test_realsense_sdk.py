import subprocess
import sys

import pytest

from capture import realsense_sdk
from capture.realsense_device import HardwareDevices, list_devices, unsuitable, usb_remark
from capture.realsense_frames import DeviceFacts


def test_importing_our_modules_does_not_load_the_sdk():
    program = ("import capture.realsense, capture.realsense_file, capture.simulated_device, sys; "
               "sys.exit('pyrealsense2' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("missing", ["pyrealsense2", "libusb_package"])
def test_a_missing_wheel_names_the_extra_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(realsense_sdk.RealSenseSdkError, match=r"pip install 'mmdg-live\[realsense\]'"):
        realsense_sdk.load.__wrapped__()


def test_the_usage_upload_is_off():
    assert realsense_sdk.load().rum.is_cloud_enabled() is False
    assert realsense_sdk.version().startswith("2.59")
    assert realsense_sdk.report_path().endswith("rum.json")


def test_list_devices_agrees_with_the_seam():
    rows = list_devices()
    assert [row["serial"] for row in rows] == [row["serial"] for row in HardwareDevices().list()]
    assert all(row["supported"] in ("yes", "no") and row["name"] for row in rows)


@pytest.mark.parametrize(("product_line", "product_id", "why"), [
    ("D400", "0B07", None), ("D400", "0B5B", "D405"), ("D400", "1155", "no colour"), ("L500", "0B64", "L500"),
    ("", "", "unknown"),
])
def test_only_cameras_that_give_three_planes_are_suitable(product_line, product_id, why):
    facts = DeviceFacts(name="x", serial="1", product_id=product_id, product_line=product_line, usb_type="3.2",
                        firmware="5")
    answer = unsuitable(facts)
    assert answer is None if why is None else why in answer


@pytest.mark.parametrize(("usb_type", "warned"), [("2.1", True), ("2.0", True), ("3.2", False), ("", False)])
def test_usb_2_is_remarked(usb_type, warned):
    assert bool(usb_remark(usb_type)) == warned
