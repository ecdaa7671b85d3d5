"""`mmdg audit`, `mmdg lockout` and `mmdg manifest` as typed: exit codes, answers, complaints."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from mmdg_model.test_checkpoint import make_test_checkpoint
from pipeline.audit_log import AuditLog, boot_id
from pipeline.commands import app
from pipeline.lockout import LockoutFile, LockoutLimits
from pipeline.session_guards import Lockout
from pipeline.supervisor import ExitCode
from tests.mmdg_model.builders import MICRO

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def mmdg(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with `private.key` and `public.key`."""
    (tmp_path / "private.key").write_text(KEY.private_bytes_raw().hex())
    (tmp_path / "private.key").chmod(0o600)
    (tmp_path / "public.key").write_text(KEY.public_key().public_bytes_raw().hex())
    return tmp_path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path, signing_key=KEY) as opened:
        opened.record("session.begun", {"session_id": "s1", "camera": "door"})
        opened.record("security.alert", {"session_id": "s2", "code": "frozen_depth"})
    return path


def test_verify_tells_intact_damaged_open_and_unreadable_apart(log: Path, keys: Path) -> None:
    with_key = ("audit", "verify", log, "--public-key", keys / "public.key")
    assert mmdg("audit", "verify", log).exit_code == 0
    answer = mmdg(*with_key)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert "1 files, 5 records" in answer.stdout
    anchor = answer.stdout.split("end ")[1].split()[0]
    assert mmdg(*with_key, "--anchor", anchor).exit_code == 0
    assert mmdg(*with_key, "--anchor", "4:" + "0" * 64).exit_code == 1
    assert mmdg(*with_key, "--anchor", "x").exit_code == 2
    whole = log.read_bytes()
    log.write_bytes(whole[:whole.rindex(b"\n", 0, -1) + 1])  # the signature is gone
    assert mmdg(*with_key).exit_code == 1
    log.write_bytes(whole[:-3])
    answer = mmdg("audit", "verify", log, "--json")
    assert (answer.exit_code, json.loads(answer.stdout)["torn_bytes"] > 0) == (3, True)
    log.write_bytes(whole.replace(b"door", b"back"))
    answer = mmdg("audit", "verify", log)
    assert answer.exit_code == 1
    assert "audit.jsonl:2: its bytes were changed" in answer.stdout
    assert mmdg("audit", "verify", keys / "nowhere.jsonl").exit_code == 2
    assert mmdg("audit", "verify", log, "--public-key", keys / "nowhere").exit_code == 2


def test_show_filters_by_session_and_kind(log: Path) -> None:
    assert len(mmdg("audit", "show", log).stdout.splitlines()) == 5
    (line,) = mmdg("audit", "show", log, "--session", "s1").stdout.splitlines()
    assert "session.begun" in line
    (line,) = mmdg("audit", "show", log, "--kind", "security", "--json").stdout.splitlines()
    assert json.loads(line)["content"]["code"] == "frozen_depth"
    assert mmdg("audit", "show", log.with_name("nowhere.jsonl")).exit_code == 2


def test_a_lock_is_shown_and_cleared(tmp_path: Path) -> None:
    state, config = tmp_path / "lockout.json", tmp_path / "live.yaml"
    config.write_text(yaml.safe_dump({"cameras": [{"spec": "simulated"}], "lockout": {"path": str(state)}}))
    engine = Lockout(LockoutLimits(attacks=1), LockoutFile(state, boot_id=boot_id()))
    engine.charge("door", time.monotonic_ns())
    answer = mmdg("lockout", "show", "--config", config)
    assert answer.exit_code == 1
    assert "door: locked for another" in answer.stdout
    assert mmdg("lockout", "clear", "--path", state).exit_code == 2
    assert mmdg("lockout", "clear", "--path", state, "--camera", "door").exit_code == 0
    assert mmdg("lockout", "show", "--path", state, "--json").exit_code == 0
    engine.gate("door", time.monotonic_ns())
    (clearing,) = engine.take_unlogged(time.monotonic_ns())
    assert clearing.camera == "door"
    state.write_text("damaged")
    assert mmdg("lockout", "show", "--path", state).exit_code == 1
    assert mmdg("lockout", "clear", "--path", state, "--all").exit_code == 0
    assert mmdg("lockout", "show", "--path", state).exit_code == 0
    assert mmdg("lockout", "show").exit_code == 2


def test_a_release_is_signed_verified_and_refused_once_it_is_another(keys: Path) -> None:
    weights, config, policy = keys / "model.safetensors", keys / "live.yaml", {"name": "default"}
    make_test_checkpoint(weights, MICRO)

    def configure(**policy: Any) -> None:
        config.write_text(yaml.safe_dump({
            "cameras": [{"spec": "simulated:nobody", "name": "door"}], "policy": policy,
            "inference": {"model": str(weights)},
            "manifest": {"path": str(keys / "release.json"), "public_key": str(keys / "public.key")}}))

    configure(**policy)
    signing = ("manifest", "sign", "--config", config, "--key", keys / "private.key", "--out", keys / "release.json")
    answer = mmdg(*signing)
    assert answer.exit_code == 2
    assert "--open-cameras" in answer.stderr
    assert mmdg(*signing, "--open-cameras").exit_code == 0
    assert mmdg("manifest", "verify", "--config", config).exit_code == 0
    configure(**policy, apcer_max=0.4)
    answer = mmdg("manifest", "verify", "--config", config)
    assert answer.exit_code == 1
    assert "policy 'default'" in answer.stderr
    # The engine itself says the same, before any process starts.
    from pipeline.commands.live import app as live

    answer = CliRunner().invoke(live, ["--config", str(config)])
    assert answer.exit_code == ExitCode.RELEASE_REFUSED
    assert "policy 'default'" in answer.stderr
    config.write_text(yaml.safe_dump({"cameras": [{"spec": "simulated"}], "inference": {"model": str(weights)}}))
    assert mmdg("manifest", "verify", "--config", config).exit_code == 2
