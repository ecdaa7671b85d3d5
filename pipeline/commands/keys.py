"""`mmdg keys`: CURVE and signing keys, and which clients may connect over tcp."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(no_args_is_help=True, help="Keys of the kiosk socket: the server's CURVE pair, the key that signs "
                                              "decisions, and the clients that may connect (docs/keys.md).")

#: Exit code of a command that did nothing, with the reason on stderr.
EXIT_REFUSED = 2

Folder = Annotated[Path, typer.Option("--keys", envvar="MMDG_KEYS", help="The folder of keys.", show_default=True)]
DEFAULT_FOLDER = Path("keys")
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


class RoleOption(StrEnum):
    """`pipeline.security.Role`, spelled for the command line."""

    MONITOR = "monitor"
    KIOSK = "kiosk"
    OPERATOR = "operator"


class KeyOption(StrEnum):
    """What `rotate` replaces."""

    SIGNING = "signing"


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(f"mmdg keys: {error}", err=True)
        raise typer.Exit(EXIT_REFUSED) from error


@keys.command()
def init(folder: Annotated[Path, typer.Argument(help="The folder to make; mode 0700, files 0600.")] = DEFAULT_FOLDER,
         force: Annotated[bool, typer.Option("--force", help="Replace the server's pair and the signing key of a "
                                             "folder that is there. Every client then needs the new keys.")] = False,
         ) -> None:
    """Make the server's CURVE pair, the signing key and an empty list of clients. Exit code 2: not done."""
    from pipeline.key_files import KeyDirectory

    with _refusing():
        directory = KeyDirectory(folder)
        directory.init(force=force)
        typer.echo(f"{folder}: server {directory.curve_server().public_key}, decisions signed by "
                   f"{directory.signer().key_id}")
        typer.echo(f"next: kiosk.keys: {folder.resolve()} in the configuration, and a client: mmdg keys client NAME "
                   f"--role kiosk --keys {folder}", err=True)


@keys.command()
def client(name: Annotated[str, typer.Argument(help="Lower-case letters, digits, . _ -")],
           role: Annotated[RoleOption, typer.Option(help="monitor: health and events; kiosk: also sessions of its own; "
                                                    "operator: also everyone's.")],
           folder: Folder = DEFAULT_FOLDER,
           out: Annotated[Path | None, typer.Option(help="Where the bundle goes. Default: NAME.mmdg-client.json here.",
                                                    )] = None,
           endpoint: Annotated[str | None, typer.Option(help="The engine's kiosk endpoint as the client reaches it, "
                                                        "to stand in the bundle.")] = None) -> None:
    """Let a client in and write its bundle, which holds its secret key: hand it over on a safe path, then delete it.

    A running engine follows within a second. Exit code 2: not done.
    """
    from pipeline.key_files import KeyDirectory

    with _refusing():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", name):
            raise ValueError(f"{name!r}: a client's name has 1 to 64 lower-case letters, digits, . _ or -")
        path = out or Path(f"{name}.mmdg-client.json")
        KeyDirectory(folder).add_client(name, role.value, path, endpoint)
    typer.echo(str(path))


@keys.command("list")
def list_clients(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Who may connect over tcp, and who no longer may. Exit code 2: the file cannot be used."""
    from pipeline.authorised_clients import read_clients
    from pipeline.key_files import KeyDirectory

    with _refusing():
        directory = KeyDirectory(folder)
        directory.check()
        clients = read_clients(directory.clients_path)
    if as_json:
        for one in clients:
            typer.echo(json.dumps({"name": one.name, "role": one.role, "key_id": one.key_id, "created": one.created,
                                   "revoked": one.revoked, "public_key": one.public_key}))
        return
    for one in clients:
        until = f"revoked {one.revoked}" if one.revoked else f"since {one.created}"
        typer.echo(f"{one.name:<24} {one.role:<9} {one.key_id}  {until}")
    if not clients:
        typer.echo("no clients; let one in with: mmdg keys client NAME --role kiosk", err=True)


@keys.command()
def revoke(name: Annotated[str, typer.Argument(help="As in mmdg keys list.")], folder: Folder = DEFAULT_FOLDER) -> None:
    """Shut a client out. A running engine follows within a second, open connections included. Exit code 2: not done."""
    from pipeline.key_files import KeyDirectory

    with _refusing():
        one = KeyDirectory(folder).revoke(name)
    typer.echo(f"{one.name} ({one.key_id}) is revoked")


@keys.command()
def rotate(what: Annotated[KeyOption, typer.Argument(help="signing: the key that signs decisions.")],
           folder: Folder = DEFAULT_FOLDER,
           prepare: Annotated[bool, typer.Option("--prepare", help="Only make the next key and list its public half, "
                                                 "so that clients can have it first; rotate again to use it.")] = False,
           keep_days: Annotated[int, typer.Option(min=0, max=3650, help="So long the old public key stays listed.",
                                                  )] = 30) -> None:
    """Change the signing key. Clients that do not know the new public key stay closed; the engine needs a restart.

    Exit code 2: not done.
    """
    from pipeline.key_files import KeyDirectory

    assert what is KeyOption.SIGNING
    with _refusing():
        directory = KeyDirectory(folder)
        directory.check()
        key = directory.prepare_signing() if prepare else directory.rotate_signing(keep_days=keep_days)
    typer.echo(f"{key.key_id} {'is listed and does not sign yet' if prepare else 'signs after a restart'}: "
               f"public key {key.public_key}")


@keys.command()
def show(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """The public keys: what a client needs beside its own pair. No secret is shown. Exit code 2: keys are unusable."""
    from pipeline.key_files import KeyDirectory

    with _refusing():
        directory = KeyDirectory(folder)
        server, signing = directory.curve_server().public_key, directory.signer().key_id
        listed = directory.verification_keys(ended=True)
    if as_json:
        typer.echo(json.dumps({"server_public_key": server, "signs": signing, "signing_public_keys": [
            {"key_id": k.key_id, "public_key": k.public_key, "since": k.since, "until": k.until} for k in listed]}))
        return
    typer.echo(f"server   {server}")
    for key in listed:
        state = "signs" if key.key_id == signing else f"until {key.until}" if key.until else "next"
        typer.echo(f"signing  {key.key_id}  {key.public_key}  {state}")


def register(app: typer.Typer) -> None:
    """Add `keys` to the `mmdg` command line."""
    app.add_typer(keys, name="keys")
