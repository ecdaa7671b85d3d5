"""The doctor: real children, real files in a temporary tree, every status with its remedy."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import doctor
from pipeline.doctor import Check, Library, Status
from pipeline.doctor_files import asset_directory, describe_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def write_checkpoint(path, metadata, tensor_bytes=8):
    """A well-formed safetensors file with one float32 tensor."""
    header = json.dumps({"__metadata__": metadata,
                         "weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * tensor_bytes)
    return path


@pytest.fixture
def module_folder(tmp_path, monkeypatch):
    """A folder on the children's import path."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


# -- libraries ---------------------------------------------------------------------------------------------------------

def test_an_installed_library_shows_its_version():
    found = doctor.check_library(Library("numpy", "numpy"))
    assert found.status is Status.OK
    assert re.fullmatch(r"\d+\.\d+\.\d+", found.detail)


@pytest.mark.parametrize(("extra", "status", "remedy"), [
    ("", Status.FAIL, "'mmdg-live'"),  # the core has to be there
    ("realsense", Status.WARN, "'mmdg-live[realsense]'"),  # an extra may be absent
])
def test_an_absent_library_names_the_extra_to_install(extra, status, remedy):
    found = doctor.check_library(Library("no-such-distribution", "no_such_module", extra))
    assert found.status is status
    assert remedy in found.remedy


@pytest.mark.parametrize(("source", "expected"), [
    ("raise ImportError('libEGL.so.1: cannot open shared object file')", "ImportError: libEGL.so.1: cannot open"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    ("import threading; threading.Event().wait()", "no answer within 0.5 s"),
    ("import sys; sys.exit(5)", "exit code 5"),
])
def test_a_library_that_breaks_on_import_is_reported_with_its_reason(module_folder, source, expected):
    (module_folder / "broken_sdk.py").write_text(source)
    found = doctor.check_library(Library("numpy", "broken_sdk"), limit_s=0.5 if "Event" in source else 20)
    assert found.status is Status.FAIL
    assert expected in found.detail


def test_a_shared_library_that_is_absent_names_its_package():
    found = doctor.check_shared_library("libno-such-thing.so.9", "libno-such9", "mediapipe")
    assert (found.status, found.remedy) == (Status.FAIL, "apt-get install --no-install-recommends libno-such9")
    assert doctor.check_shared_library("libc.so.6", "libc6", "everyone").status is Status.OK


# -- USB ---------------------------------------------------------------------------------------------------------------

def plug_in(root, vendor="8086", product="Intel(R) RealSense(TM) Depth Camera 435i", version="3.20"):
    device = root / "sys/bus/usb/devices/2-1"
    device.mkdir(parents=True)
    fields = {"idVendor": vendor, "product": product, "busnum": "2", "devnum": "7", "version": version}
    for name, text in fields.items():
        (device / name).write_text(f" {text}\n")
    node = root / "dev/bus/usb/002/007"
    node.parent.mkdir(parents=True)
    node.touch()
    return node


@pytest.mark.parametrize(("device", "status", "expected"), [
    ({}, Status.OK, "RealSense(TM) Depth Camera 435i (USB 3.20)"),
    ({"version": "2.10"}, Status.WARN, "(USB 2.10)"),
    ({"vendor": "046d", "product": "Webcam"}, Status.WARN, "no RealSense device on the bus"),
    ({"product": "Bluetooth adapter"}, Status.WARN, "no RealSense device on the bus"),  # 8086 makes other things too
])
def test_usb_devices(tmp_path, device, status, expected):
    plug_in(tmp_path, **device)
    found = doctor.check_usb(tmp_path / "sys", tmp_path / "dev")
    assert (found.status, expected in found.detail) == (status, True), found


def test_a_camera_whose_node_cannot_be_opened_fails_with_the_udev_rule(tmp_path):
    node = plug_in(tmp_path)
    node.unlink()  # root may open any mode, nobody may open a node that is not there
    found = doctor.check_usb(tmp_path / "sys", tmp_path / "dev")
    assert found.status is Status.FAIL
    assert str(node) in found.detail
    assert "99-realsense-libusb.rules" in found.remedy


def test_a_machine_without_usb_is_a_warning(tmp_path):
    assert doctor.check_usb(tmp_path, tmp_path).status is Status.WARN


# -- cameras -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("answer", "status", "expected"), [
    ("return [{'serial': '0123', 'name': 'D435I'}]", Status.OK, "0123 D435I"),
    ("return []", Status.WARN, "lists none"),
    ("raise RuntimeError('libusb is missing')", Status.WARN, "RuntimeError: libusb is missing"),
])
def test_cameras_are_what_the_sdk_lists(module_folder, monkeypatch, answer, status, expected):
    (module_folder / "capture").mkdir()
    (module_folder / "capture" / "__init__.py").touch()
    (module_folder / "capture" / "realsense_device.py").write_text(f"def list_devices():\n    {answer}\n")
    monkeypatch.chdir(module_folder)  # the child's first import path is its working directory
    found = doctor.check_cameras()
    assert (found.status, expected in found.detail) == (status, True), found


# -- machine -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("free", "status"), [
    (100 << 20, Status.FAIL), (5 << 30, Status.WARN), (500 << 30, Status.OK),
])
def test_disk_space(free, status):
    assert doctor.check_disk(Path("/"), free).status is status


@pytest.mark.parametrize(("text", "status"), [
    ("MemTotal: 1 kB\nMemAvailable:  8388608 kB\n", Status.OK),
    ("MemAvailable: 1048576 kB\n", Status.WARN),
    ("MemTotal: 8388608 kB\n", Status.WARN),  # unknown is not enough
    ("", Status.WARN),
])
def test_memory(tmp_path, text, status):
    (tmp_path / "meminfo").write_text(text)
    assert doctor.check_memory(tmp_path / "meminfo").status is status


@pytest.mark.parametrize(("policy", "cores", "status"), [
    ("PASSIVE", {0, 1}, Status.OK), ("passive", {0, 1}, Status.OK), ("ACTIVE", {0, 1}, Status.WARN),
    (None, {0, 1}, Status.WARN), ("PASSIVE", {0}, Status.WARN),
])
def test_threads(monkeypatch, policy, cores, status):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    assert doctor.check_threads().status is status


def test_a_runtime_folder_too_deep_for_a_socket_fails(tmp_path):
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    assert doctor.check_runtime_dir(str(deep)).status is Status.FAIL
    assert doctor.check_runtime_dir("/tmp").status is Status.OK


# -- model -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("metadata", "status", "expected"), [
    ({"purpose": "test"}, Status.WARN, "test weights: no verdict possible"),
    ({"mmdg": '{"purpose": "test"}'}, Status.WARN, "test weights: no verdict possible"),
    ({"purpose": "simulated"}, Status.WARN, "say nothing about real people"),
    ({"purpose": "release"}, Status.OK, "purpose release"),
    ({"purpose": "relase"}, Status.FAIL, "states no purpose"),
    ({}, Status.FAIL, "states no purpose"),
    ({"purpose": "release", "training": '{"purpose": "test"}'}, Status.FAIL, "several purposes"),
])
def test_a_checkpoint_is_judged_by_the_purpose_it_states(tmp_path, metadata, status, expected):
    found = doctor.check_model(write_checkpoint(tmp_path / "model.safetensors", metadata))
    assert (found.status, expected in found.detail) == (status, True), found


@pytest.mark.parametrize(("content", "expected"), [
    (b"", "too short"),
    (b"\xff" * 64, "truncated, or not safetensors"),
    (struct.pack("<Q", 4) + b"nope", "Expecting value"),
    (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
    (struct.pack("<Q", 2) + b"\xff\xfe", "codec can't decode"),
])
def test_a_damaged_checkpoint_fails_with_the_path(tmp_path, content, expected):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    found = doctor.check_model(path)
    assert found.status is Status.FAIL
    assert str(path) in found.detail
    assert expected in found.detail


@pytest.mark.parametrize("tensor_bytes", [7, 9])
def test_a_checkpoint_shorter_or_longer_than_its_header_tells_fails(tmp_path, tensor_bytes):
    found = doctor.check_model(write_checkpoint(tmp_path / "m.safetensors", {"purpose": "release"}, tensor_bytes))
    assert found.status is Status.FAIL
    assert "truncated or damaged" in found.detail


def test_without_a_name_the_one_checkpoint_among_the_assets_is_judged(tmp_path, monkeypatch):
    monkeypatch.setenv("MMDG_ASSETS", str(tmp_path))
    none = tmp_path / "none.safetensors"
    assert "no checkpoint under" in describe_checkpoint(shipped=none).problem
    write_checkpoint(tmp_path / "models" / "tiny.safetensors", {"purpose": "test"})
    assert describe_checkpoint(shipped=none).purpose == "test"
    write_checkpoint(tmp_path / "other.safetensors", {"purpose": "release"})
    assert "2 checkpoints" in describe_checkpoint(shipped=none).problem  # never a guess


def test_without_a_name_shipped_weights_go_before_what_set_up_made(tmp_path, monkeypatch):
    monkeypatch.setenv("MMDG_ASSETS", str(tmp_path / "assets"))
    write_checkpoint(tmp_path / "assets" / "tiny.safetensors", {"purpose": "test"})
    shipped = write_checkpoint(tmp_path / "shipped.safetensors", {"purpose": "simulated"})
    assert describe_checkpoint(shipped=shipped).purpose == "simulated"


@pytest.mark.parametrize(("variables", "expected"), [
    ({"MMDG_ASSETS": "/somewhere"}, "/somewhere"), ({"XDG_CACHE_HOME": "/cache"}, "/cache/mmdg-live"),
    ({"HOME": "/h"}, "/h/.cache/mmdg-live"),
])
def test_the_asset_folder(monkeypatch, variables, expected):
    for name in ("MMDG_ASSETS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(asset_directory()) == expected


# -- the whole ---------------------------------------------------------------------------------------------------------

CHECKS = [Check("a", Status.OK, "fine"), Check("b", Status.WARN, "hm", "do this"),
          Check("c", Status.FAIL, "bad", "do that")]


@pytest.mark.parametrize(("checks", "code"), [(CHECKS, 1), (CHECKS[:2], 0), ([], 0)])
def test_only_failures_make_a_bad_exit_code(checks, code):
    assert doctor.exit_code(checks) == code


def test_the_report_for_people_has_a_remedy_under_each_problem():
    assert doctor.report(CHECKS, as_json=False).splitlines() == [
        "ok    a: fine", "warn  b: hm", "      -> do this", "fail  c: bad", "      -> do that",
        "not fit: 1 ok, 1 warnings, 1 failures"]


def test_the_json_report_is_one_object_a_line_and_a_summary():
    rows = [json.loads(line) for line in doctor.report(CHECKS, as_json=True).splitlines()]
    assert rows[1] == {"check": "b", "status": "warn", "detail": "hm", "remedy": "do this"}
    assert rows[-1] == {"summary": {"ok": 1, "warn": 1, "fail": 1}}


def test_a_check_that_breaks_is_a_finding_and_the_others_still_run(monkeypatch):
    def broken():
        raise OSError("the bus is on fire")

    monkeypatch.setattr(doctor, "LIBRARIES", ())
    monkeypatch.setattr(doctor, "check_gpu", lambda: Check("gpu", Status.OK, "none"))  # torch takes seconds to load
    monkeypatch.setattr(doctor, "check_usb", broken)
    found = {check.check: check for check in doctor.examine()}
    assert found["usb access"].status is Status.FAIL
    assert "OSError: the bus is on fire" in found["usb access"].detail
    assert found["platform"].status is Status.OK


def test_every_problem_of_this_machine_comes_with_a_remedy():
    answer = subprocess.run([sys.executable, "-c", "from pipeline.commands import main; main()", "doctor", "--json"],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    summary = rows.pop()["summary"]
    assert [row for row in rows if row["status"] != "ok" and not row["remedy"]] == []
    assert {row["check"]: row["status"] for row in rows}["library torch"] == "ok"
    assert answer.returncode == int(summary["fail"] > 0)


def test_wrong_usage_exits_with_2():
    for command in ("from pipeline.doctor import main; main(['--jsn'])",
                    "from pipeline.commands import main; import sys; sys.argv[1:] = ['doctor', '--jsn']; main()"):
        assert subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True,
                              check=False).returncode == 2
