"""Set-up behind every `make` target: one virtual environment, the full lock, torch, this project, its assets.

Standard library only: it runs before anything is installed, with whatever Python 3.11 or 3.12 `preflight.sh` found.

    python3 scripts/set_up.py [--venv .venv] [--torch-index URL] [--force]

The second run finds the stamps of the first and returns at once: `<venv>/set-up-stamp.json` (hash of the lock, of
pyproject.toml and of this file, the Python version, the torch index) and `<venv>/assets-stamp.json` (every asset file
with its size and time of change, and the hash of the modules that own them). When an asset was touched or is gone, its
own command looks at it: these are idempotent and repair a damaged file.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"

#: Kept out of the lock, because the right file depends on the machine: pip's default on Linux x86_64 is the CUDA
#: build with its nvidia-* packages (exact versions, named by torch itself), `--torch-index` can point at a CPU build.
TORCH_REQUIREMENT = "torch==2.13.0"

SUPPORTED_PYTHON = ((3, 11), (3, 12))
STAMP_NAME = "set-up-stamp.json"
ASSETS_STAMP_NAME = "assets-stamp.json"
#: Module that owns an asset -> how Python makes or checks it.
ASSET_COMMANDS = {
    "detect.model_assets": ("-m", "detect.model_assets"),
    "mmdg_model.test_checkpoint": (
        "-c", "from mmdg_model.test_checkpoint import ensure_test_checkpoint; print(ensure_test_checkpoint())"),
}


class SetUpError(Exception):
    """Set-up cannot go on; the message names the step and the remedy."""


def lock_hash(*files: Path) -> str:
    """SHA-256 over the names and contents of the files that decide what gets installed."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def wanted_stamp(torch_index: str) -> dict[str, str]:
    """What a finished environment must have been made from."""
    return {
        "inputs": lock_hash(LOCK, ROOT / "pyproject.toml", Path(__file__)),
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch_index": torch_index,
        "root": str(ROOT),
    }


def read_stamp(path: Path) -> dict[str, str]:
    """The stamp of an earlier run; empty when there is none or it is damaged (then set-up simply runs again)."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def pins(lock_text: str) -> list[str]:
    """`name==version` lines of a hashed lock, without hashes: a constraints file for packages outside the lock."""
    return [line.split(" ")[0].split(";")[0] for line in lock_text.splitlines() if line[:1].isalnum()]


def asset_sources() -> dict[str, Path]:
    """The modules that own an asset, as far as this tree has them."""
    paths = {module: ROOT / (module.replace(".", "/") + ".py") for module in ASSET_COMMANDS}
    return {module: path for module, path in paths.items() if path.exists()}


def assets_stamp(folder: Path) -> dict[str, str]:
    """What is in the asset folder and who put it there."""
    stamp = {"inputs": lock_hash(*asset_sources().values()), "folder": str(folder)}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file():
            status = path.stat()
            stamp[path.relative_to(folder).as_posix()] = f"{status.st_size} bytes, {status.st_mtime_ns} ns"
    return stamp


def run(step: str, command: Sequence[str]) -> None:
    """Run one step, its output on our stderr so that stdout stays free for answers.

    Raises:
        SetUpError: with the step, the exit code and the command.
    """
    print(f"set-up: {step}", file=sys.stderr, flush=True)
    code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode
    if code:
        raise SetUpError(f"{step} failed with exit code {code}: {' '.join(command)}\n"
                         "Read the lines above; after curing the cause the same make command goes on from here.")


def installed_version(python: Path, distribution: str) -> str | None:
    """Version of a distribution inside the environment, None when it is absent."""
    answer = subprocess.run(
        [str(python), "-c", f"import importlib.metadata as m; print(m.version({distribution!r}))"],
        capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def make_environment(environment: Path, torch_index: str) -> None:
    """Create the virtual environment and install everything into it.

    Raises:
        SetUpError: a step failed.
    """
    python = environment / "bin" / "python"
    if not is_usable(environment):
        print(f"set-up: creating {environment} with Python {sys.version.split()[0]}", file=sys.stderr, flush=True)
        venv.EnvBuilder(with_pip=True, clear=environment.exists(), symlinks=True).create(environment)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    # --no-deps: mediapipe names opencv-contrib-python, which wants X11 and GL and would overwrite the cv2 of
    # opencv-contrib-python-headless; the lock is complete without it.
    run("installing the lock (about 0.4 GB to download the first time)",
        [*pip, "--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(LOCK)])
    if (installed_version(python, "torch") or "").split("+")[0] != TORCH_REQUIREMENT.partition("==")[2]:
        constraints = environment / "lock-constraints.txt"
        constraints.write_text("\n".join(pins(LOCK.read_text(encoding="utf-8"))) + "\n", encoding="utf-8")
        index = ["--index-url", torch_index] if torch_index else []
        run(f"installing {TORCH_REQUIREMENT}" + (f" from {torch_index}" if torch_index else ""),
            [*pip, "--constraint", str(constraints), *index, TORCH_REQUIREMENT])
    # Whoever starts .venv/bin/mmdg-live by hand finds the same assets as make does; a variable that is set wins.
    for site_packages in (environment / "lib").glob("python3.*/site-packages"):
        (site_packages / "mmdg_assets.pth").write_text(
            f"import os; os.environ.setdefault('MMDG_ASSETS', {str(environment / 'assets')!r})\n", encoding="utf-8")
    run("installing this project (editable)", [*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])


def is_usable(environment: Path) -> bool:
    """Whether the environment runs this Python and was made at this path (its scripts name their interpreter by it)."""
    python = environment / "bin" / "python"
    try:
        shebang = (environment / "bin" / "pip").read_bytes().splitlines()[0]
        answer = subprocess.run([str(python), "-c", "import sys; print('.'.join(map(str, sys.version_info[:3])))"],
                                capture_output=True, text=True, check=False)
    except (OSError, IndexError):
        return False
    same_python = answer.returncode == 0 and answer.stdout.strip() == ".".join(map(str, sys.version_info[:3]))
    return same_python and os.fsencode(environment) in shebang


def install_assets(environment: Path) -> None:
    """The face-detector file and the test checkpoint, each by the module that owns it.

    Raises:
        SetUpError: a command failed.
    """
    folder = Path(os.environ.setdefault("MMDG_ASSETS", str(environment / "assets")))
    stamp_path = environment / ASSETS_STAMP_NAME
    if read_stamp(stamp_path) == assets_stamp(folder):
        return
    for module in asset_sources():
        run(f"asset of {module}", [str(environment / "bin" / "python"), *ASSET_COMMANDS[module]])
    stamp_path.write_text(json.dumps(assets_stamp(folder), indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 ready, 1 a step failed, 2 wrong usage or Python."""
    parser = argparse.ArgumentParser(description="Create or reuse the virtual environment of mmdg-live.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--torch-index", default="", help="index to take torch from, such as PyTorch's CPU wheel index")
    parser.add_argument("--force", action="store_true", help="install again although the stamp matches")
    options = parser.parse_args(arguments)
    if sys.version_info[:2] not in SUPPORTED_PYTHON:
        print(f"set-up: Python {sys.version.split()[0]} is not supported: the lock holds wheels for 3.11 and 3.12; "
              "name one of these: make PYTHON=python3.11", file=sys.stderr)
        return 2
    environment: Path = options.venv.resolve()
    stamp_path = environment / STAMP_NAME
    wanted = wanted_stamp(options.torch_index)
    try:
        if options.force or read_stamp(stamp_path) != wanted or not (environment / "bin" / "python").exists():
            stamp_path.unlink(missing_ok=True)  # an interrupted set-up must not look finished
            make_environment(environment, options.torch_index)
            stamp_path.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        install_assets(environment)
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    assert importlib.util.find_spec("ensurepip"), "python3-venv is missing: run scripts/preflight.sh"
    sys.exit(main())
