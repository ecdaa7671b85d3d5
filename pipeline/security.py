"""Who may speak on the kiosk sockets: what a peer has proven becomes a role; everyone else is refused.

On ipc the kernel names the peer (SO_PEERCRED) and libzmq passes it to a ZAP handler (ZeroMQ RFC 27) as the address
`localhost:uid:gid:pid`. On tcp the peer has proven to own a CURVE key (`pipeline.authorised_clients`). libzmq asks the
handler only on sockets with a `ZAP_DOMAIN`, and refuses on its own when no handler is there only with
`ZAP_ENFORCE_DOMAIN`: both are always set. A refused peer finishes no handshake: not one of its messages reaches us. The
gid is the peer's primary group; supplementary groups are not seen.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import socket
import stat
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Protocol

from pipeline.channels import ROUTER, ChannelError, Socket, Sockets, drain, drain_with_user, send_now

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
ZAP_DOMAIN = b"mmdg-kiosk"
#: Of every kiosk socket. The domain makes libzmq ask the handler; enforcing it makes libzmq refuse when none answers.
ZAP_OPTIONS: dict[str, Any] = {"zap_domain": ZAP_DOMAIN, "zap_enforce_domain": 1}
#: `nobody` on every Linux; any uid that is not admitted serves.
_FOREIGN_ID = 65534
_SETRESUID = {"x86_64": 117, "aarch64": 147}
_SETRESGID = {"x86_64": 119, "aarch64": 149}


class SecurityError(RuntimeError):
    """The sockets cannot be served safely; the message says what failed and the remedy."""


class Role(IntEnum):
    """Each role may do what the ones before it may."""

    MONITOR = 1  # health and events
    KIOSK = 2  # sessions of its own
    OPERATOR = 3  # everyone's sessions


@dataclass(frozen=True)
class Peer:
    """Who is at the other end of an ipc connection, as the kernel says."""

    uid: int
    gid: int


def parse_peer(address: str) -> Peer | None:
    """`localhost:uid:gid:pid` of an ipc peer; None for anything else."""
    parts = address.split(":")
    if len(parts) != 4 or parts[0] != "localhost" or not all(p.isascii() and p.isdigit() for p in parts[1:]):
        return None
    return Peer(uid=int(parts[1]), gid=int(parts[2]))


@dataclass(frozen=True)
class RoleMap:
    """Who is admitted as what. Where uid and gid both match, the higher role counts."""

    uids: Mapping[int, Role] = field(default_factory=dict)
    gids: Mapping[int, Role] = field(default_factory=dict)

    def role_of(self, peer: Peer) -> Role | None:
        """None = refused."""
        roles = [role for role in (self.uids.get(peer.uid), self.gids.get(peer.gid)) if role is not None]
        return max(roles, default=None)

    @staticmethod
    def own_user() -> RoleMap:
        """The default: programs of the user that runs the engine are kiosks, nobody else is admitted."""
        return RoleMap(uids={os.getuid(): Role.KIOSK})

    def admit(self, mechanism: bytes, address: str, credentials: list[bytes]) -> tuple[str, Role] | None:
        """The NULL mechanism of an ipc peer whose uid or gid has a role; `User-Id` is `ROLE uid N`."""
        peer = parse_peer(address) if mechanism == b"NULL" and not credentials else None
        role = self.role_of(peer) if peer is not None else None
        return None if peer is None or role is None else (f"{role.name} uid {peer.uid}", role)

    def role_of_user(self, user_id: str | None) -> Role | None:
        """The role that the admission wrote into `User-Id`; None when it wrote none."""
        return role_named(user_id)

    def refresh(self, now_ns: int) -> bool:
        """Roles by uid and gid stand in the configuration: they do not change while the engine runs."""
        return False


class Judge(Protocol):
    """Who is admitted: `RoleMap` on ipc, `pipeline.authorised_clients.AuthorisedClients` on tcp."""

    def admit(self, mechanism: bytes, address: str, credentials: list[bytes]) -> tuple[str, Role] | None:
        """`User-Id` and role of a peer that has proven what it is; None = refused."""

    def role_of_user(self, user_id: str | None) -> Role | None:
        """What the peer with this `User-Id` may do now; None when it has been revoked since."""

    def refresh(self, now_ns: int) -> bool:
        """Read again what may have changed; whether somebody who was admitted no longer is."""


def answer_zap(request: list[bytes], judge: Judge) -> tuple[list[bytes], Role | None]:
    """Reply to one ZAP request (RFC 27: version, id, domain, address, identity, mechanism, credentials...).

    Only a peer in our domain that `judge` admits passes; who it is travels as `User-Id` with each of its messages.
    """
    version, request_id = (request[0], request[1]) if len(request) > 1 else (b"1.0", b"")
    admitted = None
    if len(request) >= 6 and version == b"1.0" and request[2] == ZAP_DOMAIN:
        admitted = judge.admit(request[5], request[3].decode("ascii", "replace"), request[6:])
    if admitted is None:
        return [b"1.0", request_id, b"400", b"not admitted", b"", b""], None
    user_id, role = admitted
    return [b"1.0", request_id, b"200", b"OK", user_id.encode(), b""], role


def role_named(user_id: str | None) -> Role | None:
    """The role that a `User-Id` begins with; None when it begins with none."""
    return Role.__members__.get((user_id or "").partition(" ")[0])


def limited_as(address: str) -> str:
    """Under which name the handshakes of a peer address are counted: the uid on ipc, /64 of an IPv6 address."""
    if (peer := parse_peer(address)) is not None:
        return f"uid {peer.uid}"
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped or f"{IPv6Address(int(parsed) >> 64 << 64)}/64")
    return str(parsed)


class HandshakeLimit:
    """An allowance of handshakes for each peer: so many at once, refilled over a minute.

    A peer that has proven an authorised key has an allowance of its own, so that a stranger behind the same address
    cannot use it up.
    """

    #: So many peers are remembered; the one that was silent longest is forgotten first.
    MAX_PEERS = 1024

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._left: OrderedDict[str, tuple[float, int]] = OrderedDict()  # name -> (allowance, when)

    def take(self, name: str, now_ns: int) -> bool:
        """Whether one more is allowed."""
        left, since_ns = self._left.pop(name, (float(self.per_minute), now_ns))
        left = min(float(self.per_minute), left + (now_ns - since_ns) * self.per_minute / 60e9)
        allowed = left >= 1
        self._left[name] = (left - allowed, now_ns)
        if len(self._left) > self.MAX_PEERS:
            self._left.popitem(last=False)
        return allowed

    def clear(self) -> None:
        """Forget all."""
        self._left.clear()


@dataclass(frozen=True)
class SecurityAlert:
    """Something that an operator should know. code: `client_refused`, `handshakes_limited`, `clients_changed`,
    `client_file_unreadable`, `identity_taken`."""

    code: str
    detail: str


class Admission:
    """The ZAP handler. Answer from the loop that owns the sockets: no thread. Open it before any kiosk socket binds.

    Args:
        roles: who is admitted. handshakes_per_minute: of one peer; above it a peer is told to try again later.
    """

    #: The same alert about the same peer is raised at most once in this time.
    ALERT_PERIOD_NS = 60_000_000_000
    _MAX_ALERTS = 64

    def __init__(self, sockets: Sockets, roles: Judge, *, handshakes_per_minute: int = 240,
                 clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.roles = roles
        self.counters: Counter[str] = Counter()
        self.limit = HandshakeLimit(handshakes_per_minute)
        self.socket: Socket = sockets.open(ROUTER, ZAP_ENDPOINT, bind=True)
        self._clock = clock
        self._alerts: list[SecurityAlert] = []
        self._alerted: OrderedDict[tuple[str, str], int] = OrderedDict()

    def answer(self) -> None:
        """Answer all handshakes that wait."""
        for identity, empty, *request in drain(self.socket):
            reply, role = self.judge(request)
            self.counters["admitted" if role is not None else "refused"] += 1
            send_now(self.socket, [identity, empty, *reply])

    def judge(self, request: list[bytes]) -> tuple[list[bytes], Role | None]:
        """`answer_zap` within the peer's allowance of handshakes."""
        reply, role = answer_zap(request, self.roles)
        address = limited_as(request[3].decode("ascii", "replace")) if len(request) > 3 else "?"
        if not self.limit.take(reply[4].decode() if role is not None else address, self._clock()):
            self.counters["handshakes_limited"] += 1
            self.alert("handshakes_limited", f"{address}: more than {self.limit.per_minute} handshakes a minute")
            # 300: a temporary error. libzmq then sends no answer, and the peer finds its connection closed.
            return [b"1.0", reply[1], b"300", b"too many handshakes", b"", b""], None
        if role is None:
            self.alert("client_refused", f"{address}: no role")
        return reply, role

    def role_of(self, user_id: str | None) -> Role | None:
        """What the sender of a message with this `User-Id` may do now; None = nothing, it may have been revoked."""
        return self.roles.role_of_user(user_id)

    def alert(self, code: str, detail: str) -> None:
        """Note an alert, at most once a minute the same."""
        now_ns, key = self._clock(), (code, detail)
        if now_ns - self._alerted.get(key, -self.ALERT_PERIOD_NS) < self.ALERT_PERIOD_NS:
            return
        self._alerted[key] = now_ns
        self._alerted.move_to_end(key)
        if len(self._alerted) > HandshakeLimit.MAX_PEERS:
            self._alerted.popitem(last=False)
        if len(self._alerts) < self._MAX_ALERTS:
            self._alerts.append(SecurityAlert(code, detail))

    def forget_handshakes(self) -> None:
        """Those of the self-test are nobody's: they use up no allowance and raise no alert."""
        self.limit.clear()
        self._alerts.clear()
        self._alerted.clear()

    def take_alerts(self) -> list[SecurityAlert]:
        """The alerts since the last call."""
        alerts, self._alerts = self._alerts, []
        return alerts


def check_directory(endpoint: str, roles: RoleMap) -> Path:
    """The directory of an ipc endpoint, made with mode 0700 if it is not there.

    Raises:
        SecurityError: not ipc, or the directory is another user's, or open to others. A group may enter only when
            the roles admit a group.
    """
    if not endpoint.startswith("ipc://"):
        raise SecurityError(f"{endpoint}: the kiosk is served on ipc:// only")
    directory = Path(endpoint.removeprefix("ipc://")).parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    forbidden = 0o027 if roles.gids else 0o077
    if status.st_uid != os.getuid() or status.st_mode & forbidden:
        raise SecurityError(f"{directory}: owned by uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}; kiosk "
                            f"sockets need a directory of yours with mode {'750' if roles.gids else '700'}: "
                            f"chmod it, or choose another endpoint")
    return directory


def restrict(endpoint: str, roles: RoleMap) -> None:
    """Close the socket file to everyone but its owner, and its group where the roles admit a group."""
    os.chmod(endpoint.removeprefix("ipc://"), 0o660 if roles.gids else 0o600)


# --- proof at start-up ----------------------------------------------------------------------------------------------
def _handshake() -> bytes:
    """What a ZMTP 3.0 client (RFC 23) with the NULL mechanism says before it may send: greeting and READY."""
    greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
    ready = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
    return greeting + b"\x04" + bytes([len(ready)]) + ready


_PROBE = b"\x00\x05probe"  # one message frame of five bytes


class _ForeignIdError(OSError):
    """A container without CAP_SETUID, or without this uid in its user namespace."""


def _connect_as(path: str, peer: Peer) -> socket.socket:
    """Connect with the ids of `peer`: they are what the kernel shows the other side. Root only.

    Ids belong to a thread on Linux. They are changed with bare system calls in a thread that ends right after: the
    libc calls would change them in every thread, and clear the signal that ends us when the supervisor dies.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    failures: list[OSError] = []

    def connect() -> None:
        try:
            if peer != Peer(os.geteuid(), os.getegid()):
                libc = ctypes.CDLL(None, use_errno=True)
                for call, value in ((_SETRESGID, peer.gid), (_SETRESUID, peer.uid)):
                    if libc.syscall(call[platform.machine()], value, value, value) != 0:
                        raise _ForeignIdError(ctypes.get_errno(), f"cannot become uid {peer.uid}")
            connection.connect(path)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=connect, name="mmdg-probe")
    thread.start()
    thread.join()
    if failures:
        connection.close()
        if isinstance(failures[0], _ForeignIdError) or (
                isinstance(failures[0], PermissionError) and peer.uid == _FOREIGN_ID):
            raise failures[0]  # stopped by the file system before anybody could judge it
        raise SecurityError(f"the start-up self-test cannot connect as uid {peer.uid}: {failures[0]}") from failures[0]
    return connection


def _reaches(admission: Admission, server: Socket, path: str, peer: Peer, timeout_s: float = 2.0) -> bool:
    """Whether a message of `peer` gets through to `server`: it was heard, or the peer was judged and turned away."""
    judged, answered = admission.counters.total(), b""
    with _connect_as(path, peer) as connection:
        connection.setblocking(False)
        connection.sendall(_handshake())
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            admission.socket.poll(5)
            admission.answer()
            if any(frames[-1] == b"probe" for _, frames in drain_with_user(server)):
                return True
            try:
                answer = connection.recv(4096)
            except BlockingIOError:
                continue
            except ConnectionError:
                answer = b""
            if b"\x05READY" in answered + answer and b"\x05READY" not in answered:
                connection.sendall(_PROBE)
            answered += answer
            if admission.counters.total() > judged and (not answer or b"\x05ERROR" in answered):
                return False
    raise SecurityError(f"the start-up self-test of the kiosk sockets had no outcome in {timeout_s:g} s for uid "
                        f"{peer.uid}: no ZAP request or no reaction to it")


def _reachable_folder() -> str | None:
    """A folder for temporary files that every user can enter; None where there is none, as with a private TMPDIR."""
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108 - a private folder is made in it
        path = Path(folder).resolve()
        with contextlib.suppress(OSError):
            if os.access(path, os.W_OK | os.X_OK) and all(
                    part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents)):
                return str(path)
    return None


def prove_refusal(sockets: Sockets, admission: Admission) -> str:
    """Show on a socket of our own that an admitted user is heard and a foreign one is not.

    Taking a foreign uid needs root. Without root the own user's case still runs, and the answer says what was not
    shown; the directory's mode then keeps others out, which `check_directory` has checked.

    Returns:
        `proven`, or why a foreign uid could not be tested.

    Raises:
        SecurityError: a foreign uid was heard, or the own user is judged against its role. Do not serve.
    """
    roles = admission.roles
    assert isinstance(roles, RoleMap)
    own, foreign = Peer(os.geteuid(), os.getegid()), Peer(_FOREIGN_ID, _FOREIGN_ID)
    reachable = _reachable_folder()
    with tempfile.TemporaryDirectory(prefix="mmdg-probe-", dir=reachable) as directory:
        path = f"{directory}/probe"
        try:
            server = sockets.open(ROUTER, f"ipc://{path}", bind=True, **ZAP_OPTIONS)
        except ChannelError as error:
            raise SecurityError(f"the start-up self-test cannot open its socket: {error}") from error
        try:
            expected = roles.role_of(own) is not None
            if _reaches(admission, server, path, own) is not expected:
                raise SecurityError(f"uid {own.uid} was {'refused' if expected else 'heard'} against its role; "
                                    "the kiosk sockets are not served")
            if own.uid != 0 or platform.machine() not in _SETRESUID:
                return "foreign uid not testable without root"
            if roles.role_of(foreign) is not None:
                return f"foreign uid not testable: the roles admit uid {foreign.uid}"
            if reachable is None:
                return "foreign uid not testable: every folder for temporary files is closed to it"
            os.chmod(directory, 0o755)  # noqa: S103 - the probe must be reachable, so that only the role refuses it
            os.chmod(path, 0o666)  # noqa: S103
            try:
                heard = _reaches(admission, server, path, foreign)
            except (_ForeignIdError, PermissionError) as error:
                return f"foreign uid not testable here: {error}"
            if heard:
                raise SecurityError(f"a message of uid {foreign.uid}, who has no role, was heard; the kiosk sockets "
                                    "are not served")
        finally:
            sockets.forget(server)
            admission.forget_handshakes()
    return "proven"
