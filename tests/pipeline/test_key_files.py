import base64
import stat
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from pipeline.authorised_clients import read_clients
from pipeline.channels import curve_key_bytes, curve_public_of
from pipeline.key_files import ClientBundle, KeyDirectory, KeyFileError, VerificationKey
from pipeline.signing import DOMAIN, DecisionSigner, verify


@pytest.fixture
def keys(tmp_path):
    directory = KeyDirectory(tmp_path / "keys")
    directory.init()
    return directory


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def day(offset):
    return (datetime.now(UTC).date() + timedelta(days=offset)).isoformat()


def test_everything_is_private(keys):
    assert mode(keys.path) == 0o700
    assert {path.name: mode(path) for path in keys.path.iterdir()} == dict.fromkeys(
        ("curve-server.json", "signing.json", "signing-public.json", "clients.json"), 0o600)


def test_the_public_keys_belong_to_the_secret_ones(keys):
    server = keys.curve_server()
    assert curve_public_of(server.secret_key) == server.public_key
    (listed,) = keys.verification_keys()
    assert verify(base64.b64decode(listed.public_key), b"payload", keys.signer().sign(b"payload"))


def test_init_overwrites_nothing(keys):
    before = {path.name: path.read_bytes() for path in keys.path.iterdir()}
    with pytest.raises(KeyFileError, match="--force"):
        keys.init()
    assert {path.name: path.read_bytes() for path in keys.path.iterdir()} == before


def test_init_by_force_ends_the_old_signing_key_and_keeps_the_clients(keys, tmp_path):
    keys.add_client("gate", "kiosk", tmp_path / "gate.json")
    server, signer = keys.curve_server(), keys.signer()
    keys.init(force=True)
    assert keys.curve_server().public_key != server.public_key
    assert signer.key_id not in [key.key_id for key in keys.verification_keys()]
    assert signer.key_id in [key.key_id for key in keys.verification_keys(ended=True)]
    assert [client.name for client in read_clients(keys.clients_path)] == ["gate"]


def test_init_refuses_a_folder_that_others_can_enter(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o755)
    with pytest.raises(KeyFileError, match="chmod 700"):
        KeyDirectory(tmp_path / "keys").init()
    assert list((tmp_path / "keys").iterdir()) == []


# --- clients --------------------------------------------------------------------------------------------------------
def test_a_bundle_holds_all_that_a_client_needs_and_the_engine_keeps_no_secret_of_it(keys, tmp_path):
    path = tmp_path / "gate.json"
    keys.add_client("gate", "kiosk", path, "tcp://192.0.2.10:5560")
    bundle = msgspec.json.decode(path.read_bytes(), type=ClientBundle)
    assert mode(path) == 0o600
    assert (bundle.name, bundle.role, bundle.endpoint) == ("gate", "kiosk", "tcp://192.0.2.10:5560")
    assert bundle.server_public_key == keys.curve_server().public_key
    assert curve_public_of(bundle.client_secret_key) == bundle.client_public_key
    assert [key.key_id for key in bundle.signing_public_keys] == [keys.signer().key_id]
    assert read_clients(keys.clients_path)[0].public_key == bundle.client_public_key
    for kept in keys.path.iterdir():
        assert bundle.client_secret_key not in kept.read_text()


def test_a_client_cannot_be_added_twice_nor_over_another_bundle(keys, tmp_path):
    keys.add_client("gate", "kiosk", tmp_path / "gate.json")
    with pytest.raises(KeyFileError, match="mmdg keys revoke gate"):
        keys.add_client("gate", "operator", tmp_path / "other.json")
    with pytest.raises(KeyFileError, match="not overwritten"):
        keys.add_client("door", "kiosk", tmp_path / "gate.json")
    assert [client.name for client in read_clients(keys.clients_path)] == ["gate"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.json", "keys"]


@pytest.mark.parametrize(("name", "role"), [("", "kiosk"), ("Gate", "kiosk"), ("../gate", "kiosk"), ("gate", "root")])
def test_bad_names_and_roles_are_refused_before_anything_is_written(keys, tmp_path, name, role):
    with pytest.raises(KeyFileError, match=r"name|role|Invalid enum"):
        keys.add_client(name, role, tmp_path / "bundle.json")
    assert not (tmp_path / "bundle.json").exists()


def test_a_revoked_client_stays_listed_and_may_come_back_with_another_key(keys, tmp_path):
    old = keys.add_client("gate", "kiosk", tmp_path / "1.json")
    keys.revoke("gate")
    new = keys.add_client("gate", "kiosk", tmp_path / "2.json")
    clients = read_clients(keys.clients_path)
    assert [(c.public_key, c.revoked is None) for c in clients] == [(old.client_public_key, False),
                                                                    (new.client_public_key, True)]
    with pytest.raises(KeyFileError, match="there are: gate"):
        keys.revoke("door")


# --- the signing key ------------------------------------------------------------------------------------------------
def test_a_rotated_key_stays_listed_until_its_end_and_not_longer(keys):
    old = keys.signer()
    new = keys.rotate_signing(keep_days=7)
    assert keys.signer().key_id == new.key_id != old.key_id
    assert [(key.key_id, key.until) for key in keys.verification_keys()] == [(old.key_id, day(7)), (new.key_id, None)]
    assert [key.key_id for key in keys.verification_keys(today=day(7))] == [old.key_id, new.key_id]
    assert [key.key_id for key in keys.verification_keys(today=day(8))] == [new.key_id]
    assert len(keys.verification_keys(ended=True, today=day(8))) == 2
    date.fromisoformat(new.since)


def test_a_prepared_key_is_given_to_clients_before_it_signs(keys, tmp_path):
    old = keys.signer().key_id
    prepared = keys.prepare_signing()
    assert keys.signer().key_id == old
    bundle = keys.add_client("gate", "kiosk", tmp_path / "gate.json")
    assert [key.key_id for key in bundle.signing_public_keys] == [old, prepared.key_id]
    with pytest.raises(KeyFileError, match="not overwritten"):
        keys.prepare_signing()
    assert keys.rotate_signing().key_id == prepared.key_id == keys.signer().key_id
    assert keys.prepare_signing().key_id != prepared.key_id


# --- files that are not as they were written ------------------------------------------------------------------------
def change(path, **fields):
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | fields))


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda keys: (keys.path / "signing.json").chmod(0o604), "mode 604.*chmod 600"),
    (lambda keys: (keys.path / "signing.json").write_text("{}"), "missing required field"),
    (lambda keys: change(keys.path / "signing.json", private_key="AAAA"), "not base64 of 32 bytes"),
    (lambda keys: change(keys.path / "signing.json", private_key="not base64!"), "not base64 of 32 bytes"),
    (lambda keys: change(keys.path / "signing.json", private_key=base64.b64encode(bytes(32)).decode()), "has the id"),
    (lambda keys: change(keys.path / "signing.json", format="mmdg-signing-v2"), "mmdg-signing-v2"),
    (lambda keys: change(keys.path / "signing.json", comment="x"), "comment"),
    (lambda keys: change(keys.path / "signing-public.json", keys=[]), "does not list the signing key"),
    (lambda keys: change(keys.path / "signing-public.json", keys=[msgspec.to_builtins(msgspec.structs.replace(
        VerificationKey.of(keys.signer()), until=day(-1)))]), "lists it as ended"),
    (lambda keys: change(keys.path / "signing-public.json", keys=[
        {"key_id": keys.signer().key_id, "public_key": base64.b64encode(bytes(32)).decode(), "since": ""}]),
     "do not belong together"),
    (lambda keys: keys.path.chmod(0o750), "chmod 700"),
])
def test_a_signing_key_that_is_not_right_does_not_sign(keys, spoil, message):
    spoil(keys)
    with pytest.raises(KeyFileError, match=message) as refused:
        keys.signer()
    assert str(keys.path) in str(refused.value)


def test_a_server_pair_that_does_not_belong_together_is_refused(keys, tmp_path):
    other = KeyDirectory(tmp_path / "other")
    other.init()
    change(keys.path / "curve-server.json", public_key=other.curve_server().public_key)
    with pytest.raises(KeyFileError, match="do not belong together"):
        keys.curve_server()


def test_no_secret_shows_in_a_message(keys, tmp_path):
    bundle = keys.add_client("gate", "kiosk", tmp_path / "gate.json")
    secrets = [keys.curve_server().secret_key, bundle.client_secret_key]
    assert curve_key_bytes(secrets[0])
    for shown in (keys.curve_server(), bundle, keys.signer()):
        assert not any(secret in repr(shown) for secret in secrets)


def test_the_test_vector_that_others_are_given_is_right():
    payload = b'{"verdict":"bona_fide","nonce":"00ff"}'
    page = (Path(__file__).parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
    signer = DecisionSigner(bytes(range(32)))
    for told in (bytes(range(32)).hex(), payload.decode(), signer.public_key_raw.hex(), signer.key_id,
                 signer.sign(payload).hex()):
        assert f"`{told}`" in page
    assert DOMAIN.hex(" ") in page
