"""Who may connect over tcp: the file that maps a CURVE public key to a name and a role. Read again when it changes.

A file that cannot be trusted, or cannot be read at all, admits nobody: a revocation with a typing error must not leave
the revoked client in.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pipeline.channels import curve_key_bytes
from pipeline.private_file import PrivateFileError, read_private
from pipeline.security import Role

RoleName = Literal["monitor", "kiosk", "operator"]
ClientName = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_.-]{0,63}$")]


class ClientFileError(ValueError):
    """The file of authorised clients is missing, open to others or wrong; the message names place and remedy."""


class Client(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One client. public_key: z85. created, revoked: dates (UTC) as labels; a revoked client is refused."""

    name: ClientName
    role: RoleName
    public_key: str
    created: str
    revoked: str | None = None

    @property
    def key_id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the key's 32 bytes."""
        return hashlib.sha256(curve_key_bytes(self.public_key)).hexdigest()[:16]

    @property
    def user_id(self) -> str:
        """The `User-Id` of its messages: role, name and key, so that a changed role or key ends the old one."""
        return f"{self.role.upper()} {self.name} {self.key_id}"


class ClientFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands in the file."""

    format: Literal["mmdg-clients-v1"] = "mmdg-clients-v1"
    clients: list[Client] = []


def read_clients(path: Path) -> list[Client]:
    """All clients, revoked ones too.

    Raises:
        ClientFileError: no regular file, another user's, writable or readable by others, not of the format, a key that
            is none, a name or key twice among those that are not revoked.
    """
    try:
        data = read_private(path)
    except PrivateFileError as error:
        raise ClientFileError(f"{error} (who can write it decides who may connect; made by mmdg keys init)") from error
    try:
        clients = msgspec.json.decode(data, type=ClientFile).clients
        for client in clients:
            curve_key_bytes(client.public_key)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ClientFileError(f"{path}: {error}; write it with: mmdg keys client, mmdg keys revoke") from error
    valid = [client for client in clients if client.revoked is None]
    for what, values in (("name", [c.name for c in valid]), ("public key", [c.public_key for c in valid])):
        if twice := {value for value in values if values.count(value) > 1}:
            raise ClientFileError(f"{path}: {what} {min(twice)!r} stands there twice; which role would it have?")
    revoked = {client.public_key for client in clients if client.revoked is not None}
    if again := revoked & {client.public_key for client in valid}:
        raise ClientFileError(f"{path}: public key {min(again)!r} was revoked and stands there again; make a new one")
    return clients


class AuthorisedClients:
    """The judge of the tcp sockets (`pipeline.security.Judge`).

    Args:
        path: the file. It must be readable at the start; later an unreadable one admits nobody until it is right.

    Raises:
        ClientFileError: as `read_clients`.
    """

    #: How often the file is looked at; a revocation takes effect within this time and one turn of the engine's loop.
    PERIOD_NS = 200_000_000

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: str | None = None
        self._probe: Client | None = None
        self._stamp = self._stamp_now()
        self._looked_ns = 0
        self._by_key: dict[bytes, Client] = {}
        self._take(read_clients(path))

    @property
    def clients(self) -> Sequence[Client]:
        """Those who are admitted now."""
        return list(self._by_key.values())

    def admit(self, mechanism: bytes, address: str, credentials: list[bytes]) -> tuple[str, Role] | None:
        """A peer that has proven one of the listed keys; NULL and PLAIN never pass. The address does not matter."""
        if mechanism != b"CURVE" or len(credentials) != 1 or not _IP.fullmatch(address):
            return None
        client = self._by_key.get(credentials[0])
        if client is None and self._probe is not None and curve_key_bytes(self._probe.public_key) == credentials[0]:
            client = self._probe
        return None if client is None else (client.user_id, Role[client.role.upper()])

    def role_of_user(self, user_id: str | None) -> Role | None:
        """Of a client that is still admitted with this key and role."""
        for client in (*self._by_key.values(), *((self._probe,) if self._probe is not None else ())):
            if client.user_id == user_id:
                return Role[client.role.upper()]
        return None

    def refresh(self, now_ns: int) -> bool:
        """Read the file again if it changed; whether somebody who was admitted no longer is, or has another role."""
        if now_ns - self._looked_ns < self.PERIOD_NS:
            return False
        self._looked_ns = now_ns
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        before = {client.user_id for client in self._by_key.values()}
        try:
            self._take(read_clients(self.path))
            self.error = None
        except ClientFileError as error:
            self._by_key = {}
            self.error = str(error)
        return bool(before - {client.user_id for client in self._by_key.values()})

    def let_probe_in(self, public_key: str | None) -> None:
        """Admit a key of the start-up self-test as a monitor; None ends it. Before any socket is served."""
        self._probe = None if public_key is None else Client(name="self-test", role="monitor", public_key=public_key,
                                                             created="")

    def _take(self, clients: list[Client]) -> None:
        self._by_key = {curve_key_bytes(client.public_key): client for client in clients if client.revoked is None}

    def _stamp_now(self) -> tuple[int, ...] | None:
        """Changes with the file: a rename into its place gives another inode, an edit another time or size."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_mode


#: libzmq gives the numeric address of a tcp peer; ipc peers have `localhost:...`.
_IP = re.compile(r"[0-9A-Fa-f:.]+(%[0-9A-Za-z]+)?")
