"""The start-up self-test must fail on each way in which the sockets could be open."""

import pytest

from pipeline.authorised_clients import AuthorisedClients
from pipeline.channels import Sockets, curve_keypair, curve_server_options
from pipeline.curve_self_test import prove_curve
from pipeline.key_files import KeyDirectory
from pipeline.security import ZAP_OPTIONS, Admission, Role, SecurityError

PUBLIC, SECRET = curve_keypair()
GOOD = {**ZAP_OPTIONS, **curve_server_options(SECRET)}


@pytest.fixture
def clients(tmp_path):
    keys = KeyDirectory(tmp_path / "keys")
    keys.init()
    return AuthorisedClients(keys.clients_path)


def prove(clients, options=GOOD, secret=SECRET, loopback="tcp://127.0.0.1:*"):
    with Sockets() as sockets:
        admission = Admission(sockets, clients, handshakes_per_minute=1000)
        try:
            return prove_curve(sockets, admission, options, secret, loopback)
        finally:
            assert clients.clients == []
            assert clients._probe is None


def without(*names):
    return {name: value for name, value in GOOD.items() if name not in names}


def test_good_options_are_proven(clients):
    assert prove(clients).startswith("proven: a NULL peer failed_protocol, a PLAIN peer failed_protocol, ")


@pytest.mark.parametrize(("options", "message"), [
    (without("curve_server", "curve_secretkey"), "a NULL peer should have failed_protocol"),
    (without("curve_server", "curve_secretkey") | {"plain_server": 1}, "a NULL peer|a PLAIN peer"),
    (without("zap_domain"), "unauthorised key should have failed_auth, but (succeeded|heard)"),
    (without("zap_domain", "zap_enforce_domain"), "authorised peer should have succeeded"),  # asked, about no domain
    (GOOD | {"zap_domain": b"another"}, "authorised peer should have succeeded, but failed_auth"),
    (GOOD | curve_server_options(curve_keypair()[1]), "should have"),  # not the server key that clients are given
], ids=["no_curve", "plain", "no_domain", "no_zap", "another_domain", "another_key"])
def test_sockets_with_an_option_missing_are_found_out(clients, options, message):
    with pytest.raises(SecurityError, match=message) as refused:
        prove(clients, options)
    assert "not served" in str(refused.value)


class Lenient(AuthorisedClients):
    """Admits whoever knows the server's public key: what libzmq does on its own."""

    def admit(self, mechanism, address, credentials):
        return "MONITOR somebody", Role.MONITOR


class Strict(AuthorisedClients):
    def admit(self, mechanism, address, credentials):
        return None


class TooGenerous(AuthorisedClients):
    def role_of_user(self, user_id):
        return Role.OPERATOR


@pytest.mark.parametrize(("judge", "message"), [
    (Lenient, "unauthorised key should have failed_auth"), (Strict, "authorised peer should have succeeded"),
    (TooGenerous, "authorised peer should have succeeded, but heard"),
])
def test_a_judge_that_does_not_judge_is_found_out(clients, judge, message):
    with pytest.raises(SecurityError, match=message):
        prove(judge(clients.path))


def test_without_an_answering_handler_nothing_is_served(clients, monkeypatch):
    monkeypatch.setattr("pipeline.security.Admission.answer", lambda self: None)
    monkeypatch.setattr("pipeline.curve_self_test.TIMEOUT_S", 0.3)
    with pytest.raises(SecurityError, match=r"unauthorised key had no outcome in 0\.3 s"):
        prove(clients)


def test_a_probe_that_cannot_bind_is_a_refusal(clients):
    with pytest.raises(SecurityError, match="cannot open its socket"):
        prove(clients, loopback="tcp://203.0.113.1:*")


def test_it_leaves_no_trace(clients):
    with Sockets() as sockets:
        admission = Admission(sockets, clients, handshakes_per_minute=2)
        for _ in range(3):  # its handshakes are nobody's
            prove_curve(sockets, admission, GOOD, SECRET)
        assert admission.take_alerts() == []
