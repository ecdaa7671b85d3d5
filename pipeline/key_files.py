"""The folder of keys that `mmdg keys` makes: CURVE pair of the server, signing key, public keys, authorised clients.

Plain JSON, each file with a `format`. CURVE keys are z85 (ZeroMQ RFC 32), Ed25519 keys base64 of the 32 raw bytes.
Files with a secret have mode 0600 in a folder of mode 0700; one that others can read is refused, not used.
"""

from __future__ import annotations

import base64
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from pipeline.authorised_clients import Client, ClientFile, RoleName, read_clients
from pipeline.channels import curve_keypair, curve_public_of
from pipeline.ed25519_files import KeyFileError as KeyFileError  # the one error of all key files
from pipeline.private_file import PrivateFileError, read_private, write_private
from pipeline.signing import KEY_BYTES, DecisionSigner, key_id_of

CURVE_FILE = "curve-server.json"
SIGNING_FILE = "signing.json"
NEXT_SIGNING_FILE = "signing-next.json"
PUBLIC_FILE = "signing-public.json"
CLIENTS_FILE = "clients.json"


class _Format(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CurveServerKey(_Format, frozen=True, kw_only=True):
    """The server's CURVE pair, z85."""

    format: Literal["mmdg-curve-server-v1"] = "mmdg-curve-server-v1"
    created: str
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"CurveServerKey(public_key={self.public_key!r})"


class SigningKey(_Format, frozen=True, kw_only=True):
    """The Ed25519 key that signs decisions. private_key: base64 of the 32-byte seed."""

    format: Literal["mmdg-signing-v1"] = "mmdg-signing-v1"
    created: str
    key_id: str
    private_key: str

    def __repr__(self) -> str:
        return f"SigningKey(key_id={self.key_id!r})"


class VerificationKey(_Format, frozen=True, kw_only=True):
    """A public key that clients may trust. public_key: base64. until: last day (UTC, ISO 8601); None = no end yet."""

    key_id: str
    public_key: str
    since: str
    until: str | None = None

    @staticmethod
    def of(signer: DecisionSigner, since: str = "") -> VerificationKey:
        """The public half of a signer."""
        return VerificationKey(key_id=signer.key_id, public_key=base64.b64encode(signer.public_key_raw).decode(),
                               since=since)


class VerificationKeyFile(_Format, frozen=True, kw_only=True):
    """Every public key of the folder, newest last."""

    format: Literal["mmdg-signing-public-v1"] = "mmdg-signing-public-v1"
    keys: list[VerificationKey] = []


class ClientBundle(_Format, frozen=True, kw_only=True):
    """All that a client needs, in one file. endpoint: of the command socket, where it was given."""

    format: Literal["mmdg-client-v1"] = "mmdg-client-v1"
    name: str
    role: RoleName
    endpoint: str | None
    server_public_key: str
    client_public_key: str
    client_secret_key: str
    signing_public_keys: list[VerificationKey]

    def __repr__(self) -> str:
        return f"ClientBundle(name={self.name!r}, client_public_key={self.client_public_key!r})"


FileType = TypeVar("FileType", bound=msgspec.Struct)


def _read(path: Path, kind: type[FileType]) -> FileType:
    try:
        return msgspec.json.decode(read_private(path), type=kind)
    except PrivateFileError as error:
        raise KeyFileError(f"{error} (keys are made by: mmdg keys init {path.parent})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: {error}; put back the saved copy, or: mmdg keys init --force") from error


def _write(path: Path, content: msgspec.Struct, *, replace: bool) -> None:
    try:
        write_private(path, msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n", replace=replace)
    except PrivateFileError as error:
        raise KeyFileError(str(error)) from error


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


class KeyDirectory:
    """A folder of keys.

    Raises (all methods):
        KeyFileError, ClientFileError: the folder or a file in it is missing, open to others or wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def clients_path(self) -> Path:
        """The file of authorised clients."""
        return self.path / CLIENTS_FILE

    def check(self) -> None:
        """The folder is ours and closed to others."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise KeyFileError(f"{self.path}: {error.strerror}; make keys with: mmdg keys init {self.path}") from error
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o077:
            raise KeyFileError(f"{self.path}: owned by uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}; "
                               f"keys need a folder of yours that others cannot enter: chmod 700 {self.path}")

    # --- the engine reads -------------------------------------------------------------------------------------------
    def curve_server(self) -> CurveServerKey:
        """The server's pair; the public key is checked against the secret one."""
        self.check()
        key = _read(self.path / CURVE_FILE, CurveServerKey)
        try:
            matches = curve_public_of(key.secret_key) == key.public_key
        except ValueError:
            matches = False
        if not matches:
            raise KeyFileError(f"{self.path / CURVE_FILE}: secret and public key do not belong together; put back the "
                               "saved copy, or: mmdg keys init --force")
        return key

    def signer(self) -> DecisionSigner:
        """The signer of decisions; its public key must be among those that clients are given."""
        self.check()
        signer = self._signer(SIGNING_FILE)
        if signer.key_id not in {key.key_id for key in self.verification_keys()}:
            raise KeyFileError(f"{self.path / PUBLIC_FILE}: does not list the signing key {signer.key_id}, or lists it "
                               "as ended: no client would accept a decision; run: mmdg keys rotate signing")
        return signer

    def _signer(self, name: str) -> DecisionSigner:
        key = _read(self.path / name, SigningKey)
        try:
            signer = DecisionSigner(base64.b64decode(key.private_key, validate=True))
        except ValueError as error:
            raise KeyFileError(f"{self.path / name}: private_key is not base64 of {KEY_BYTES} bytes") from error
        if signer.key_id != key.key_id:
            raise KeyFileError(f"{self.path / name}: the key has the id {signer.key_id}, the file says {key.key_id}")
        return signer

    def verification_keys(self, *, ended: bool = False, today: str | None = None) -> list[VerificationKey]:
        """Public keys that clients may trust today, newest last; `ended`: the past ones, too."""
        keys = _read(self.path / PUBLIC_FILE, VerificationKeyFile).keys
        for key in keys:
            try:
                raw = base64.b64decode(key.public_key, validate=True)
            except ValueError:
                raw = b""
            if len(raw) != KEY_BYTES or key_id_of(raw) != key.key_id:
                raise KeyFileError(f"{self.path / PUBLIC_FILE}: public key and id {key.key_id!r} do not belong "
                                   "together")
        day = today or _today()
        return [key for key in keys if ended or key.until is None or key.until >= day]

    # --- `mmdg keys` writes -----------------------------------------------------------------------------------------
    def init(self, *, force: bool = False) -> None:
        """Make the folder with fresh keys. `force` replaces the server's pair and the signing key of one that is
        there; the old signing key ends at once, authorised clients stay, and every client needs the new public keys.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check()
        there = [name for name in (CURVE_FILE, SIGNING_FILE, PUBLIC_FILE) if (self.path / name).exists()]
        if there and not force:
            raise KeyFileError(f"{self.path}: there are keys already ({', '.join(there)}); with --force they are "
                               "replaced, and every client needs the new public keys")
        old = self.verification_keys(ended=True) if (self.path / PUBLIC_FILE).exists() else []
        public, secret = curve_keypair()
        _write(self.path / CURVE_FILE, CurveServerKey(created=_today(), public_key=public, secret_key=secret),
                      replace=force)
        signer = DecisionSigner.generate()
        yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
        ended = [msgspec.structs.replace(k, until=min(k.until or yesterday, yesterday)) for k in old]
        _write(self.path / PUBLIC_FILE,
                      VerificationKeyFile(keys=[*ended, VerificationKey.of(signer, _today())]), replace=force)
        self._write_signer(SIGNING_FILE, signer, replace=force)
        (self.path / NEXT_SIGNING_FILE).unlink(missing_ok=True)
        if not self.clients_path.exists():
            _write(self.clients_path, ClientFile(), replace=False)

    def add_client(self, name: str, role: RoleName, bundle_path: Path, endpoint: str | None = None) -> ClientBundle:
        """Authorise a client with a fresh key and write its bundle, the only place where its secret key stands."""
        clients = read_clients(self.clients_path)
        if any(client.name == name and client.revoked is None for client in clients):
            raise KeyFileError(f"{name}: there is such a client; for a new key: mmdg keys revoke {name}, then again")
        public, secret = curve_keypair()
        try:
            client = msgspec.convert({"name": name, "role": role, "public_key": public, "created": _today()}, Client)
        except msgspec.ValidationError as error:
            raise KeyFileError(f"{name!r} as {role!r}: {error}") from error
        bundle = ClientBundle(name=name, role=role, endpoint=endpoint, server_public_key=self.curve_server().public_key,
                              client_public_key=public, client_secret_key=secret,
                              signing_public_keys=self.verification_keys())
        _write(bundle_path, bundle, replace=False)
        self._write_clients([*clients, client])
        return bundle

    def revoke(self, name: str) -> Client:
        """Refuse a client from now on; a running engine follows within a second."""
        clients = read_clients(self.clients_path)
        for index, client in enumerate(clients):
            if client.name == name and client.revoked is None:
                clients[index] = msgspec.structs.replace(client, revoked=_today())
                self._write_clients(clients)
                return clients[index]
        known = sorted(client.name for client in clients if client.revoked is None)
        raise KeyFileError(f"{name}: no such client; there are: {', '.join(known) or 'none'}")

    def prepare_signing(self) -> VerificationKey:
        """Make the next signing key and list its public half, so that clients can have it before it signs."""
        signer = DecisionSigner.generate()
        key = VerificationKey.of(signer, _today())
        self._write_signer(NEXT_SIGNING_FILE, signer, replace=False)
        self._write_public([*self.verification_keys(ended=True), key])
        return key

    def rotate_signing(self, *, keep_days: int = 30) -> VerificationKey:
        """Sign with the prepared key, or with a fresh one; the old public key stays listed for `keep_days`."""
        old = self._signer(SIGNING_FILE)
        prepared = (self.path / NEXT_SIGNING_FILE).exists()
        signer = self._signer(NEXT_SIGNING_FILE) if prepared else DecisionSigner.generate()
        until = (datetime.now(UTC).date() + timedelta(days=keep_days)).isoformat()
        keys = [msgspec.structs.replace(key, until=until) if key.key_id == old.key_id else key
                for key in self.verification_keys(ended=True)]
        if signer.key_id not in {key.key_id for key in keys}:
            keys.append(VerificationKey.of(signer, _today()))
        self._write_public(keys)  # first: a key that signs is always listed
        self._write_signer(SIGNING_FILE, signer, replace=True)
        (self.path / NEXT_SIGNING_FILE).unlink(missing_ok=True)
        return next(key for key in keys if key.key_id == signer.key_id)

    def _write_signer(self, name: str, signer: DecisionSigner, *, replace: bool) -> None:
        _write(self.path / name, SigningKey(
            created=_today(), key_id=signer.key_id, private_key=base64.b64encode(signer.private_key_raw).decode()),
            replace=replace)

    def _write_public(self, keys: list[VerificationKey]) -> None:
        _write(self.path / PUBLIC_FILE, VerificationKeyFile(keys=keys), replace=True)

    def _write_clients(self, clients: list[Client]) -> None:
        _write(self.clients_path, ClientFile(clients=clients), replace=True)
