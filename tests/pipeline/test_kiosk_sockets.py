"""Real sockets on the loopback: who gets through, and what the limits do."""

import socket as raw

import pytest
import zmq

from pipeline.authorised_clients import AuthorisedClients
from pipeline.channels import DEALER, ROUTER, Sockets, curve_server_options, send_now
from pipeline.kiosk_sockets import MAX_MESSAGE_BYTES, KioskSockets, TransportSettings
from pipeline.security import ZAP_DOMAIN, Role, RoleMap, SecurityError
from tests.pipeline.curve_peers import Site, free_endpoint, got, strange_options, until

STRANGE = ["null", "plain", "no_key", "wrong_server_key", "key_of_another", "unauthorised_key", "server_key_as_client"]


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    site.client("gate", "kiosk")
    site.client("screen", "monitor")
    site.client("desk", "operator")
    with site:
        yield site


# --- who gets through -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "role"), [("gate", Role.KIOSK), ("screen", Role.MONITOR), ("desk", Role.OPERATOR)])
def test_the_role_is_that_of_the_key_whatever_the_client_says(site, name, role):
    assert site.hears(site.connect(name, identity=b"OPERATOR desk"), b"User-Id: OPERATOR desk") is role


@pytest.mark.parametrize("kind", STRANGE)
def test_a_stranger_is_never_heard_and_hears_nothing(site, kind):
    stranger = site.connect(reconnect_ivl=-1, **strange_options(site, kind))
    stranger.send(b"stranger")
    until(lambda: any(ended.startswith("failed") for ended in site.handshakes), site.turn)
    assert site.hears(site.connect("gate"), b"kiosk") is Role.KIOSK  # everything before it has been dealt with
    assert [frames for _, _, frames in site.received] == [[b"kiosk"]]
    listener = site.subscribe(reconnect_ivl=-1, **strange_options(site, kind))
    screen = site.subscribe("screen")
    until(lambda: got(screen), lambda: (site.turn(), site.kiosk.publish([b"health", b"{}"])))
    assert got(listener) == []
    assert site.kiosk.subscriptions() == {b""}


def test_without_a_handler_an_enforced_domain_refuses_and_an_unenforced_one_lets_everyone_in(tmp_path):
    """Why ZAP_ENFORCE_DOMAIN is set: libzmq takes a missing handler for consent."""
    site = Site(tmp_path)
    bundle = site.client("gate")
    secret = site.keys.curve_server().secret_key
    with Sockets() as sockets:
        from pipeline.channels import HandshakeMonitor, bound_endpoint, curve_client_options
        options = curve_client_options(bundle.server_public_key, bundle.client_public_key, bundle.client_secret_key)
        for enforced, ended in ((1, "failed_no_detail"), (0, "succeeded")):
            server = sockets.open(ROUTER, "tcp://127.0.0.1:*", bind=True, zap_domain=ZAP_DOMAIN,
                                  zap_enforce_domain=enforced, **curve_server_options(secret))
            monitor = HandshakeMonitor(server)
            sockets.open(DEALER, bound_endpoint(server), bind=False, reconnect_ivl=-1, **options)
            assert ended in until(lambda monitor=monitor: monitor.poll(1000))
            monitor.close()


def test_everything_is_proven_before_it_is_served(site):
    assert site.kiosk.proof.startswith("proven: ")
    for words in ("NULL", "PLAIN", "another server's key", "without a key", "unauthorised key failed_auth",
                  "authorised peer succeeded"):
        assert words in site.kiosk.proof
    clients = site.kiosk.admission.roles
    assert isinstance(clients, AuthorisedClients)
    assert {client.name for client in clients.clients} == {"gate", "screen", "desk"}  # the probe's key is forgotten


def test_a_client_cannot_go_on_with_the_identity_of_another(site):
    gate = site.connect("gate", identity=b"mine")
    assert site.hears(gate, b"first") is Role.KIOSK
    site.peers.forget(gate)
    until(lambda: "disconnected" in site.handshakes, site.turn)
    assert site.hears(site.connect("screen", identity=b"mine"), b"theirs") is None
    assert [alert.code for alert in site.kiosk.take_alerts()] == ["identity_taken"]


# --- revoking -------------------------------------------------------------------------------------------------------
def test_a_revoked_client_is_neither_heard_nor_told_anything_and_others_go_on(site):
    gate, screen = site.connect("gate"), site.connect("screen")
    assert site.hears(gate, b"before") is Role.KIOSK
    site.hears(screen, b"mine")
    gate_id, screen_id = (next(i for i, _, frames in site.received if frames == [w]) for w in (b"before", b"mine"))
    gate_events, screen_events = site.subscribe("gate"), site.subscribe("screen")
    heard = set()

    def publish():
        site.turn()
        site.kiosk.publish([b"health", b"{}"])
        heard.update(name for name, events in (("gate", gate_events), ("screen", screen_events)) if got(events))

    until(lambda: heard == {"gate", "screen"}, publish)
    assert site.kiosk.may_hear(gate_id)

    site.keys.revoke("gate")
    now_ns = AuthorisedClients.PERIOD_NS
    until(lambda: site.kiosk.refresh(now_ns))  # events is closed, or another socket already
    assert site.hears(gate, b"after") is None
    assert not site.kiosk.may_hear(gate_id)
    assert site.kiosk.may_hear(screen_id)
    assert [alert.code for alert in site.kiosk.take_alerts()] == ["clients_changed"]

    until(lambda: site.kiosk.events is not None, lambda: site.kiosk.refresh(now_ns))
    refused = site.kiosk.admission.counters["refused"]
    got(gate_events), got(screen_events)  # what was under way
    heard.clear()
    until(lambda: "screen" in heard and site.kiosk.admission.counters["refused"] > refused, publish)
    assert heard == {"screen"}
    assert site.hears(screen, b"still here") is Role.MONITOR


def test_a_client_that_is_added_needs_no_restart(site):
    site.client("late")
    site.kiosk.refresh(AuthorisedClients.PERIOD_NS)
    assert site.hears(site.connect("late"), b"hello") is Role.KIOSK


def test_a_spoiled_client_file_is_an_alert_and_admits_nobody(site):
    gate = site.connect("gate")
    site.hears(gate, b"before")
    site.keys.clients_path.chmod(0o644)
    until(lambda: site.kiosk.refresh(AuthorisedClients.PERIOD_NS))
    assert site.hears(gate, b"after") is None
    codes = {alert.code: alert.detail for alert in site.kiosk.take_alerts()}
    assert "chmod 600" in codes["client_file_unreadable"]


# --- limits ---------------------------------------------------------------------------------------------------------
def test_the_limits_are_set_on_both_sockets(site):
    for socket in (site.kiosk.commands, site.kiosk.events):
        values = {name: socket.getsockopt(getattr(zmq, name)) for name in (
            "LINGER", "MAXMSGSIZE", "HANDSHAKE_IVL", "TCP_KEEPALIVE", "TCP_KEEPALIVE_IDLE", "TCP_KEEPALIVE_INTVL",
            "TCP_KEEPALIVE_CNT", "ZAP_ENFORCE_DOMAIN", "CURVE_SERVER", "MECHANISM")}
        assert values == {"LINGER": 0, "MAXMSGSIZE": 65536, "HANDSHAKE_IVL": 2000, "TCP_KEEPALIVE": 1,
                          "TCP_KEEPALIVE_IDLE": 30, "TCP_KEEPALIVE_INTVL": 10, "TCP_KEEPALIVE_CNT": 3,
                          "ZAP_ENFORCE_DOMAIN": 1, "CURVE_SERVER": 1, "MECHANISM": zmq.CURVE}
        assert socket.getsockopt(zmq.ZAP_DOMAIN).rstrip(b"\0") == ZAP_DOMAIN
    assert site.kiosk.commands.getsockopt(zmq.RCVHWM) == site.kiosk.commands.getsockopt(zmq.SNDHWM) == 100


def test_a_message_above_the_limit_costs_the_connection_and_is_not_heard(site):
    gate = site.connect("gate", reconnect_ivl=-1)
    site.hears(gate, b"x" * (MAX_MESSAGE_BYTES - 64))  # CURVE adds a few bytes, which count
    gate.send(b"y" * (MAX_MESSAGE_BYTES + 1))
    until(lambda: "disconnected" in site.handshakes, site.turn)
    assert all(frames[0][:1] != b"y" for _, _, frames in site.received)


def test_peers_that_never_finish_a_handshake_are_cut_off_and_keep_nobody_out(tmp_path):
    site = Site(tmp_path, handshake_ms=300)
    site.client("gate")
    with site:
        host, port = site.endpoint.removeprefix("tcp://").split(":")
        silent = [raw.create_connection((host, int(port)), timeout=10) for _ in range(40)]
        for connection in silent[:20]:
            connection.sendall(b"\xff" + bytes(8) + b"\x7f\x03")  # half a greeting
        try:
            assert site.hears(site.connect("gate"), b"through") is Role.KIOSK
            for connection in silent:
                while connection.recv(4096):  # its greeting, then the end
                    pass
        finally:
            for connection in silent:
                connection.close()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n" * 20, b"\x16\x03\x01" * 100, bytes(200), b"\xff" * 200],
                         ids=["http", "tls", "zeros", "ones"])
def test_garbage_is_cut_off(tmp_path, site, garbage):
    host, port = site.endpoint.removeprefix("tcp://").split(":")
    with raw.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(garbage)
        try:
            while connection.recv(4096):
                pass
        except ConnectionResetError:
            pass
    assert site.hears(site.connect("gate"), b"through") is Role.KIOSK


def test_more_handshakes_than_allowed_have_to_wait_and_strangers_do_not_use_up_a_clients_allowance(tmp_path):
    site = Site(tmp_path, handshakes_per_minute=3)
    site.client("gate")
    with site:
        counters = site.kiosk.admission.counters
        before_any = counters["refused"]  # the self-test's

        def refused():
            stranger = site.connect(reconnect_ivl=-1, **strange_options(site, "unauthorised_key"))
            before = len(site.handshakes)
            until(lambda: "failed_auth" in site.handshakes[before:], site.turn)
            site.peers.forget(stranger)

        for _ in range(5):
            refused()
        assert (counters["handshakes_limited"], counters["refused"] - before_any) == (2, 5)
        for number in range(3):  # from the same address
            assert site.hears(site.connect("gate"), b"%d" % number) is Role.KIOSK
        fourth = site.connect("gate", reconnect_ivl=-1)
        fourth.send(b"one too many")
        until(lambda: counters["handshakes_limited"] == 3, site.turn)
        assert [b"one too many"] not in [frames for _, _, frames in site.received]
        assert {alert.code for alert in site.kiosk.take_alerts()} == {"client_refused", "handshakes_limited"}


def test_a_client_that_does_not_read_fills_its_own_queue_and_blocks_nobody(site):
    lazy = site.connect("gate", rcvhwm=1)
    site.hears(lazy, b"here")
    identity = site.received[-1][0]
    answer = [identity, bytes(60_000)]
    assert not all(send_now(site.kiosk.commands, answer) for _ in range(2000))  # it neither blocks nor grows
    assert site.hears(site.connect("screen"), b"next") is Role.MONITOR


# --- what is not served ---------------------------------------------------------------------------------------------
def refused_with(site, message, **transport):
    with pytest.raises(SecurityError, match=message), Sockets() as sockets:
        KioskSockets(sockets, site.endpoint, RoleMap(),
                     TransportSettings(**({"keys": str(site.keys.path)} | transport)))


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda keys: (keys.path / "curve-server.json").chmod(0o644), "mode 644.*chmod 600"),
    (lambda keys: (keys.path / "signing.json").chmod(0o640), "mode 640.*chmod 600"),
    (lambda keys: keys.clients_path.chmod(0o660), "mode 660.*chmod 600"),
    (lambda keys: keys.path.chmod(0o755), "mode 755.*chmod 700"),
    (lambda keys: (keys.path / "curve-server.json").unlink(), "mmdg keys init"),
    (lambda keys: (keys.path / "signing.json").unlink(), "mmdg keys init"),
    (lambda keys: keys.clients_path.unlink(), "mmdg keys init"),
])
def test_tcp_is_not_served_with_keys_that_are_missing_or_open_to_others(tmp_path, spoil, message):
    site = Site(tmp_path)
    spoil(site.keys)
    refused_with(site, message)


def test_tcp_is_not_served_without_keys(tmp_path):
    refused_with(Site(tmp_path), "mmdg keys init", keys=None)


def test_every_address_is_not_served_without_the_flag(tmp_path):
    site = Site(tmp_path)
    site.endpoint = "tcp://0.0.0.0:5560"
    refused_with(site, "bind_any_address")


def test_ipc_needs_no_keys(tmp_path):
    with Sockets() as sockets:
        kiosk = KioskSockets(sockets, f"ipc://{tmp_path}/kiosk", RoleMap.own_user())
        assert (kiosk.signer, kiosk.verification_keys) == (None, [])  # the gateway makes one of its own, and says so
        assert kiosk.commands.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1


def test_configured_keys_sign_on_ipc_too(tmp_path):
    site = Site(tmp_path)
    with Sockets() as sockets:
        kiosk = KioskSockets(sockets, f"ipc://{tmp_path}/kiosk", RoleMap.own_user(), site.transport)
        assert kiosk.signer.key_id == site.keys.signer().key_id == kiosk.verification_keys[-1].key_id


def test_addresses_of_tests_differ():
    assert free_endpoint() != free_endpoint()
