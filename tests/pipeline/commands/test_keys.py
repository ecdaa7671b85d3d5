import json

import pytest
from typer.testing import CliRunner

from pipeline.commands import app
from pipeline.commands.keys import EXIT_REFUSED


@pytest.fixture
def mmdg(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMDG_KEYS", str(tmp_path / "keys"))

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, ["keys", *arguments])
        assert result.exit_code == code, result.output
        return result

    run("init", str(tmp_path / "keys"))
    return run


def test_a_client_comes_is_listed_and_goes(mmdg, tmp_path):
    assert mmdg("client", "gate", "--role", "kiosk", "--endpoint", "tcp://192.0.2.10:5560").stdout.strip() == \
        "gate.mmdg-client.json"
    bundle = json.loads((tmp_path / "gate.mmdg-client.json").read_text())
    (listed,) = [json.loads(line) for line in mmdg("list", "--json").stdout.splitlines()]
    assert (listed["name"], listed["role"], listed["revoked"]) == ("gate", "kiosk", None)
    assert listed["public_key"] == bundle["client_public_key"]
    assert listed["key_id"] in mmdg("revoke", "gate").stdout
    assert "revoked" in mmdg("list").stdout


def test_show_shows_public_keys_only(mmdg, tmp_path):
    shown = json.loads(mmdg("show", "--json").stdout)
    assert shown["signing_public_keys"][0]["key_id"] == shown["signs"]
    secrets = [json.loads((tmp_path / "keys" / name).read_text())[field] for name, field in (
        ("curve-server.json", "secret_key"), ("signing.json", "private_key"))]
    for output in (mmdg("show").output, mmdg("show", "--json").output, mmdg("list").output):
        assert not any(secret in output for secret in secrets)


def test_the_signing_key_is_rotated(mmdg):
    old = json.loads(mmdg("show", "--json").stdout)["signs"]
    prepared = mmdg("rotate", "signing", "--prepare").stdout.split()[0]
    assert json.loads(mmdg("show", "--json").stdout)["signs"] == old
    assert mmdg("rotate", "signing").stdout.split()[0] == prepared
    assert f"{old}" in mmdg("show").stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (("init", "keys"), "--force"), (("client", "Gate", "--role", "kiosk"), "lower-case"),
    (("revoke", "nobody"), "no such client"), (("show", "--keys", "elsewhere"), "mmdg keys init"),
    (("list", "--keys", "elsewhere"), "mmdg keys init"),
    (("rotate", "signing", "--keys", "elsewhere"), "mmdg keys init"),
])
def test_what_cannot_be_done_is_said_with_exit_code_2(mmdg, arguments, message):
    assert message in mmdg(*arguments, code=EXIT_REFUSED).stderr


def test_keys_that_others_can_read_are_refused_with_the_remedy(mmdg, tmp_path):
    (tmp_path / "keys" / "signing.json").chmod(0o644)
    assert f"chmod 600 {tmp_path}/keys/signing.json" in mmdg("show", code=EXIT_REFUSED).stderr
