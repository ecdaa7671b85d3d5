"""Resolve `requirements.lock` from pyproject.toml: `make lock`, or `make lock UPGRADE=1` to move the pins.

`python3 scripts/lock.py --sizes` prints what a machine with Python 3.11 downloads, from the index's own file sizes.

The lock holds every package of the product (extras as `EXTRAS`) and of the development
group, with hashes of all its files, for Linux x86_64 on Python 3.11 and 3.12; the two resolutions must agree. Left out:
torch and its GPU packages (see `scripts/set_up.py`), opencv-contrib-python, whose headless twin is the one `cv2`, and
openvino-telemetry.
No index address is written: whoever installs brings their own, the hashes decide.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from set_up import LOCK, ROOT, SUPPORTED_PYTHON, TORCH_REQUIREMENT

EXTRAS = ("realsense", "engine", "openvino", "plusplus", "simulate", "train")
LEFT_OUT = re.compile(r"^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")
#: Named by packages that work without them: a second `cv2`, and a reporter of usage over the network.
NEVER = ("opencv-contrib-python", "openvino-telemetry")
HEADER = f"""\
# Made by `make lock` from pyproject.toml; do not edit. Linux x86_64, Python 3.11 and 3.12.
# Install with --no-deps --require-hashes; {TORCH_REQUIREMENT} comes apart (scripts/set_up.py).
"""


def blocks(text: str) -> dict[str, str]:
    """Requirement line -> its whole block (the line, its hashes, its `via` comments)."""
    found: dict[str, str] = {}
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", text):
        if block[:1].isalnum():
            found[re.split(r"[ \\\n]", block, maxsplit=1)[0]] = block
    return found


def compile_lock(uv: str, python: tuple[int, int], folder: Path, output: Path, *options: str) -> None:
    """Run uv once; raises `CalledProcessError` when there is no resolution."""
    overrides, constraints = folder / "overrides.txt", folder / "constraints.txt"
    overrides.write_text("".join(f'{name} ; sys_platform == "never"\n' for name in NEVER), encoding="utf-8")
    constraints.write_text(TORCH_REQUIREMENT + "\n", encoding="utf-8")
    subprocess.run([
        uv, "pip", "compile", "--quiet", str(ROOT / "pyproject.toml"), *(f"--extra={name}" for name in EXTRAS),
        "--group=dev", f"--python-version={python[0]}.{python[1]}", "--python-platform=x86_64-manylinux_2_28",
        "--override", str(overrides), "--constraint", str(constraints), "--only-binary=:all:",
        "--output-file", str(output), *options], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def print_sizes(uv: str, folder: Path) -> None:
    """Sizes of the wheels that Python 3.11 on Linux x86_64 takes, in MB (10^6 bytes)."""
    output = folder / "pylock.toml"
    pins = folder / "pins.txt"
    pins.write_text("\n".join(blocks(LOCK.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")
    compile_lock(uv, SUPPORTED_PYTHON[0], folder, output, "--format=pylock.toml", "--constraint", str(pins))
    locked, torch = {}, {}
    for package in tomllib.loads(output.read_text(encoding="utf-8"))["packages"]:
        sizes = [wheel["size"] for wheel in package.get("wheels", []) if "size" in wheel and re.search(
            r"(cp311-cp311|abi3|py3-none|py2\.py3-none)-(any|manylinux\w*x86_64[.\w]*)\.whl",
            wheel.get("name") or wheel["url"])]
        named = f"{package['name']}=={package['version']}"
        (torch if LEFT_OUT.match(named) else locked)[named] = max(sizes, default=0)
    for title, part in (("requirements.lock", locked), ("torch from the default index (CUDA)", torch)):
        print(f"{title}: {len(part)} packages, {sum(part.values()) / 1e6:.0f} MB")
        for named, size in sorted(part.items(), key=lambda item: -item[1]):
            print(f"  {size / 1e6:7.1f}  {named}")


def resolve(uv: str, python: tuple[int, int], folder: Path, upgrade: bool) -> dict[str, str]:
    """One resolution, without what is left out of the lock."""
    output = folder / f"{python[1]}.txt"
    if LOCK.exists() and not upgrade:
        shutil.copy(LOCK, output)  # uv keeps the versions of an existing output where they still fit
    compile_lock(uv, python, folder, output, "--generate-hashes", "--no-header", "--no-annotate")
    return {pin: block for pin, block in blocks(output.read_text(encoding="utf-8")).items() if not LEFT_OUT.match(pin)}


def main() -> int:
    """Exit codes: 0 written, 1 no resolution or the two Pythons disagree, 2 uv is missing."""
    uv = shutil.which("uv")
    if uv is None:
        print("make lock needs uv on the PATH (pip install uv)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        try:
            if "--sizes" in sys.argv:
                print_sizes(uv, Path(folder))
                return 0
            parts = [resolve(uv, python, Path(folder), "--upgrade" in sys.argv) for python in SUPPORTED_PYTHON]
        except subprocess.CalledProcessError as error:
            print(f"uv found no resolution (exit code {error.returncode}), see above", file=sys.stderr)
            return 1
    merged: dict[str, str] = {}
    for part in parts:
        merged |= part
    names = [pin.partition("==")[0] for pin in merged]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        print(f"Python 3.11 and 3.12 resolve to different versions of {', '.join(double)}: bound them in "
              "pyproject.toml", file=sys.stderr)
        return 1
    LOCK.write_text(HEADER + "".join(merged[pin] for pin in sorted(merged)), encoding="utf-8")
    print(f"{LOCK.name}: {len(merged)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
