"""The walls of docs/architecture.md, held: who imports what, what loads when, what may be named and tracked."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("capture", "detect", "align", "calibration", "mmdg_model", "pipeline")

#: SDK -> the only modules that may import it, as patterns over paths from the root.
IMPORTERS = {
    "torch": (r"mmdg_model/.*",),
    "safetensors": (r"mmdg_model/.*",),
    "zmq": (r"pipeline/channels\.py", r"pipeline/kiosk_client\.py"),
    "openvino": (r"mmdg_model/backends/openvino_sdk\.py",),
    "mediapipe": (r"detect/blazeface\.py",),
    "pyrealsense2": (r"capture/realsense_sdk\.py",),
    "instant_clip_tokenizer": (r"mmdg_model/mmdg_plus_plus/tokenizer\.py",),
    "embreex": (r"capture/simulated/.*",),
    "anny": (r"capture/simulated/bake_heads\.py",),
    "mitsuba": (r"capture/independent/mitsuba_renderer\.py",),
    "drjit": (r"capture/independent/mitsuba_renderer\.py",),
    "pyarrow": (r"mmdg_model/training/scores\.py",),
    "jinja2": (r"mmdg_model/training/report/pages\.py", r"pipeline/session_report/page\.py"),
    "ray": (r"mmdg_model/training/ray_executor\.py",),
    "lightning_fabric": (r"mmdg_model/training/fabric_compute\.py",),
    "tensorboardX": (r"mmdg_model/training/tensorboard_log\.py",),
}
HEAVY = ("torch", "openvino", "mediapipe", "pyrealsense2", "embreex", "anny", "mitsuba", "matplotlib", "pyarrow",
         "lightning_fabric", "tensorboardX")

#: Public definitions without a docstring, counted per package. It may only shrink: lower the number when you add one.
UNDOCUMENTED = {"capture": 18, "detect": 0, "align": 0, "calibration": 0, "mmdg_model": 3, "pipeline": 0}


def tracked_files() -> list[Path]:
    """Files git knows or would take; in an unpacked archive, every file outside dot folders."""
    listing = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                             capture_output=True, text=True, check=False)
    if listing.returncode == 0 and listing.stdout:
        return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file()
            and not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(ROOT).parts)]


def modules() -> Iterator[tuple[str, ast.Module]]:
    """(path from the root, syntax tree) of every product module."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all absolute imports, those inside functions too, and literal `import_module` calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
              and isinstance(node.args[0].value, str)
              and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__")):
            yield node.args[0].value


def violations(path: str, tree: ast.AST) -> list[str]:
    """SDK imports that `path` may not have."""
    return [f"{path} imports {name}; only {' '.join(IMPORTERS[sdk])} may"
            for name in imported_names(tree) if (sdk := name.partition(".")[0]) in IMPORTERS
            and not any(re.fullmatch(pattern, path) for pattern in IMPORTERS[sdk])]


def test_import_contracts_hold():
    answer = subprocess.run([sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "0 broken" in answer.stdout


def test_each_sdk_is_imported_by_its_own_modules_only():
    assert [line for path, tree in modules() for line in violations(path, tree)] == []


@pytest.mark.parametrize(("path", "source", "count"), [
    ("align/crop.py", "import torch", 1),
    ("align/crop.py", "def f():\n    from mediapipe.tasks import python", 2),  # lazily is still importing
    ("capture/rig.py", "import importlib\nimportlib.import_module('pyrealsense2')", 1),
    ("detect/blazeface.py", "import mediapipe", 0),
    ("mmdg_model/vit.py", "from torch import nn", 0),
    ("capture/simulated/camera.py", "import torchvision_like, cv2", 0),  # another name that begins alike
])
def test_the_scan_sees_a_foreign_import(path, source, count):
    assert len(violations(path, ast.parse(source))) == count


@pytest.mark.parametrize("package", [*PACKAGES, "capture.frames", "capture.camera", "capture.rig", "capture.simulated",
                                     "mmdg_model.scorer", "mmdg_model.backends", "pipeline.messages",
                                     "pipeline.channels", "pipeline.commands", "pipeline.doctor"])
def test_importing_a_package_loads_no_heavy_sdk(package):
    code = (f"import sys, {package}; print(*sorted({{name.partition('.')[0] for name in sys.modules}} "
            f"& set({HEAVY!r})))")
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == []


def test_the_doctor_needs_nothing_but_the_standard_library():
    code = ("import sys; sys.path = [p for p in sys.path if 'site-packages' not in p] + ['.']; "
            "import pipeline.doctor; print(pipeline.doctor.check_platform().check)")
    answer = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == "platform", answer.stderr


def test_no_file_is_named_after_nothing():
    empty_names = {"utils", "util", "common", "helpers", "helper", "misc", "core", "tools"}
    assert [str(path) for path in tracked_files() if path.stem.lower() in empty_names
            or any(part.lower() in empty_names for part in path.relative_to(ROOT).parts[:-1])] == []


#: The only modules that may call `torch.load`, and only with `weights_only=True`.
RESTRICTED_UNPICKLERS = ("mmdg_model/weights/source_file.py",)


def test_nothing_unpickles_or_loads_yaml_unsafely():
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    forbidden_calls = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load", "eval", "exec"}
    found = []
    for path, tree in modules():
        found += [f"{path}: import {name}" for name in imported_names(tree) if name.partition(".")[0] in forbidden]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            allows_pickle = any(word.arg == "allow_pickle" and not (
                isinstance(word.value, ast.Constant) and word.value.value is False) for word in node.keywords)
            if called == "torch.load" and path in RESTRICTED_UNPICKLERS and any(
                    word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords):
                continue
            if called in forbidden_calls or allows_pickle:
                found.append(f"{path}:{node.lineno}: {called}")
    assert found == []


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions and classes of a module without a docstring (a command's `register` says what it is)."""
    return [node.name for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_") and node.name != "register" and not ast.get_docstring(node)]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_definitions_without_docstring_only_become_fewer(package):
    missing = [f"{path}: {name}" for path, tree in modules() if path.startswith(package + "/")
               for name in undocumented(tree)]
    allowed = UNDOCUMENTED[package]
    assert len(missing) <= allowed, f"{len(missing)} in {package}, {allowed} allowed:\n" + "\n".join(missing)


def test_every_module_says_what_it_is():
    assert [path for path, tree in modules() if tree.body and not ast.get_docstring(tree)] == []


def test_files_stay_about_one_idea():
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
               for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {path: lines for path, lines in lengths.items() if lines > 500} == {}


# Written apart, so that this file does not find itself.
PRIVATE_PATHS = re.compile(r"(?<![\w.<])/(?:" + "|".join(("home", "root", "Users", "work")) + r")/[\w.-]+")


INVENTED_USERS = {"/home/" + name for name in ("visitor", "someone", "user", "kiosk")}


def private_paths(text: str) -> list[str]:
    """Absolute paths of somebody's machine; invented users of examples are nobody."""
    return [hit for hit in PRIVATE_PATHS.findall(text) if hit not in INVENTED_USERS]


def test_no_tracked_file_names_a_private_path():
    found = {}
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # binary
        if hits := private_paths(text):
            found[path.relative_to(ROOT).as_posix()] = hits
    assert found == {}


@pytest.mark.parametrize(("text", "count"), [
    ("see /" + "home/ada/model.safetensors", 1), ("open(\"/" + "work/x\")", 1), ("https://example.org/home/page", 0),
    ("the frame/work/flow", 0), ("/usr/lib", 0),
])
def test_the_scan_sees_a_private_path(text, count):
    assert len(private_paths(text)) == count


def test_the_wheel_holds_the_packages_and_no_tests(tmp_path):
    answer = subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], cwd=ROOT,
                            capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    import zipfile
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
