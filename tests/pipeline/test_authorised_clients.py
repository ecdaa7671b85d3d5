import json
import os

import pytest

from pipeline.authorised_clients import AuthorisedClients, ClientFileError, read_clients
from pipeline.channels import curve_key_bytes, curve_keypair
from pipeline.security import Role

GATE, SCREEN, DESK = (curve_keypair()[0] for _ in range(3))
LATER = AuthorisedClients.PERIOD_NS


def entry(name="gate", role="kiosk", key=GATE, **more):
    return {"name": name, "role": role, "public_key": key, "created": "2026-01-01"} | more


def written(path, *clients, text=None):
    path.touch(mode=0o600)
    path.write_text(text if text is not None else json.dumps({"format": "mmdg-clients-v1", "clients": list(clients)}))
    return path


@pytest.fixture
def file(tmp_path):
    return written(tmp_path / "clients.json", entry(), entry("screen", "monitor", SCREEN),
                   entry("desk", "operator", DESK, revoked="2026-02-01"))


def asked(clients, key, mechanism=b"CURVE", address="192.0.2.7"):
    admitted = clients.admit(mechanism, address, [curve_key_bytes(key)])
    return None if admitted is None else admitted[1]


@pytest.mark.parametrize(("key", "role"), [(GATE, Role.KIOSK), (SCREEN, Role.MONITOR), (DESK, None),
                                           (curve_keypair()[0], None)], ids=["kiosk", "monitor", "revoked", "unknown"])
def test_the_key_is_the_role(file, key, role):
    assert asked(AuthorisedClients(file), key) is role


@pytest.mark.parametrize(("mechanism", "address", "credentials"), [
    (b"NULL", "192.0.2.7", []), (b"NULL", "192.0.2.7", [curve_key_bytes(GATE)]),
    (b"PLAIN", "192.0.2.7", [b"gate", b"secret"]), (b"PLAIN", "192.0.2.7", [curve_key_bytes(GATE)]),
    (b"CURVE", "192.0.2.7", []), (b"CURVE", "192.0.2.7", [b""]), (b"CURVE", "192.0.2.7", [GATE.encode()]),
    (b"CURVE", "192.0.2.7", [curve_key_bytes(GATE)[:31]]), (b"CURVE", "192.0.2.7", [curve_key_bytes(GATE)] * 2),
    (b"CURVE", "localhost:0:0:1", [curve_key_bytes(GATE)]), (b"CURVE", "", [curve_key_bytes(GATE)]),
    (b"curve", "192.0.2.7", [curve_key_bytes(GATE)]), (b"CURVE", "192.0.2.7", [bytes(32)]),
])
def test_anything_but_a_proven_listed_key_is_refused(file, mechanism, address, credentials):
    assert AuthorisedClients(file).admit(mechanism, address, credentials) is None


def test_messages_carry_role_name_and_key(file):
    clients = AuthorisedClients(file)
    user_id, role = clients.admit(b"CURVE", "2001:db8::7", [curve_key_bytes(GATE)])
    assert user_id.startswith("KIOSK gate ")
    assert clients.role_of_user(user_id) is role is Role.KIOSK
    for other in (None, "", "KIOSK", "KIOSK gate", user_id + "x", user_id.replace("KIOSK", "OPERATOR"),
                  user_id.replace("gate", "screen")):
        assert clients.role_of_user(other) is None


@pytest.mark.parametrize(("after", "lost"), [
    ([entry(), entry("new", "kiosk", DESK)], False),  # one more
    ([entry(revoked="2026-03-01")], True), ([], True),
    ([entry(role="monitor")], True),  # less, or more, than it connected as
    ([entry(role="operator")], True), ([entry(key=SCREEN)], True), ([entry(name="door")], True),
])
def test_a_change_of_the_file_takes_effect_on_clients_that_are_connected(tmp_path, after, lost):
    path = written(tmp_path / "clients.json", entry())
    clients = AuthorisedClients(path)
    user_id, _ = clients.admit(b"CURVE", "192.0.2.7", [curve_key_bytes(GATE)])
    written(path, *after)
    assert clients.refresh(LATER) is lost
    assert clients.role_of_user(user_id) is (None if lost else Role.KIOSK)


def test_the_file_is_looked_at_now_and_then(file):
    clients = AuthorisedClients(file)
    written(file)
    assert clients.refresh(LATER - 1) is False
    assert len(clients.clients) == 2
    assert clients.refresh(LATER) is True
    assert clients.refresh(2 * LATER) is False
    assert clients.clients == []


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_text("{"), lambda path: path.unlink(), lambda path: path.chmod(0o644),
    lambda path: (path.unlink(), path.mkdir()), lambda path: path.write_bytes(b"\xff\x00"),
])
def test_a_file_that_cannot_be_trusted_admits_nobody_until_it_is_right(file, spoil):
    good = file.read_text()
    clients = AuthorisedClients(file)
    spoil(file)
    assert clients.refresh(LATER) is True
    assert asked(clients, GATE) is None
    assert str(file) in clients.error
    if file.is_dir():
        file.rmdir()
    written(file, text=good)
    file.chmod(0o600)
    clients.refresh(2 * LATER)
    assert (asked(clients, GATE), clients.error) == (Role.KIOSK, None)


@pytest.mark.parametrize(("text", "message"), [
    ("", "truncated"), ("[]", "object"), ('{"format": "mmdg-clients-v2", "clients": []}', "mmdg-clients-v2"),
    (json.dumps({"clients": [entry(role="root")]}), "root"), (json.dumps({"clients": [entry(role="")]}), "role"),
    (json.dumps({"clients": [entry(key=GATE[:-1])]}), "40 z85"),
    (json.dumps({"clients": [entry(key="é" * 40)]}), "z85"),
    (json.dumps({"clients": [entry(key="#####" * 8)]}), "z85"),  # a group above 2**32
    (json.dumps({"clients": [entry(name="Gate 1")]}), "name"), (json.dumps({"clients": [entry(name="")]}), "name"),
    (json.dumps({"clients": [entry(rolle="kiosk")]}), "rolle"),
    (json.dumps({"clients": [entry(), entry(role="operator")]}), "'gate' stands there twice"),
    (json.dumps({"clients": [entry(), entry("gate2", "operator")]}), "public key .* stands there twice"),
    (json.dumps({"clients": [entry(revoked="2026-01-02"), entry("again")]}), "was revoked and stands there again"),
    ('{"clients": [' + "[" * 5000, "mmdg keys client|recursion"), (" " * ((1 << 20) + 1), "more than"),
])
def test_a_wrong_file_is_refused(tmp_path, text, message):
    with pytest.raises(ClientFileError, match=message) as refused:
        AuthorisedClients(written(tmp_path / "clients.json", text=text))
    assert str(tmp_path) in str(refused.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602, 0o666])
def test_a_file_that_others_can_read_or_write_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(ClientFileError, match=f"mode {mode:o}.*chmod 600"):
        read_clients(file)


def test_a_link_in_its_place_is_refused(file):
    link = file.with_name("link.json")
    os.symlink(file, link)
    with pytest.raises(ClientFileError, match=r"link\.json"):
        read_clients(link)


def test_the_probe_is_let_in_only_while_it_is_asked_for(file):
    clients, probe = AuthorisedClients(file), curve_keypair()[0]
    clients.let_probe_in(probe)
    assert asked(clients, probe) is Role.MONITOR
    clients.let_probe_in(None)
    assert asked(clients, probe) is None
