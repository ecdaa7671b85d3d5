"""`mmdg audit`, `mmdg lockout`, `mmdg manifest`: what an operator asks about the past, locks and releases."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.release_manifest import PinnedCamera

audit = typer.Typer(no_args_is_help=True, help="Check and read the engine's audit log.")
lockout = typer.Typer(no_args_is_help=True, help="See and end locks after attacks.")
manifest = typer.Typer(no_args_is_help=True, help="Sign and check what a release consists of.")

LogPath = Annotated[Path, typer.Argument(help="The current file of the log, as audit.path in the configuration names "
                                              "it.")]
ConfigPath = Annotated[Path, typer.Option("--config", help="YAML configuration of the engine.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]

#: Exit codes of `mmdg audit verify` and of the checks of locks and releases.
EXIT_GOOD, EXIT_BAD, EXIT_USAGE, EXIT_INCOMPLETE = 0, 1, 2, 3


def _fail(message: object, code: int = EXIT_USAGE) -> typer.Exit:
    typer.echo(str(message), err=True)
    return typer.Exit(code)


@audit.command("verify", epilog="Exit codes: 0 intact and closed; 1 something is wrong with it; 2 it cannot be read; 3 "
                                "intact as far as it goes, but its end is open, torn or not signed: the engine runs, "
                                "was killed, or the end was cut off.")
def verify_log(
    path: LogPath,
    public_key: Annotated[Path | None, typer.Option(help="Demand signatures by this Ed25519 key.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="The oldest files were archived.")] = False,
    anchor: Annotated[str | None, typer.Option(
        help="SEQUENCE:HASH noted elsewhere, as this command prints it: shows a log that was cut back.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check every record of every file: changes, gaps, repetitions, another order, and its end."""
    from msgspec import to_builtins

    from pipeline.audit_check import verify
    from pipeline.audit_log import AuditError
    from pipeline.ed25519_files import KeyFileError, load_public_key

    try:
        place = None
        if anchor is not None:
            sequence, _, line_hash = anchor.partition(":")
            if not sequence.isdigit() or len(line_hash) != 64:
                raise _fail(f"--anchor {anchor!r}: expected SEQUENCE:HASH with 64 hexadecimal digits")
            place = (int(sequence), line_hash)
        key = None if public_key is None else load_public_key(public_key)
        report = verify(path, key=key, partial=partial, anchor=place)
    except (AuditError, KeyFileError) as error:
        raise _fail(error) from None
    if as_json:
        typer.echo(json.dumps({**to_builtins(report), "unsigned": report.unsigned, "complete": report.complete}))
    else:
        for problem in report.problems:
            typer.echo(str(problem))
        typer.echo(f"{len(report.files)} files, {report.records} records; end {report.last}:{report.head}")
        signed = "not checked" if report.signed is None else f"up to record {report.signed} of {report.records}"
        typer.echo(f"signatures: {signed}; {'closed' if report.closed else 'not closed'}"
                   f"{', a process writes it now' if report.in_use else ''}"
                   f"{f', {report.torn_bytes} torn bytes at its end' if report.torn_bytes else ''}")
    if report.problems:
        raise typer.Exit(EXIT_BAD)
    if not report.complete:
        raise typer.Exit(EXIT_INCOMPLETE)


@audit.command()
def show(path: LogPath,
         session: Annotated[str | None, typer.Option(help="Only records of this session.")] = None,
         kind: Annotated[str | None, typer.Option(help="Only kinds that begin with this, such as security.")] = None,
         as_json: AsJson = False) -> None:
    """Print the records, oldest first. It does not check the chain: `mmdg audit verify` does."""
    from msgspec import to_builtins

    from pipeline.audit_check import records
    from pipeline.audit_log import AuditError

    try:
        for record in records(path):
            if (session is not None and record.content.get("session_id") != session) or (
                    kind is not None and not record.kind.startswith(kind)):
                continue
            if as_json:
                typer.echo(json.dumps(to_builtins(record)))
                continue
            told = "  ".join(f"{name} {value}" for name, value in record.content.items() if value not in (None, "", {}))
            typer.echo(f"{record.sequence:6}  {record.wall_clock}  {record.kind}  {told}")
    except AuditError as error:
        raise _fail(error) from None


# --- lock-out -------------------------------------------------------------------------------------------------------
def _lockout_path(path: Path | None, config: Path | None) -> Path:
    from pipeline.config import ConfigError, load_settings

    if path is not None:
        return path
    if config is None:
        raise _fail("which lock-out? Give --path, or --config of an engine with lockout.path")
    try:
        named = load_settings(config).lockout.path
    except ConfigError as error:
        raise _fail(error) from None
    if named is None:
        raise _fail(f"{config}: lockout.path is not set: the lock-out lives in the engine, and ends with it")
    return Path(named)


StatePath = Annotated[Path | None, typer.Option("--path", help="State file (lockout.path in the configuration).")]
StateConfig = Annotated[Path | None, typer.Option("--config", help="Or the engine's configuration.")]


@lockout.command("show", epilog="Exit codes: 0 nothing is locked; 1 a camera is locked, or the state cannot be read.")
def show_locks(path: StatePath = None, config: StateConfig = None, as_json: AsJson = False) -> None:
    """Which cameras are locked, and for how long."""
    from pipeline.audit_log import boot_id
    from pipeline.lockout import LockoutFile, LockoutFileError, locked_cameras

    now_ns = time.monotonic_ns()
    try:
        state = LockoutFile(_lockout_path(path, config), boot_id=boot_id()).read(now_ns)
    except LockoutFileError as error:
        raise _fail(error, EXIT_BAD) from None
    locked = locked_cameras(state.cameras, now_ns)
    cameras: dict[str, Any] = {
        name: {"locked_s": round(locked.get(name, 0.0)), "locks": camera.locks,
               "attacks_counted": len(camera.attacks_ns)} for name, camera in state.cameras.items()}
    if as_json:
        typer.echo(json.dumps(cameras))
    for name, about in sorted(cameras.items()) if not as_json else ():
        typer.echo(f"{name}: {'locked for another ' + str(about['locked_s']) + ' s' if name in locked else 'open'}, "
                   f"{about['attacks_counted']} attacks counted, {about['locks']} locks so far")
    if locked:
        raise typer.Exit(EXIT_BAD)


@lockout.command("clear")
def clear_locks(path: StatePath = None, config: StateConfig = None,
                camera: Annotated[str | None, typer.Option(help="Name of the camera.")] = None,
                every: Annotated[bool, typer.Option("--all", help="All; replaces a damaged state, too.")] = False,
                ) -> None:
    """Forget what is held against a camera. The engine notices before the next session; its audit log tells who."""
    from pipeline.audit_log import wall_clock_label
    from pipeline.lockout import LockoutFileError
    from pipeline.session_guards import clear_lockout

    if (camera is None) is not every:
        raise _fail("name one camera with --camera, or all of them with --all")
    try:
        clear_lockout(_lockout_path(path, config), camera, now_ns=time.monotonic_ns(), wall_clock=wall_clock_label())
    except LockoutFileError as error:
        raise _fail(error) from None
    typer.echo(f"cleared: {camera or 'every camera'}")


# --- release manifest -----------------------------------------------------------------------------------------------
def _settings_and_weights(config: Path, model: Path | None) -> tuple[Settings, Path]:
    from pipeline.commands.live import checkpoint_of
    from pipeline.config import ConfigError, load_settings

    try:
        settings = load_settings(config)
        return settings, checkpoint_of(model, settings.inference)[0]
    except (ConfigError, ValueError) as error:
        raise _fail(error) from None


def _pins(settings: Settings, open_cameras: bool) -> dict[str, PinnedCamera]:
    from capture.camera import CameraError, Pace
    from capture.sources import make_camera
    from pipeline.release_manifest import PinnedCamera

    pins: dict[str, PinnedCamera] = {}
    for camera in settings.cameras:
        serial, rig = camera.serial, camera.rig_sha256
        if serial is None or rig is None:
            if not open_cameras:
                raise _fail(f"camera {camera.name!r} has no serial and rig_sha256 in the configuration; add them, or "
                            "let --open-cameras read them off the cameras that are plugged in now")
            source = make_camera(camera.spec, pace=Pace(camera.pace), seed=camera.seed)
            try:
                found = source.open()
            except CameraError as error:
                raise _fail(error) from None
            finally:
                source.close()
            serial, rig = serial or found.serial, rig or found.rig.hash
        pins[camera.name] = PinnedCamera(serial=serial, rig_sha256=rig)
    return pins


@manifest.command("sign")
def sign_release(
    config: ConfigPath,
    key: Annotated[Path, typer.Option(help="Ed25519 private key, mode 600.")],
    out: Annotated[Path, typer.Option(help="The manifest to write; its signature goes to OUT.signature.")],
    model: Annotated[Path | None, typer.Option(help="Checkpoint or exported model, as for mmdg-live.")] = None,
    open_cameras: Annotated[bool, typer.Option("--open-cameras", help="Pin the cameras plugged in now.")] = False,
) -> None:
    """Hash everything that a configuration runs with, and sign the list."""
    from pipeline.audit_log import wall_clock_label
    from pipeline.ed25519_files import KeyFileError, key_id, load_private_key
    from pipeline.release_manifest import ManifestError, measure, sign

    settings, weights = _settings_and_weights(config, model)
    try:
        private = load_private_key(key)
        pins = _pins(settings, open_cameras)
        sign(measure(settings, weights, cameras=pins, created=wall_clock_label()), out, private)
    except (KeyFileError, ManifestError, OSError) as error:
        raise _fail(error) from None
    typer.echo(f"{out} signed by key {key_id(private.public_key())}")


@manifest.command("verify", epilog="Exit codes: 0 this is the signed release; 1 it is not; 2 wrong usage.")
def verify_release(
    config: ConfigPath,
    model: Annotated[Path | None, typer.Option(help="Checkpoint or exported model, as for mmdg-live.")] = None,
) -> None:
    """Compare a configuration with its signed manifest. Cameras are compared when the engine opens them."""
    from pipeline.ed25519_files import KeyFileError, load_public_key
    from pipeline.release_manifest import ManifestError, pinned_settings

    settings, weights = _settings_and_weights(config, model)
    if settings.manifest.public_key is None:
        raise _fail(f"{config}: manifest.path and manifest.public_key are not set: nothing is pinned")
    try:
        pinned_settings(settings, weights, load_public_key(Path(settings.manifest.public_key)))
    except KeyFileError as error:
        raise _fail(error) from None
    except ManifestError as error:
        raise _fail(error, EXIT_BAD) from None
    typer.echo(f"{settings.manifest.path}: this is the signed release")


def register(app: typer.Typer) -> None:
    """Add `audit`, `lockout` and `manifest` to the `mmdg` command line."""
    app.add_typer(audit, name="audit")
    app.add_typer(lockout, name="lockout")
    app.add_typer(manifest, name="manifest")
