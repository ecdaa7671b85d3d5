"""A wrong configuration is refused with the file, the YAML path, the value and a remedy."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from calibration.operating_point_file import file_bytes
from mmdg_model.operating_point import OperatingPointError
from mmdg_model.shipped_weights import shipped_checkpoint
from mmdg_model.stored_inputs import stored_model_hash, stored_operating_point
from pipeline.config import ConfigError, load_calibration, load_settings, settings_from, worker_threads
from pipeline.kiosk_sockets import TransportSettings
from pipeline.policy import PolicyError
from pipeline.policy_compiler import compile_policy, write_compiled
from pipeline.security import Role, RoleMap
from tests.pipeline.test_policy_compiler import PROVENANCE, REQUEST, sessions
from tests.pipeline.test_session_calibration import calibration, evidence_map

MINIMAL = "cameras:\n  - spec: simulated:print\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "live.yaml"
    path.write_text(text)
    return path


def test_a_minimal_file_gets_the_defaults(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, MINIMAL))
    assert settings.cameras[0].spec == "simulated:print"
    assert settings.policy.allowed_purposes == ("release",)
    assert settings.kiosk.endpoint is None


def test_the_command_line_wins(tmp_path: Path) -> None:
    settings = load_settings(written(tmp_path, MINIMAL), {"kiosk": {"endpoint": "ipc:///tmp/kiosk"}})
    assert settings.kiosk.endpoint == "ipc:///tmp/kiosk"


@pytest.mark.parametrize(("text", "message"), [
    ("cameras:\n  - spec: simulated\ncamera: x\n", r"unknown key 'camera' at \$; did you mean 'cameras'"),
    ("cameras:\n  - specs: simulated\n    spec: x\n", r"unknown key 'specs' at \$\.cameras\[.*\]; did you mean 'spec'"),
    ("cameras:\n  - spec: 5\n", r"\$\.cameras\[.*\]\.spec.*it is 5"),
    ("cameras: []\n", r"\$\.cameras"),
    ("{}\n", "cameras"),
    (MINIMAL + "hub:\n  max_age_ms: fast\n", r"\$\.hub\.max_age_ms.*it is 'fast'"),
    (MINIMAL + "hub:\n  max_age_ms: -1\n", r"\$\.hub\.max_age_ms.*it is -1"),
    (MINIMAL + "crop:\n  view: thermal\n", r"\$\.crop\.view.*it is 'thermal'"),
    (MINIMAL + "policy:\n  deadline_ms: 60000\n", r"\$\.policy\.deadline_ms: 60000"),
    (MINIMAL + "policy:\n  allowed_purposes: [anything]\n", "anything"),
    (MINIMAL + "inference:\n  sha256: abc\n", r"\$\.inference\.sha256.*it is 'abc'"),
    (MINIMAL + "kiosk:\n  endpoint: tcp://0.0.0.0:1\n",
     r"'tcp://0\.0\.0\.0:1' listens on every address.*\$\.kiosk\.endpoint"),
    (MINIMAL + "kiosk:\n  endpoint: tcp://192.0.2.1:5560\n", r"tcp is served only with keys.*\$\.kiosk\.keys"),
    (MINIMAL + "kiosk:\n  endpoint: tcp://192.0.2.1:5560\n  keys: k\n  users: {1001: kiosk}\n", r"\$\.kiosk\.users"),
    (MINIMAL + "kiosk:\n  endpoint: tcp://gate:5560\n  keys: k\n", r"not an IP address.*\$\.kiosk\.endpoint"),
    (MINIMAL + "kiosk:\n  endpoint: udp://192.0.2.1:1\n", r"'udp://192\.0\.2\.1:1'.*\$\.kiosk\.endpoint"),
    (MINIMAL + "kiosk:\n  users: {1001: root}\n", r"\$\.kiosk\.users.*'root'|root"),
    (MINIMAL + "kiosk:\n  users: {kim: kiosk}\n", r"\$\.kiosk\.users"),
    ("cameras:\n  - {spec: a, name: door}\n  - {spec: b, name: door}\n", "two cameras share a name"),
    ("- a list\n", "expected a mapping"),
    ("cameras: [\n", "not YAML"),
    ("cameras: !!python/object/apply:os.system ['true']\n", "not YAML"),
])
def test_a_wrong_file_is_refused_by_path_and_value(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as refused:
        load_settings(path)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*--config"):
        load_settings(tmp_path / "nowhere.yaml")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "live.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not YAML"):
        load_settings(path)


@pytest.mark.parametrize(("cores", "cameras", "asked", "expected"), [
    (2, 1, 0, 1), (2, 2, 0, 1), (8, 1, 0, 7), (8, 3, 0, 5), (8, 1, 4, 4),
])
def test_the_network_leaves_a_core_to_each_camera(cores: int, cameras: int, asked: int, expected: int) -> None:
    settings = settings_from({"cameras": [{"spec": "simulated", "name": f"c{i}"} for i in range(cameras)],
                              "inference": {"threads": asked}}, "test")
    assert worker_threads(settings, cores) == expected


def test_the_documented_file_is_complete_and_holds_the_defaults() -> None:
    """docs/configuration.md shows each key with its default; an undocumented key, or a stale default, fails here."""
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    documented = yaml.safe_load(page.split("```yaml")[1].split("```")[0])
    camera = {"spec": "realsense", "name": "door"}
    defaults = settings_from({"cameras": [camera]}, "defaults")
    assert documented == msgspec.json.decode(msgspec.json.encode(defaults))


def test_named_users_and_groups_become_roles() -> None:
    kiosk = settings_from({"cameras": [{"spec": "simulated"}], "kiosk": {"users": {1001: "kiosk"},
                                                                         "groups": {2000: "monitor"}}}, "test").kiosk
    assert kiosk.roles == RoleMap(uids={1001: Role.KIOSK}, gids={2000: Role.MONITOR})
    assert settings_from({"cameras": [{"spec": "simulated"}]}, "test").kiosk.roles == RoleMap.own_user()


def test_tcp_with_keys_reaches_the_sockets_settings() -> None:
    kiosk = settings_from({"cameras": [{"spec": "simulated"}], "kiosk": {
        "endpoint": "tcp://0.0.0.0:5560", "keys": "/k", "bind_any_address": True, "advertised_host": "gate.example",
        "handshakes_per_minute": 9}}, "test").kiosk
    assert kiosk.transport == TransportSettings(keys="/k", bind_any_address=True, advertised_host="gate.example",
                                                handshakes_per_minute=9)


# --- a compiled policy ----------------------------------------------------------------------------------------------
@pytest.fixture
def compiled(tmp_path):
    made = compile_policy(REQUEST, sessions(bona_fide=[9.0] * 5, mask=[0.0] * 90 + [6.0] * 9), PROVENANCE,
                          REQUEST.policy())
    write_compiled(made, tmp_path / "gate.json")
    return made


def configured(tmp_path, text):
    (tmp_path / "live.yaml").write_text("cameras: [{spec: simulated}]\n" + text)
    return load_settings(tmp_path / "live.yaml")


def test_a_compiled_policy_brings_its_threshold_and_pins_its_checkpoint(tmp_path, compiled):
    settings = configured(tmp_path, "compiled_policy: gate.json\n")
    assert settings.policy.upper_bound == compiled.threshold > compiled.policy.upper_bound
    assert settings.policy.threshold_id == compiled.threshold_id
    assert settings.inference.sha256 == "a" * 64
    assert settings.policy.camera_kinds == compiled.provenance.camera_kinds
    assert settings.policy.check() is settings.policy


@pytest.mark.parametrize(("text", "said"), [
    ("compiled_policy: none.json\n", r"\$\.compiled_policy: .*none\.json"),
    ("compiled_policy: gate.json\npolicy: {apcer_max: 0.4}\n", "keep one"),
    (f"compiled_policy: gate.json\ninference: {{sha256: {'b' * 64}}}\n", "was measured with checkpoint a{64}"),
    (f"policy: {{threshold_id: {'b' * 64}}}\n", "threshold_id: .* cannot be claimed"),
])
def test_a_compiled_policy_that_does_not_fit_is_refused(tmp_path, compiled, text, said):
    with pytest.raises(ConfigError, match=said):
        configured(tmp_path, text)


# --- a calibration that is pinned -----------------------------------------------------------------------------------
MODEL = (shipped_checkpoint() or (None,))[0]


@pytest.fixture(scope="module")
def own_id():
    point = stored_operating_point(MODEL)
    assert point is not None
    return point.calibration_id


def named(tmp_path, name, **changes):
    """An operating-point file of the shipped weights; its path and id."""
    file = calibration(evidence_map(**changes), sha256=stored_model_hash(MODEL))
    (tmp_path / name).write_bytes(file_bytes(file))
    return str(tmp_path / name), file.calibration_id


def compiled_with(tmp_path, calibration_id, kind):
    """Settings of a policy whose threshold was measured with that calibration."""
    request = msgspec.structs.replace(REQUEST, settings={"uncertainty_weight": 0.0})
    made = compile_policy(request, sessions(bona_fide=[9.0] * 5, mask=[0.0] * 90), msgspec.structs.replace(
        PROVENANCE, calibration_id=calibration_id, calibration=kind), request.policy())
    write_compiled(made, tmp_path / "gate.json")


@pytest.mark.parametrize(("measured", "runs", "agree"), [
    ("file", "file", True), ("file", "other", False), ("file", None, False),
    ("own", None, True), ("own", "file", False), ("none", None, False), ("none", "file", False),
])
def test_a_threshold_runs_only_on_evidence_by_its_own_calibration(tmp_path, own_id, measured, runs, agree):
    files = {"file": named(tmp_path, "file.json"), "other": named(tmp_path, "other.json", scale=0.5)}
    ids = {"own": own_id, "none": "none", "file": files["file"][1]}
    compiled_with(tmp_path, ids[measured], {"own": "checkpoint"}.get(measured, measured))
    text = f"compiled_policy: gate.json\ncalibration: {files[runs][0]}\n" if runs else "compiled_policy: gate.json\n"
    settings = configured(tmp_path, text)
    assert settings.calibration_id == ids[measured]
    if agree:
        found = load_calibration(settings, MODEL)
        assert (found is None) is (runs is None)
        return
    here = ids.get("own") if runs is None else files[runs][1]
    with pytest.raises(PolicyError, match=f"measured with calibration {ids[measured]}, .* is {here}; name the file"):
        load_calibration(settings, MODEL)


def test_a_calibration_can_be_pinned_by_hand_and_not_against_the_compiled_policy(tmp_path):
    path, identity = named(tmp_path, "file.json")
    text = f"policy: {{apcer_max: 0.1, bpcer_max: 0.1}}\ncalibration: {path}\ncalibration_id: "
    assert load_calibration(configured(tmp_path, f"{text}'{identity}'\n"), MODEL) is not None
    with pytest.raises(PolicyError, match=r"\$\.calibration_id is 0{16}, .* is " + identity):
        load_calibration(configured(tmp_path, f"{text}'{'0' * 16}'\n"), MODEL)
    compiled_with(tmp_path, identity, "file")
    with pytest.raises(ConfigError, match="measured with calibration " + identity):
        configured(tmp_path, f"compiled_policy: gate.json\ncalibration_id: '{'0' * 16}'\n")


def test_a_model_that_does_not_describe_itself_has_no_calibration_to_agree_with(tmp_path, own_id):
    compiled_with(tmp_path, own_id, "checkpoint")
    (tmp_path / "model").write_bytes(b"no checkpoint")
    with pytest.raises(OperatingPointError, match="no checkpoint or exported model"):
        load_calibration(configured(tmp_path, "compiled_policy: gate.json\n"), tmp_path / "model")
