"""The example and the client alone: nothing importable but the standard library, pyzmq and cryptography."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.key_files import KeyDirectory
from pipeline.kiosk_sockets import TransportSettings
from tests.pipeline.curve_peers import free_endpoint
from tests.pipeline.test_kiosk_conformance import engine

ROOT = Path(__file__).resolve().parents[2]

#: What the two packages are made of; cryptography needs cffi.
NEEDED = ("zmq", "cryptography", "cffi", "_cffi_backend")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with the client, the example and links to the two packages."""
    folder = tmp_path_factory.mktemp("alone")
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        target = origin.parent if spec.submodule_search_locations else origin
        (folder / target.name).symlink_to(target)
        for libraries in target.parent.glob("pyzmq.libs"):
            if name == "zmq":
                (folder / libraries.name).symlink_to(libraries)
    (folder / "kiosk_client.py").write_bytes((ROOT / "pipeline" / "kiosk_client.py").read_bytes())
    (folder / "door.py").write_bytes((ROOT / "examples" / "kiosk_python" / "door.py").read_bytes())
    return folder


def python(folder, code, *arguments):
    """`python -I -S`: no site packages, no environment, no current folder."""
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); sys.argv[0] = 'door.py'; "
    return subprocess.run([sys.executable, "-I", "-S", "-c", start + code, *arguments], capture_output=True, text=True,
                          check=False, timeout=60, cwd=folder)


def test_the_client_needs_pyzmq_and_cryptography_and_nothing_else(alone):
    answer = python(alone, "import kiosk_client; print(*sorted({name.partition('.')[0] for name in sys.modules} - "
                           "set(sys.stdlib_module_names) - {'__main__', 'kiosk_client'}))")
    assert answer.returncode == 0, answer.stderr
    assert {"zmq", "cryptography"} <= set(answer.stdout.split())
    # Compiled parts of the two, whose names begin with an underscore or name their compiler.
    assert {name for name in answer.stdout.split() if name[0] != "_"} <= {*NEEDED, "cython_runtime"}
    missing = python(alone, "import pipeline")
    assert "ModuleNotFoundError" in missing.stderr  # the isolation is one


@pytest.mark.parametrize(("scene", "arguments", "code", "words"), [
    ("bona_fide", ["--accept-simulated"], 0, "the door opens"), ("bona_fide", [], 1, "closed: bona_fide"),
    ("bona_fide", ["--accept-simulated", "--key", "A" * 43 + "="], 1, "closed: bona_fide"),
    ("print", ["--accept-simulated"], 1, "closed: attack"), ("two_people", ["--accept-simulated"], 1, "One person")])
def test_the_door(alone, tmp_path, scene, arguments, code, words):
    with engine(tmp_path, cameras={"front": scene}) as endpoint:
        answer = python(alone, "import door; sys.exit(door.main())", endpoint, *arguments)
    assert answer.returncode == code, answer.stderr
    assert words in answer.stdout + answer.stderr
    assert ("the door opens" in answer.stdout) is (code == 0)


def test_the_door_over_tcp_with_a_bundle(alone, tmp_path):
    keys, endpoint, bundle = KeyDirectory(tmp_path / "keys"), free_endpoint(), tmp_path / "gate.json"
    keys.init()
    keys.add_client("gate", "kiosk", bundle, endpoint)
    transport = TransportSettings(keys=str(keys.path))
    with engine(tmp_path, endpoint=endpoint, cameras={"front": "bona_fide"}, transport=transport):
        opened = python(alone, "import door; sys.exit(door.main())", "--bundle", str(bundle), "--accept-simulated")
        unkeyed = python(alone, "import door; sys.exit(door.main())", endpoint, "--accept-simulated")
    assert (opened.returncode, "the door opens" in opened.stdout) == (0, True), opened.stderr
    assert (unkeyed.returncode, "no_curve" in unkeyed.stderr) == (2, True)


def test_no_engine_keeps_the_door_closed(alone, tmp_path):
    answer = python(alone, "import door; sys.exit(door.main())", f"ipc://{tmp_path}/nobody")
    assert (answer.returncode, "door opens" in answer.stdout) == (2, False)
