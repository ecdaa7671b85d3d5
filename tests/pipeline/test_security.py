import os
import socket
import stat

import pytest

from pipeline.channels import DEALER, ROUTER, Sockets, drain_with_user
from pipeline.security import (
    ZAP_DOMAIN,
    Admission,
    HandshakeLimit,
    Peer,
    Role,
    RoleMap,
    SecurityError,
    answer_zap,
    check_directory,
    limited_as,
    parse_peer,
    prove_refusal,
    restrict,
    role_named,
)

ROLES = RoleMap(uids={1000: Role.KIOSK, 1001: Role.MONITOR}, gids={50: Role.OPERATOR})


@pytest.mark.parametrize(("address", "peer"), [
    ("localhost:1000:100:4242", Peer(1000, 100)),
    ("localhost:0:0:1", Peer(0, 0)),
    ("127.0.0.1", None), ("localhost", None), ("localhost:1000:100", None), ("localhost:1000:100:1:2", None),
    ("localhost:-1:100:4242", None), ("localhost:root:root:1", None), ("localhost:١:1:1", None), ("", None),
])
def test_parse_peer(address, peer):
    assert parse_peer(address) == peer


@pytest.mark.parametrize(("peer", "role"), [
    (Peer(1000, 1), Role.KIOSK), (Peer(1001, 1), Role.MONITOR), (Peer(1001, 50), Role.OPERATOR),
    (Peer(7, 50), Role.OPERATOR), (Peer(7, 7), None), (Peer(0, 0), None),
])
def test_uid_and_gid_become_a_role(peer, role):
    assert ROLES.role_of(peer) is role


def zap(address=b"localhost:1000:1:9", version=b"1.0", domain=ZAP_DOMAIN, mechanism=b"NULL"):
    return [version, b"7", domain, address, b"", mechanism]


def test_an_admitted_peer_gets_its_role_as_user_id():
    reply, role = answer_zap(zap(), ROLES)
    assert reply == [b"1.0", b"7", b"200", b"OK", b"KIOSK uid 1000", b""]
    assert role is Role.KIOSK
    assert role_named("KIOSK uid 1000") is Role.KIOSK


@pytest.mark.parametrize("request_frames", [
    zap(address=b"localhost:7:7:9"), zap(address=b"10.0.0.1"), zap(address=b"\xff"), zap(domain=b""),
    zap(domain=b"other"), zap(mechanism=b"PLAIN"), zap(mechanism=b"CURVE"), zap(mechanism=b""), zap(version=b"2.0"),
    zap()[:5], zap()[:2], zap()[:1], [],
])
def test_everything_else_is_refused(request_frames):
    reply, role = answer_zap(request_frames, ROLES)
    assert role is None
    assert reply[2] == b"400"
    assert reply[4] == b""


@pytest.mark.parametrize("name", [None, "", "kiosk", "ROOT", "ROOT KIOSK", " KIOSK", "uid 1000"])
def test_no_role_without_the_admissions_word(name):
    assert role_named(name) is None


def test_roles_are_ordered():
    assert Role.MONITOR < Role.KIOSK < Role.OPERATOR


def test_a_message_carries_the_role_of_its_connection_and_not_what_it_claims(tmp_path):
    with Sockets() as sockets:
        admission = Admission(sockets, RoleMap(uids={os.getuid(): Role.MONITOR}))
        server = sockets.open(ROUTER, f"ipc://{tmp_path}/k", bind=True, zap_domain=ZAP_DOMAIN)
        client = sockets.open(DEALER, f"ipc://{tmp_path}/k", bind=False, identity=b"OPERATOR")
        client.send(b"User-Id: OPERATOR")
        assert admission.socket.poll(5000)
        admission.answer()
        assert server.poll(5000)
        assert [(user, frames[-1]) for user, frames in drain_with_user(server)] == [
            (f"MONITOR uid {os.getuid()}", b"User-Id: OPERATOR")]


def test_a_socket_without_admission_gives_no_role(tmp_path):
    with Sockets() as sockets:
        server = sockets.open(ROUTER, f"ipc://{tmp_path}/k", bind=True)
        sockets.open(DEALER, f"ipc://{tmp_path}/k", bind=False).send(b"x")
        assert server.poll(5000)
        assert [role_named(user) for user, _ in drain_with_user(server)] == [None]


def test_the_startup_proof_holds_for_the_default_roles():
    with Sockets() as sockets:
        admission = Admission(sockets, RoleMap.own_user())
        proof = prove_refusal(sockets, admission)
        # Root in a container may lack the right to take another uid; everyone else always does.
        assert proof == "proven" or "not testable" in proof
        assert admission.counters["admitted"] == 1
        assert admission.counters["refused"] == (proof == "proven")
        if os.getuid() != 0:
            assert proof == "foreign uid not testable without root"


@pytest.mark.parametrize("closed", [0o700, 0o755])
def test_a_private_folder_for_temporary_files_does_not_keep_the_engine_from_starting(tmp_path, monkeypatch, closed):
    """TMPDIR of mode 700: a foreign uid cannot even reach a probe in it."""
    private = tmp_path / "private"
    private.mkdir()
    private.chmod(closed)  # pytest's own folders above it are closed in both cases
    monkeypatch.setattr("tempfile.tempdir", str(private))
    with Sockets() as sockets:
        admission = Admission(sockets, RoleMap.own_user())
        proof = prove_refusal(sockets, admission)
        assert proof == "proven" or "not testable" in proof
        assert admission.counters["refused"] == (proof == "proven")
    assert list(private.iterdir()) == []


def test_where_every_folder_is_closed_the_proof_says_that_a_foreign_uid_was_not_tried(monkeypatch):
    monkeypatch.setattr("pipeline.security._reachable_folder", lambda: None)
    with Sockets() as sockets:
        assert "not testable" in prove_refusal(sockets, Admission(sockets, RoleMap.own_user()))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can take another uid")
def test_a_probe_that_cannot_be_reached_proves_nothing(tmp_path, monkeypatch):
    """A refusal of the file system is not one of ours."""
    monkeypatch.setattr("pipeline.security._reachable_folder", lambda: str(tmp_path))
    tmp_path.chmod(0o700)
    with Sockets() as sockets:
        assert "not testable" in prove_refusal(sockets, Admission(sockets, RoleMap.own_user()))


def test_the_startup_proof_holds_when_the_own_user_has_no_role():
    with Sockets() as sockets:
        admission = Admission(sockets, RoleMap(uids={os.getuid() + 1: Role.KIOSK}))
        prove_refusal(sockets, admission)
        assert admission.counters["admitted"] == 0
        assert admission.counters["refused"] >= 1


def test_a_handler_that_admits_everyone_is_found_out(monkeypatch):
    def lenient(request, roles):
        return [b"1.0", request[1], b"200", b"OK", b"KIOSK", b""], Role.KIOSK

    monkeypatch.setattr("pipeline.security.answer_zap", lenient)
    with Sockets() as sockets:
        admission = Admission(sockets, RoleMap(uids={12345: Role.KIOSK}))
        with pytest.raises(SecurityError, match="not served"):
            prove_refusal(sockets, admission)


def test_without_a_handler_nothing_is_served(monkeypatch):
    monkeypatch.setattr("pipeline.security.Admission.answer", lambda self: None)
    with Sockets() as sockets:
        admission = Admission(sockets, RoleMap.own_user())
        with pytest.raises(SecurityError, match="self-test"):
            prove_refusal(sockets, admission)


@pytest.mark.parametrize(("mode", "roles", "accepted"), [
    (0o700, RoleMap.own_user(), True), (0o750, ROLES, True), (0o750, RoleMap.own_user(), False),
    (0o770, ROLES, False), (0o755, ROLES, False), (0o777, ROLES, False),
])
def test_the_directory_must_keep_others_out(tmp_path, mode, roles, accepted):
    directory = tmp_path / "run"
    directory.mkdir()
    directory.chmod(mode)
    if accepted:
        assert check_directory(f"ipc://{directory}/kiosk", roles) == directory
    else:
        with pytest.raises(SecurityError, match=f"mode {mode:o}"):
            check_directory(f"ipc://{directory}/kiosk", roles)


def test_a_directory_is_made_private(tmp_path):
    made = check_directory(f"ipc://{tmp_path}/new/kiosk", RoleMap.own_user())
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_only_ipc_is_served():
    with pytest.raises(SecurityError, match="tcp"):
        check_directory("tcp://0.0.0.0:5555", RoleMap.own_user())


@pytest.mark.parametrize(("roles", "mode"), [(RoleMap.own_user(), 0o600), (ROLES, 0o660)])
def test_the_socket_file_is_closed_to_others(tmp_path, roles, mode):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        restrict(f"ipc://{path}", roles)
    assert stat.S_IMODE(path.stat().st_mode) == mode


# --- how often ------------------------------------------------------------------------------------------------------
MINUTE = 60_000_000_000


@pytest.mark.parametrize(("address", "name"), [
    ("localhost:1000:100:1", "uid 1000"), ("localhost:1000:7:2", "uid 1000"), ("192.0.2.7", "192.0.2.7"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
    ("::ffff:192.0.2.7", "192.0.2.7"), ("what", "what"), ("", ""),
])
def test_under_which_name_handshakes_are_counted(address, name):
    assert limited_as(address) == name


def test_an_allowance_is_used_up_at_once_and_comes_back_over_a_minute():
    limit = HandshakeLimit(4)
    assert [limit.take("a", 0) for _ in range(6)] == [True] * 4 + [False] * 2
    assert limit.take("b", 0)
    assert [limit.take("a", MINUTE // 4) for _ in range(2)] == [True, False]
    assert [limit.take("a", 10 * MINUTE) for _ in range(6)] == [True] * 4 + [False] * 2


def test_not_more_peers_are_remembered_than_is_said():
    limit = HandshakeLimit(1)
    for number in range(HandshakeLimit.MAX_PEERS + 10):
        limit.take(str(number), number)
    assert len(limit._left) == HandshakeLimit.MAX_PEERS


def test_a_peer_above_its_allowance_is_told_to_come_back_and_is_not_admitted():
    with Sockets() as sockets:
        now_ns = [0]
        admission = Admission(sockets, ROLES, handshakes_per_minute=2, clock=lambda: now_ns[0])
        codes = [admission.judge(zap())[0][2] for _ in range(3)]
        assert codes == [b"200", b"200", b"300"]
        assert admission.judge(zap(address=b"localhost:1000:2:8"))[1] is None  # another connection of the same user
        assert admission.judge(zap(address=b"localhost:1001:1:9"))[1] is Role.MONITOR
        now_ns[0] = MINUTE
        assert admission.judge(zap())[1] is Role.KIOSK


def test_the_same_alert_is_raised_once_a_minute_and_never_more_than_can_be_read():
    with Sockets() as sockets:
        now_ns = [0]
        admission = Admission(sockets, ROLES, handshakes_per_minute=1000, clock=lambda: now_ns[0])
        for _ in range(3):
            admission.judge(zap(address=b"localhost:7:7:9"))
        assert [(a.code, a.detail) for a in admission.take_alerts()] == [("client_refused", "uid 7: no role")]
        now_ns[0] = MINUTE
        for uid in range(2000, 4000):
            admission.judge(zap(address=b"localhost:%d:7:9" % uid))
        assert len(admission.take_alerts()) == 64
        assert admission.take_alerts() == []
