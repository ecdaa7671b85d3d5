"""Proof at start-up that the tcp sockets of the kiosk refuse whom they must: on a probe socket with the same options.

CURVE alone lets every client in that knows the server's public key; an option forgotten or renamed would show nowhere
else. Each refusal is read from what libzmq tells about the handshake, not from silence.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.authorised_clients import AuthorisedClients
from pipeline.channels import (
    DEALER,
    ROUTER,
    ChannelError,
    HandshakeMonitor,
    Socket,
    Sockets,
    bound_endpoint,
    curve_client_options,
    curve_keypair,
    curve_public_of,
    drain_with_user,
    send_now,
)
from pipeline.security import Admission, Role, SecurityError

#: A handshake on the loopback takes some milliseconds.
TIMEOUT_S = 2.0


@dataclass(frozen=True)
class _Attempt:
    """A client that tries, and how its handshake must end."""

    name: str
    options: Mapping[str, Any]
    expected: str


def _attempts(server_public: str, probe: tuple[str, str]) -> list[_Attempt]:
    stranger, other_server = curve_keypair(), curve_keypair()
    return [
        _Attempt("a NULL peer", {}, "failed_protocol"),
        _Attempt("a PLAIN peer", {"plain_username": b"kiosk", "plain_password": b"kiosk"}, "failed_protocol"),
        _Attempt("a peer with another server's key", curve_client_options(other_server[0], *probe), "failed_protocol"),
        _Attempt("a peer without a key", {"curve_serverkey": server_public.encode()}, "failed_protocol"),
        _Attempt("a peer whose key is not its own", curve_client_options(server_public, probe[0], stranger[1]),
                 "failed_protocol"),
        _Attempt("a peer with an unauthorised key", curve_client_options(server_public, *stranger), "failed_auth"),
        _Attempt("an authorised peer", curve_client_options(server_public, *probe), "succeeded"),
    ]


def prove_curve(sockets: Sockets, admission: Admission, options: Mapping[str, Any], secret: str,
                loopback: str = "tcp://127.0.0.1:*") -> str:
    """Show that NULL, PLAIN, a wrong server key, no key and an unauthorised key are refused, and a listed key is heard.

    Args:
        admission: of the tcp sockets; a key made for the probe is admitted while this runs. options: of
            `Sockets.open`, the very ones of the real sockets. secret: the server's CURVE secret key.

    Returns:
        `proven: ` and what was shown.

    Raises:
        SecurityError: any attempt ended otherwise than it must, or had no outcome. Do not serve.
    """
    clients = admission.roles
    assert isinstance(clients, AuthorisedClients)
    probe = curve_keypair()
    try:
        server = sockets.open(ROUTER, loopback, bind=True, **options)
    except ChannelError as error:
        raise SecurityError(f"the start-up self-test cannot open its socket: {error}") from error
    monitor = HandshakeMonitor(server)
    clients.let_probe_in(probe[0])
    try:
        attempts = _attempts(curve_public_of(secret), probe)
        for attempt in attempts:
            ended = _try(sockets, admission, server, monitor, attempt)
            if ended != attempt.expected:
                raise SecurityError(f"start-up self-test: {attempt.name} should have {attempt.expected}, but {ended}; "
                                    "the kiosk sockets are not served")
    finally:
        clients.let_probe_in(None)
        monitor.close()
        sockets.forget(server)
        admission.forget_handshakes()
    return "proven: " + ", ".join(f"{attempt.name} {attempt.expected}" for attempt in attempts)


def _try(sockets: Sockets, admission: Admission, server: Socket, monitor: HandshakeMonitor, attempt: _Attempt) -> str:
    """How the handshake ended; `heard ...` when a message came through that should not have, or as it should not."""
    words = attempt.name.encode()
    # No second attempt of the same client: its end would be taken for the next one's.
    client = sockets.open(DEALER, bound_endpoint(server), bind=False, reconnect_ivl=-1, **attempt.options)
    try:
        send_now(client, [words])
        end = time.monotonic() + TIMEOUT_S
        ended = ""
        while time.monotonic() < end:
            admission.socket.poll(2)
            admission.answer()
            ended = next((kind for kind in monitor.poll() if kind != "disconnected"), ended)
            for user, frames in drain_with_user(server):
                if (attempt.expected, frames[-1], admission.role_of(user)) != ("succeeded", words, Role.MONITOR):
                    return f"heard as {user!r}"
                return ended or "succeeded"
            if ended and ended != "succeeded":
                return ended
    finally:
        sockets.forget(client)
    raise SecurityError(f"start-up self-test: {attempt.name} had no outcome in {TIMEOUT_S:g} s (handshake "
                        f"{ended or 'not ended'}); the kiosk sockets are not served")
