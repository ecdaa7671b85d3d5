"""The one door to pyrealsense2 (librealsense 2.59).

Importing this module loads nothing; `load()` does, once. It first loads the libusb that the `libusb-package` wheel
carries, because pyrealsense2 links libusb-1.0 and a bare system has none, and it switches the SDK's usage upload off
(`RS2_RUM_CLOUD_ENABLED=0`, which overrides the SDK's own setting). SDK 2.59 can still keep a local usage report, see
`report_path` and docs/realsense.md.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from functools import cache
from typing import Any

from capture.camera import CameraError


class RealSenseSdkError(CameraError):
    """pyrealsense2 or its libusb cannot be loaded; the message names the extra to install."""


@cache
def load() -> Any:
    """The `pyrealsense2` module, ready for use.

    Raises:
        RealSenseSdkError: not installed, or its shared libraries do not load.
    """
    os.environ["RS2_RUM_CLOUD_ENABLED"] = "0"
    try:
        libusb = importlib.import_module("libusb_package").get_library_path()
        if libusb is not None:
            ctypes.CDLL(str(libusb), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module("pyrealsense2")
    except (ImportError, OSError) as error:
        raise RealSenseSdkError(f"the RealSense SDK does not load ({error}); install it with "
                                "pip install 'mmdg-live[realsense]'") from error


def version() -> str:
    """The SDK's version, for manifests and `mmdg doctor`."""
    return str(load().__version__)


def report_path() -> str:
    """Where the SDK keeps its local usage report (device name, firmware, streams, options; no serial, no images)."""
    return str(load().rum.get_report_path())
