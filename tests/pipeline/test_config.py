"""A wrong configuration is refused with the file, the YAML path, the value and a remedy."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from pipeline.config import ConfigError, load_settings, settings_from, worker_threads
from pipeline.kiosk_sockets import TransportSettings
from pipeline.policy_compiler import compile_policy, write_compiled
from pipeline.security import Role, RoleMap
from tests.pipeline.test_policy_compiler import PROVENANCE, REQUEST, sessions

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
