"""The command and event sockets of the kiosk, opened safely or not at all, and the keys that go with them.

Opening checks the place (directory or keys), starts the admission, proves on a probe socket that strangers are refused,
and only then binds. All sockets of one endpoint have the same options, the probe's included.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import security
from pipeline.authorised_clients import AuthorisedClients, ClientFileError
from pipeline.channels import (
    ROUTER,
    XPUB,
    ChannelError,
    Socket,
    Sockets,
    curve_server_options,
    drain_subscriptions,
    drain_with_user,
    send_now,
)
from pipeline.curve_self_test import prove_curve
from pipeline.key_files import KeyDirectory, KeyFileError, VerificationKey
from pipeline.kiosk_endpoint import EndpointError, KioskEndpoint, parse_endpoint
from pipeline.security import Admission, Role, RoleMap, SecurityAlert, SecurityError
from pipeline.signing import DecisionSigner

#: A command has at most 8 KiB; what is longer than this costs the sender its connection.
MAX_MESSAGE_BYTES = 64 * 1024
COMMANDS_HIGH_WATER_MARK = 100
EVENTS_HIGH_WATER_MARK = 1000
#: A peer behind a cut cable is forgotten after a minute. No ZMTP heartbeats: not every client library answers them.
TCP_OPTIONS: dict[str, Any] = {"tcp_keepalive": 1, "tcp_keepalive_idle": 30, "tcp_keepalive_intvl": 10,
                               "tcp_keepalive_cnt": 3}
#: So many connections are remembered by who they are.
_MAX_PEERS = 1024


@dataclass(frozen=True, kw_only=True)
class TransportSettings:
    """How the kiosk sockets are served.

    Attributes:
        keys: folder of `mmdg keys init`; needed on tcp. Without it the gateway signs with a key that lives as
            long as it does.
        bind_any_address, advertised_host: see `pipeline.kiosk_endpoint.parse_endpoint`.
        handshakes_per_minute: of one peer. handshake_ms: a peer that has not finished its handshake by then is cut off.
    """

    keys: str | None = None
    bind_any_address: bool = False
    advertised_host: str | None = None
    handshakes_per_minute: int = 240
    handshake_ms: int = 2000


class KioskSockets:
    """Both sockets, who is at the other end, and the keys of decisions.

    Args:
        roles: who is admitted on ipc.

    Attributes:
        commands: ROUTER. events: XPUB; None while it is being opened again. admission: answers handshakes; call its
            `answer` in each turn of the loop. proof: what the self-test has shown. signer: None without keys.
            verification_keys: the public keys that clients may trust, the signer's among them.

    Raises:
        SecurityError: the endpoint is not served like this: keys or directory are missing or open to others, or the
            self-test failed.
        ChannelError: another process serves it, or the address is not ours.
    """

    def __init__(self, sockets: Sockets, endpoint: str, roles: RoleMap,
                 transport: TransportSettings | None = None) -> None:
        transport = transport or TransportSettings()
        self._sockets = sockets
        self._peers: OrderedDict[bytes, str | None] = OrderedDict()
        try:
            self.endpoint: KioskEndpoint = parse_endpoint(endpoint, bind_any_address=transport.bind_any_address,
                                                          advertised_host=transport.advertised_host)
            keys = None if transport.keys is None else KeyDirectory(Path(transport.keys))
            self.signer: DecisionSigner | None = None if keys is None else keys.signer()
            self.verification_keys: list[VerificationKey] = [] if keys is None else keys.verification_keys()
            self.options: dict[str, Any] = {**security.ZAP_OPTIONS, "handshake_ivl": transport.handshake_ms}
            per_minute = transport.handshakes_per_minute
            if not self.endpoint.is_tcp:
                security.check_directory(self.endpoint.commands, roles)
                self.admission = Admission(sockets, roles, handshakes_per_minute=per_minute)
                self.proof = security.prove_refusal(sockets, self.admission)
            elif keys is None:
                raise SecurityError(f"{endpoint}: tcp is served only with keys: mmdg keys init FOLDER, and name the "
                                    "folder in kiosk.keys")
            else:
                secret = keys.curve_server().secret_key
                self.options |= {**TCP_OPTIONS, **curve_server_options(secret),
                                 "ipv6": int(self.endpoint.commands.startswith("tcp://["))}
                self.admission = Admission(sockets, AuthorisedClients(keys.clients_path),
                                           handshakes_per_minute=per_minute)
                self.proof = prove_curve(sockets, self.admission, self.options, secret, self.endpoint.loopback)
        except (EndpointError, KeyFileError, ClientFileError) as error:
            raise SecurityError(str(error)) from error
        # Mandatory: a client that is gone or does not read shows as an error, instead of silence.
        self.commands: Socket = self._open(ROUTER, self.endpoint.commands, COMMANDS_HIGH_WATER_MARK, router_mandatory=1)
        self.events: Socket | None = self._open_events()
        if not self.endpoint.is_tcp:
            for bound in (self.endpoint.commands, self.endpoint.events):
                security.restrict(bound, roles)

    def _open(self, kind: int, endpoint: str, high_water_mark: int, **more: int | bytes) -> Socket:
        return self._sockets.open(kind, endpoint, bind=True, high_water_mark=high_water_mark,
                                  max_message_bytes=MAX_MESSAGE_BYTES, **self.options, **more)

    def _open_events(self) -> Socket:
        return self._open(XPUB, self.endpoint.events, EVENTS_HIGH_WATER_MARK, xpub_verbose=1)

    def receive(self, limit: int = 100) -> Iterator[tuple[bytes, Role | None, list[bytes]]]:
        """(identity, role, frames) of the commands that wait. No role: the sender was revoked since it connected, or
        uses the identity of another client (identities are chosen by clients; sessions belong to them)."""
        for user_id, (identity, *frames) in drain_with_user(self.commands, limit):
            known = self._peers.setdefault(identity, user_id)
            self._peers.move_to_end(identity)
            if len(self._peers) > _MAX_PEERS:
                self._peers.popitem(last=False)
            if known != user_id:
                self.admission.alert("identity_taken", f"{user_id} uses the connection identity of {known}")
                yield identity, None, frames
            else:
                yield identity, self.admission.role_of(user_id), frames

    def may_hear(self, identity: bytes) -> bool:
        """Whether this connection is still that of an admitted client."""
        return self.admission.role_of(self._peers.get(identity)) is not None

    def publish(self, frames: list[bytes]) -> None:
        """Send an event; nobody hears it while the event socket is being opened again."""
        if self.events is not None:
            send_now(self.events, frames)

    def subscriptions(self) -> set[bytes]:
        """Topics that somebody has subscribed to since the last call."""
        return drain_subscriptions(self.events) if self.events is not None else set()

    def refresh(self, now_ns: int) -> bool:
        """Follow changes of the client file; True when `events` is another socket now.

        libzmq judges a peer once, when it connects, and cannot cut one off. Messages of a revoked client are refused by
        `receive`; the event socket is closed and opened again, so that its subscribers have to prove themselves again
        (libzmq's clients do so on their own within a second; events of that time are lost to them, as PUB may).
        """
        clients = self.admission.roles
        revoked = clients.refresh(now_ns)
        if isinstance(clients, AuthorisedClients) and clients.error is not None:
            self.admission.alert("client_file_unreadable", f"nobody is admitted: {clients.error}")
        closed = self.events
        if revoked and closed is not None:
            self.admission.alert("clients_changed", "a client lost its admission")
            self._sockets.forget(closed)
            self.events = None
        if self.events is None:
            # While the old socket still holds the address: again at the next turn.
            with contextlib.suppress(ChannelError):
                self.events = self._open_events()
        return self.events is not closed

    @property
    def open_sockets(self) -> list[Socket]:
        """What the engine's loop waits on."""
        return [self.commands, self.admission.socket, *([self.events] if self.events is not None else [])]

    def take_alerts(self) -> list[SecurityAlert]:
        """What an operator should know, since the last call."""
        return self.admission.take_alerts()
