"""The one import of OpenVINO.

Its wheel also asks for `openvino-telemetry`, which reports usage over the network. OpenVINO works without it, and we do
not install it.
"""

from __future__ import annotations

try:
    import openvino
    from openvino import opset13 as opset
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("this backend needs OpenVINO: pip install 'mmdg-live[openvino]'",
                              name="openvino") from error

__all__ = ["openvino", "opset"]
