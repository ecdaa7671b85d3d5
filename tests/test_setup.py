"""Set-up: the lock, the one OpenCV, the stamp, and preflight's one line."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCK_TEXT = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def load_script(name):
    specification = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


set_up = load_script("set_up")
PINS = dict(pin.split("==") for pin in set_up.pins(LOCK_TEXT))


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_exactly_one_distribution_provides_cv2():
    assert set(importlib.metadata.packages_distributions()["cv2"]) == {"opencv-contrib-python-headless"}


def test_the_lock_has_the_headless_opencv_only():
    assert [name for name in PINS if name.startswith("opencv")] == ["opencv-contrib-python-headless"]


def test_every_dependency_of_the_project_is_locked_but_torch():
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [*PROJECT["project"]["dependencies"], *extras["realsense"], *extras["engine"], *extras["simulate"],
              *extras["train"], *PROJECT["dependency-groups"]["dev"]]
    names = {normal(re.match(r"[\w.-]+", line).group()) for line in wanted}
    assert names - set(PINS) == {"torch"}


def test_torch_and_its_gpu_packages_stay_out_of_the_lock():
    assert [name for name in PINS if re.match(r"torch|nvidia|cuda|triton", name)] == []


def test_the_torch_pin_satisfies_the_project():
    pinned = set_up.TORCH_REQUIREMENT.partition("==")[2]
    (wanted,) = [line for line in PROJECT["project"]["optional-dependencies"]["engine"] if line.startswith("torch")]
    lower, upper = re.findall(r"[\d.]+", wanted)
    as_numbers = [tuple(map(int, version.split("."))) for version in (lower, pinned, upper)]
    assert as_numbers[0] <= as_numbers[1] < as_numbers[2]


def test_every_pin_has_a_hash_and_no_index_is_named():
    blocks = re.split(r"(?m)^(?=[a-z0-9])", LOCK_TEXT)[1:]
    assert len(blocks) == len(PINS) > 50
    assert [block.split()[0] for block in blocks if "--hash=sha256:" not in block] == []
    assert not re.search(r"https?://|--(extra-)?index|--find-links", LOCK_TEXT)


@pytest.fixture
def empty_environment(tmp_path, monkeypatch):
    """`set_up.main` on a folder of ours, with the steps that install recorded instead of run."""
    steps = []
    environment = tmp_path / "venv"

    def make_environment(folder, torch_index):
        steps.append(("make", torch_index))
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "python").touch()

    monkeypatch.setattr(set_up, "make_environment", make_environment)
    monkeypatch.setattr(set_up, "install_assets", lambda folder: steps.append(("assets",)))
    return environment, steps


def test_a_second_run_reuses_the_environment_and_looks_at_assets_again(empty_environment):
    environment, steps = empty_environment
    assert [set_up.main(["--venv", str(environment)]) for _ in range(2)] == [0, 0]
    assert steps == [("make", ""), ("assets",), ("assets",)]


@pytest.mark.parametrize("change", ["inputs", "python", "torch_index", "damage"])
def test_another_lock_python_or_index_sets_up_again(empty_environment, change):
    environment, steps = empty_environment
    set_up.main(["--venv", str(environment)])
    stamp = environment / set_up.STAMP_NAME
    stamp.write_text("{" if change == "damage" else json.dumps(json.loads(stamp.read_text()) | {change: "other"}))
    set_up.main(["--venv", str(environment)])
    assert [step[0] for step in steps].count("make") == 2


def test_a_failed_set_up_leaves_no_stamp(empty_environment, monkeypatch, capsys):
    environment, _ = empty_environment
    set_up.main(["--venv", str(environment)])

    def fail(folder, torch_index):
        raise set_up.SetUpError("installing the lock failed with exit code 1")

    monkeypatch.setattr(set_up, "make_environment", fail)
    assert set_up.main(["--venv", str(environment), "--force"]) == 1
    assert not (environment / set_up.STAMP_NAME).exists()
    assert "installing the lock failed" in capsys.readouterr().err


@pytest.fixture
def one_asset(tmp_path, monkeypatch):
    """`set_up.install_assets` with one owner, whose command writes one file and a line a run."""
    owner = tmp_path / "owner.py"
    owner.touch()
    monkeypatch.setattr(set_up, "asset_sources", lambda: {"owner": owner})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    assets, log = tmp_path / "assets", tmp_path / "runs"
    monkeypatch.setenv("MMDG_ASSETS", str(assets))
    code = (f"import pathlib; a = pathlib.Path({str(assets)!r}); a.mkdir(exist_ok=True); "
            f"(a / 'model').write_text('sound'); open({str(log)!r}, 'a').write('ran ')")
    monkeypatch.setattr(set_up, "ASSET_COMMANDS", {"owner": ("-c", code)})
    return tmp_path, assets / "model", lambda: log.read_text().count("ran")


def test_assets_that_nobody_touched_are_not_looked_at_again(one_asset):
    environment, _, runs = one_asset
    for _ in range(3):
        set_up.install_assets(environment)
    assert runs() == 1


@pytest.mark.parametrize("damage", ["removed", "shortened", "stray", "new owner"])
def test_assets_that_changed_are_repaired_by_their_owner(one_asset, damage):
    environment, asset, runs = one_asset
    set_up.install_assets(environment)
    match damage:
        case "removed":
            asset.unlink()
        case "shortened":
            asset.write_text("so")
        case "stray":
            (asset.parent / "other").touch()
        case "new owner":
            (environment / "owner.py").write_text("RECIPE = 2")
    set_up.install_assets(environment)
    assert (runs(), asset.read_text()) == (2, "sound")


def test_a_failing_step_names_itself_and_its_command():
    with pytest.raises(set_up.SetUpError, match=r"reading fails failed with exit code 7: .*exit\(7\)"):
        set_up.run("reading fails", [sys.executable, "-c", "import sys; sys.exit(7)"])


def test_an_environment_that_was_moved_is_made_again(tmp_path):
    made = tmp_path / "made"
    set_up.venv.EnvBuilder(with_pip=False, symlinks=True).create(made)
    (made / "bin" / "pip").write_text(f"#!{made}/bin/python\n")
    assert set_up.is_usable(made)
    moved = made.rename(tmp_path / "moved")
    assert not set_up.is_usable(moved)
    assert not set_up.is_usable(tmp_path / "never made")


def test_an_unsupported_python_is_refused_with_the_remedy(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    assert set_up.main([]) == 2
    assert "make PYTHON=python3.11" in capsys.readouterr().err


def preflight(path, **variables):
    return subprocess.run(["/bin/sh", str(ROOT / "scripts/preflight.sh")], capture_output=True, text=True, check=False,
                          env={"PATH": str(path), **variables})


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with the POSIX tools that preflight uses, and no Python."""
    for tool in ("uname", "cut", "grep", "id"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    (tmp_path / "ldconfig").write_text("#!/bin/sh\necho 'libstdc++.so.6 (libc6,x86-64) => /lib/libstdc++.so.6'\n")
    (tmp_path / "ldconfig").chmod(0o755)
    return tmp_path


def test_preflight_prints_the_python_to_use_here():
    answer = preflight(os.environ["PATH"], PYTHON=sys.executable)
    assert (answer.returncode, answer.stdout.strip()) == (0, sys.executable), answer.stderr


def test_preflight_names_all_that_is_missing_in_one_line(bare_path):
    answer = preflight(bare_path)
    lines = [line for line in answer.stderr.splitlines() if "apt-get" in line]
    assert answer.returncode == 1
    assert len(lines) == 1
    assert lines[0].endswith(" python3 python3-venv libegl1 libgles2 libudev1")


@pytest.mark.parametrize(("version", "package"), [("3, 11", "python3-venv"), ("3, 10", "python3 python3-venv")])
def test_preflight_tells_an_old_python_from_one_without_venv(bare_path, version, package):
    # A Python of the given version that can import neither venv nor a library.
    python = bare_path / "python3"
    python.write_text("#!/bin/sh\ncase \"$*\" in *version_info*) exec '" + sys.executable + "' -c "
                      f"'import sys; sys.exit(({version}) not in ((3, 11), (3, 12)))' ;; "
                      "--version) echo Python 3.x ;; *) exit 1 ;; esac\n")
    python.chmod(0o755)
    line = next(line for line in preflight(bare_path).stderr.splitlines() if "apt-get" in line)
    assert f"--no-install-recommends {package} lib" in line


def test_preflight_refuses_a_python_that_does_not_work(bare_path):
    answer = preflight(bare_path, PYTHON="/nowhere/python")
    assert (answer.returncode, "PYTHON=/nowhere/python" in answer.stderr) == (2, True)


def test_bare_says_why_it_is_not_possible_with_a_code_of_its_own(bare_path):
    # No debootstrap on this PATH; for a user without rights that is said first.
    (bare_path / "dirname").symlink_to(shutil.which("dirname"))
    answer = subprocess.run([shutil.which("bash"), str(ROOT / "scripts/bare.sh")], capture_output=True, text=True,
                            check=False, env={"PATH": str(bare_path)})
    assert answer.returncode == 3
    assert re.fullmatch(r"bare: not possible here: .*(root|debootstrap).*: .*\n", answer.stderr)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_help_teaches_every_target():
    text = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.search(r"(?m)^\.PHONY: (.*)$", (ROOT / "Makefile").read_text()).group(1).split()
    assert [target for target in targets if not re.search(rf"(?m)^  make {target} ", text)] == []
