"""Is this machine fit for mmdg-live? Each check is one line: ok, warn or fail, with the remedy.

Imports nothing but the standard library, so that it works when nothing else does: `mmdg doctor`, or, when even the
command line cannot load, `python -m pipeline.doctor`. Everything that may hang or crash (an SDK's import, a camera
query, CUDA) runs in a child process with a time limit.

Exit codes: 0 fit (warnings allowed), 1 at least one check failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from pipeline.doctor_files import asset_directory, describe_checkpoint

IMPORT_LIMIT_S = 60.0
CAMERA_LIMIT_S = 20.0
MIN_FREE_BYTES = 1 << 30  # below this a recording or an asset download fails within seconds
COMFORTABLE_FREE_BYTES = 10 << 30  # about a minute and a half of three raw 848x480 streams at 30 sets a second
MIN_MEMORY_BYTES = 2 << 30
_LONGEST_SOCKET_NAME = "mmdg-12345678/observations.lock"


class Status(StrEnum):
    """`warn`: something will not work, the rest will. `fail`: the pipeline cannot run, or would run wrongly."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One finding. `remedy` says what to do about it; empty only when `status` is ok."""

    check: str
    status: Status
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Library:
    """A distribution, the module it is imported as, and the extra that brings it (empty: the light core)."""

    distribution: str
    module: str
    extra: str = ""


LIBRARIES = (
    Library("numpy", "numpy"), Library("scipy", "scipy"), Library("opencv-contrib-python-headless", "cv2"),
    Library("pyzmq", "zmq"), Library("msgspec", "msgspec"), Library("pyyaml", "yaml"), Library("typer", "typer"),
    Library("mcap", "mcap"), Library("zstandard", "zstandard"), Library("cryptography", "cryptography"),
    Library("torch", "torch", "engine"), Library("safetensors", "safetensors", "engine"),
    Library("mediapipe", "mediapipe", "engine"), Library("pyrealsense2", "pyrealsense2", "realsense"),
    Library("embreex", "embreex", "simulate"), Library("openvino", "openvino", "openvino"),
    Library("pyarrow", "pyarrow", "train"),
)

#: (library, Debian package, what needs it)
SHARED_LIBRARIES = (
    ("libEGL.so.1", "libegl1", "mediapipe"), ("libGLESv2.so.2", "libgles2", "mediapipe"),
    ("libudev.so.1", "libudev1", "pyrealsense2"), ("libstdc++.so.6", "libstdc++6", "every binary wheel"),
)

# pyrealsense2 links libusb, which a bare machine lacks: the libusb-package wheel carries it.
_PRELOAD = {"pyrealsense2": "import ctypes, libusb_package as p; "
                            "ctypes.CDLL(str(p.get_library_path()), ctypes.RTLD_GLOBAL); "}


def in_child(code: str, limit_s: float) -> tuple[str | None, str]:
    """Run Python `code` in a child. Returns (its stdout, "") or (None, why it failed in one line)."""
    try:
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=limit_s,
                                stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return None, f"no answer within {limit_s:g} s"
    except OSError as error:
        return None, str(error)
    if answer.returncode < 0:
        return None, f"the child process was killed by signal {-answer.returncode}"
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.strip()]
        return None, lines[-1].strip() if lines else f"exit code {answer.returncode}"
    return answer.stdout, ""


def check_library(library: Library, limit_s: float = IMPORT_LIMIT_S) -> Check:
    """Import one library in a child; a missing extra is a warning, a missing part of the core a failure."""
    name, bad = f"library {library.module}", Status.WARN if library.extra else Status.FAIL
    package = f"mmdg-live[{library.extra}]" if library.extra else "mmdg-live"
    try:
        version = importlib.metadata.version(library.distribution)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, bad, f"{library.distribution} is not installed", f"pip install '{package}', or make set-up")
    _, failure = in_child(f"{_PRELOAD.get(library.module, '')}import {library.module}", limit_s)
    if failure:
        return Check(name, bad, f"{version}: importing it failed: {failure}",
                     f"see the shared libraries below; then install {library.distribution} again")
    return Check(name, Status.OK, version)


def check_cv2_distributions() -> Check:
    """Several OpenCV distributions overwrite each other's `cv2` folder: exactly one may be there."""
    found = sorted(importlib.metadata.packages_distributions().get("cv2", []))
    if len(set(found)) == 1:
        return Check("opencv distributions", Status.OK, found[0])
    return Check("opencv distributions", Status.FAIL, f"{len(set(found))} provide cv2: {', '.join(found) or 'none'}",
                 "pip uninstall all of them, then pip install opencv-contrib-python-headless (mediapipe's own "
                 "dependency opencv-contrib-python must stay out)")


def check_shared_library(library: str, package: str, user: str) -> Check:
    """Open a shared library the way the dynamic linker would."""
    _, failure = in_child(f"import ctypes; ctypes.CDLL({library!r})", IMPORT_LIMIT_S)
    if failure:
        return Check(f"shared library {library}", Status.FAIL, f"not found; {user} links it",
                     f"apt-get install --no-install-recommends {package}")
    return Check(f"shared library {library}", Status.OK, f"for {user}")


def check_usb(sys_root: Path = Path("/sys"), dev_root: Path = Path("/dev")) -> Check:
    """RealSense devices on the bus, and whether this user may open their nodes."""
    name = "usb access"
    if not (dev_root / "bus/usb").is_dir():
        return Check(name, Status.WARN, f"{dev_root / 'bus/usb'} does not exist: no USB here",
                     "in a container pass the bus and video nodes through; the simulated camera needs none")
    devices, closed = [], []
    for vendor in sorted(sys_root.glob("bus/usb/devices/*/idVendor")):
        folder = vendor.parent
        product = _line(folder / "product")
        if _line(vendor) != "8086" or "realsense" not in product.lower():
            continue
        node = dev_root / "bus/usb" / _line(folder / "busnum").zfill(3) / _line(folder / "devnum").zfill(3)
        devices.append(f"{product} (USB {_line(folder / 'version')})")
        if not os.access(node, os.R_OK | os.W_OK):
            closed.append(str(node))
    for node in sorted(dev_root.glob("video*")) if devices else ():
        if not os.access(node, os.R_OK | os.W_OK):
            closed.append(str(node))
    if closed:
        return Check(name, Status.FAIL, f"{', '.join(devices)}: no read and write access to {', '.join(closed)}",
                     "install librealsense's 99-realsense-libusb.rules in /etc/udev/rules.d, join the groups video and "
                     "plugdev (usermod -aG video,plugdev $USER), log in again and replug the camera")
    if not devices:
        return Check(name, Status.WARN, "no RealSense device on the bus",
                     "plug it into a USB 3 port; the simulated camera, recordings and webcams need none")
    if any("(USB 2" in device for device in devices):
        return Check(name, Status.WARN, ", ".join(devices), "USB 2 cannot carry all three streams: use a USB 3 port "
                     "and cable")
    return Check(name, Status.OK, ", ".join(devices))


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def check_cameras() -> Check:
    """What the RealSense SDK itself lists, asked in a child because a query can hang."""
    output, failure = in_child("import json; from capture.realsense_device import list_devices; "
                               "print(json.dumps(list_devices(), default=str))", CAMERA_LIMIT_S)
    if output is None:
        return Check("cameras", Status.WARN, f"the RealSense SDK cannot be asked: {failure}",
                     "pip install 'mmdg-live[realsense]'; unplug and replug the camera if the query hangs")
    try:
        found = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        return Check("cameras", Status.WARN, f"the SDK's answer is not a list: {output[-200:]!r}", "report this line")
    if not found:
        return Check("cameras", Status.WARN, "the RealSense SDK lists none", "see usb access; --camera simulated works")
    return Check("cameras", Status.OK, "; ".join(
        " ".join(str(value) for value in device.values()) if isinstance(device, dict) else str(device)
        for device in found))


def check_threads() -> Check:
    """Cores we may use, and the OpenMP setting without which a busy neighbour slows inference many times over."""
    cores, policy = len(os.sched_getaffinity(0)), os.environ.get("OMP_WAIT_POLICY", "")
    detail = f"{cores} of {os.cpu_count()} cores usable, OMP_WAIT_POLICY={policy or 'not set'}"
    if cores < 2:
        return Check("threads", Status.WARN, detail, "one core has to share capture and inference: give it two or more")
    if policy.upper() != "PASSIVE":
        return Check("threads", Status.WARN, detail, "export OMP_WAIT_POLICY=PASSIVE for scripts of your own "
                     "(mmdg-live sets it for the processes it starts)")
    return Check("threads", Status.OK, detail)


def check_memory(meminfo: Path = Path("/proc/meminfo")) -> Check:
    """Memory available now."""
    fields = dict(line.split(":", 1) for line in _line(meminfo).splitlines() if ":" in line)
    words = fields.get("MemAvailable", "").split()
    if not words or not words[0].isdigit():
        return Check("memory", Status.WARN, f"{meminfo} has no MemAvailable", "check it by hand: 2 GiB are needed")
    available = int(words[0]) * 1024
    detail = f"{available / 2**30:.1f} GiB available"
    if available < MIN_MEMORY_BYTES:
        return Check("memory", Status.WARN, detail, "free some: detector, network and buffers take up to 2 GiB")
    return Check("memory", Status.OK, detail)


def check_disk(folder: Path, free_bytes: int | None = None) -> Check:
    """Free space where recordings would go."""
    free = shutil.disk_usage(folder).free if free_bytes is None else free_bytes
    detail = f"{free / 2**30:.1f} GiB free under {folder}"
    if free < MIN_FREE_BYTES:
        return Check("disk", Status.FAIL, detail, "free at least 1 GiB; a recording would stop within seconds")
    if free < COMFORTABLE_FREE_BYTES:
        return Check("disk", Status.WARN, detail, "enough to run, little to record")
    return Check("disk", Status.OK, detail)


def check_model(path: Path | None) -> Check:
    """Which checkpoint would decide: its hash and what it was made for."""
    found = describe_checkpoint(path)
    if found.problem:
        return Check("model", Status.FAIL, found.problem, "make set-up, or name a checkpoint: --model FILE")
    detail = f"{found.path}: purpose {found.purpose}, SHA-256 {found.sha256}"
    if found.purpose == "release":
        return Check("model", Status.OK, detail)
    meaning = ("test weights: no verdict possible, every decision stays undecided" if found.purpose == "test" else
               "weights trained on simulated data only: they say nothing about real people")
    return Check("model", Status.WARN, f"{detail}; {meaning}", "name a release checkpoint: --model FILE")


def check_face_model() -> Check:
    """The face-detector file: present, and with the hash it must have."""
    output, failure = in_child("from detect.model_assets import find_face_model; print(find_face_model())",
                               IMPORT_LIMIT_S)
    if output is None:
        return Check("face model", Status.FAIL, failure, "python -m detect.model_assets (make set-up does it)")
    return Check("face model", Status.OK, output.strip())


def check_gpu() -> Check:
    """What torch can compute on. No GPU is fine: inference runs on the CPU."""
    code = ("import json, torch; c = torch.cuda; print(json.dumps([torch.__version__, [[c.get_device_name(i), "
            "c.get_device_properties(i).total_memory] for i in range(c.device_count())] if c.is_available() else []]))")
    output, failure = in_child(code, IMPORT_LIMIT_S)
    if output is None:
        return Check("gpu", Status.WARN, f"torch cannot be asked: {failure}", "see library torch")
    version, devices = json.loads(output.splitlines()[-1])
    if not devices:
        return Check("gpu", Status.OK, f"none, inference runs on the CPU (torch {version})")
    return Check("gpu", Status.OK, f"torch {version}: " + ", ".join(
        f"{name} {memory / 2**30:.0f} GiB" for name, memory in devices))


def check_runtime_dir(base: str | None = None) -> Check:
    """Where the private folder of the internal sockets would be made."""
    wanted = base if base is not None else os.environ.get("XDG_RUNTIME_DIR", "")
    folder = wanted if wanted and os.access(wanted, os.W_OK | os.X_OK) else tempfile.gettempdir()
    longest = len(os.fsencode(os.path.join(folder, _LONGEST_SOCKET_NAME)))
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check("runtime dir", Status.FAIL, f"{folder} is not writable", "set XDG_RUNTIME_DIR to your own folder")
    if longest > 107:
        return Check("runtime dir", Status.FAIL, f"{folder}: socket paths would have {longest} bytes, 107 are allowed",
                     "set XDG_RUNTIME_DIR to a shorter path")
    return Check("runtime dir", Status.OK, f"under {folder}")


def check_platform() -> Check:
    """Operating system, processor and Python against what is supported."""
    detail = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {platform.platform()}"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return Check("platform", Status.FAIL, detail, "supported: Linux on x86_64")
    if sys.version_info[:2] not in ((3, 11), (3, 12)):
        return Check("platform", Status.WARN, detail, "tested: Python 3.11 and 3.12")
    return Check("platform", Status.OK, detail)


def examine(model: Path | None = None) -> list[Check]:
    """Every check, in the order in which a person would cure them. A check that breaks is itself a failure."""
    tasks: list[tuple[str, Callable[[], Check]]] = [("platform", check_platform)]
    tasks += [(f"shared library {row[0]}", partial(check_shared_library, *row)) for row in SHARED_LIBRARIES]
    tasks += [(f"library {row.module}", partial(check_library, row)) for row in LIBRARIES]
    tasks += [("opencv distributions", check_cv2_distributions), ("usb access", check_usb), ("cameras", check_cameras),
              ("threads", check_threads), ("memory", check_memory), ("disk", lambda: check_disk(Path.cwd())),
              ("assets", lambda: Check("assets", Status.OK, str(asset_directory()))),
              ("model", lambda: check_model(model)), ("face model", check_face_model), ("gpu", check_gpu),
              ("runtime dir", check_runtime_dir)]

    def guarded(task: tuple[str, Callable[[], Check]]) -> Check:
        name, run = task
        try:
            return run()
        except Exception as error:  # noqa: BLE001 - the doctor must finish; what broke is its finding
            return Check(name, Status.FAIL, f"the check itself broke: {type(error).__name__}: {error}",
                         "report this line")

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(guarded, tasks))


def report(checks: Sequence[Check], *, as_json: bool) -> str:
    """The checks as text for people, or as one JSON object a line, the last one a summary."""
    counts = {status.value: sum(check.status is status for check in checks) for status in Status}
    if as_json:
        return "\n".join(json.dumps(row) for row in [*map(asdict, checks), {"summary": counts}])
    lines = []
    for check in checks:
        lines.append(f"{check.status.value:4}  {check.check}: {check.detail}")
        if check.remedy and check.status is not Status.OK:
            lines.append(f"      -> {check.remedy}")
    verdict = "not fit" if counts["fail"] else "fit"
    lines.append(f"{verdict}: {counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failures")
    return "\n".join(lines)


def exit_code(checks: Sequence[Check]) -> int:
    """1 when any check failed, else 0."""
    return int(any(check.status is Status.FAIL for check in checks))


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m pipeline.doctor`: the same answer without Typer."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.doctor", description="Is this machine fit for mmdg-live?")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--model", type=Path, help="the checkpoint to judge")
    options = parser.parse_args(arguments)
    checks = examine(options.model)
    print(report(checks, as_json=options.json))
    return exit_code(checks)


if __name__ == "__main__":
    sys.exit(main())
