"""`mmdg kiosk`: talk to the kiosk socket of a running engine, try an engine, serve a simulated one."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.kiosk_client import KioskBundle, KioskClient, KioskError, is_open

if TYPE_CHECKING:
    from rich.console import RenderableType

kiosk = typer.Typer(no_args_is_help=True, help="Talk to the kiosk socket of an engine, or serve a simulated one.")

Endpoint = Annotated[str | None, typer.Argument(
    help="The engine's kiosk endpoint, such as ipc:///run/mmdg/kiosk. With --bundle: instead of the bundle's own.")]
Bundle = Annotated[Path | None, typer.Option(
    "--bundle", help="A file of mmdg keys client: endpoint, CURVE keys for tcp, keys that sign decisions.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of text.")]
Keys = Annotated[list[str] | None, typer.Option(
    "--key", help="Base64 of a public key that decisions must be signed with. Without one the engine is believed.")]

#: Exit codes of `mmdg kiosk begin`: only the first may open anything.
EXIT_OPEN, EXIT_CLOSED, EXIT_NO_ENGINE = 0, 1, 2

#: What a person in front of the camera is told. An unknown code reads "please wait".
GUIDANCE_TEXT = {
    "no_face": "Please look into the camera", "multiple_faces": "One person at a time, please",
    "move_closer": "Please come closer", "move_back": "Please step back", "centre_face": "Please move to the middle",
    "look_at_camera": "Please look into the camera", "remove_mask": "Please take off the mask",
    "remove_sunglasses": "Please take off the sunglasses", "hold_still": "Please hold still",
    "face_changed": "Please start again", "too_dark": "It is too dark here", "too_bright": "It is too bright here",
    "ir_saturated": "Please step back a little", "depth_holes": "Please move a little",
    "clean_lens": "The camera needs cleaning"}


def describe(event: dict[str, Any]) -> str:
    """One line of text for an event."""
    kind = event.get("type")
    session = str(event.get("session_id", ""))[:8]
    if kind == "health":
        health = event["health"]
        cameras = ", ".join(f"{c['name']} {'-' if c['age_ms'] is None else format(c['age_ms'], '.0f') + ' ms'}"
                            for c in health["cameras"])
        return (f"health     {'ready' if health['ready'] else 'NOT READY'}  model {health['model_purpose']}  "
                f"cameras: {cameras or 'none'}{'  lost: ' + ', '.join(health['lost']) if health['lost'] else ''}")
    if kind == "session.decision":
        decision = event["decision"]
        return (f"{session}   {decision['verdict'].upper()}  {decision['reason']}  "
                f"{decision['time_to_decision_ms']:.0f} ms  {decision['frames_used']} frames"
                f"{'  SIMULATED camera' if decision['simulated'] else ''}")
    if kind == "guidance" or (kind == "session.state" and event.get("code")):
        return f"{session}   {guidance_text(event.get('code'))}"
    if kind == "device.status":
        return f"camera     {event['camera']}: {event['status']}"
    if kind == "security.alert":
        return f"ALERT      {event['code']} ({event['count']}): {event['detail']}"
    detail = event.get("phase") or event.get("reason") or event.get("camera") or event.get("code") or "all clear"
    return f"{session}   {kind}  {detail}"


def guidance_text(code: str | None) -> str:
    """For people; None = nothing to correct."""
    return "Thank you, hold on" if code is None else GUIDANCE_TEXT.get(code, "Please wait")


@contextmanager
def _connection(endpoint: str | None, bundle: Path | None, *, name: str,
                keys: list[str] | None = None, timeout_s: float = 2.0) -> Iterator[KioskClient]:
    """A client; says why and exits with 2 where no engine answers or the bundle cannot be used."""
    try:
        if bundle is not None and keys:
            raise typer.BadParameter("a bundle brings its own keys", param_hint="--key")
        if bundle is None and endpoint is None:
            raise typer.BadParameter("name the engine's endpoint, or a --bundle that does", param_hint="ENDPOINT")
        with (KioskClient(str(endpoint), name=name, timeout_s=timeout_s, signing_keys=keys) if bundle is None
              else KioskClient.from_bundle(str(bundle), endpoint=endpoint, name=name, timeout_s=timeout_s)) as client:
            yield client
    except KioskError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_NO_ENGINE) from error


def _print(event: dict[str, Any], as_json: bool) -> None:
    typer.echo(json.dumps(event) if as_json else describe(event))


@kiosk.command()
def watch(endpoint: Endpoint = None, bundle: Bundle = None, as_json: AsJson = False,
          seconds: Annotated[float | None, typer.Option(help="Stop after this long.")] = None) -> None:
    """Print every event of every session until stopped. Exit code 2: no engine answers."""
    end = None if seconds is None else time.monotonic() + seconds
    with suppress(KeyboardInterrupt), _connection(endpoint, bundle, name="mmdg kiosk watch") as client:
        client.hello()
        client.subscribe("")
        while end is None or time.monotonic() < end:
            event = client.next_event(0.2)
            if event is not None:
                _print(event, as_json)


@kiosk.command()
def begin(camera: Annotated[str, typer.Option(help="Name of the camera in the configuration.")],
          endpoint: Endpoint = None, bundle: Bundle = None,
          policy: Annotated[str, typer.Option(help="Name of the policy.")] = "default",
          deadline_ms: Annotated[int | None, typer.Option(help="Instead of the policy's.")] = None,
          accept_simulated: Annotated[bool, typer.Option(help="Let a simulated camera open: for tests.")] = False,
          keys: Keys = None, as_json: AsJson = False) -> None:
    """Run one session and print its decision.

    Exit code 0: the decision opens. 1: it does not. 2: no engine answers, or it refuses the session.
    """
    with _connection(endpoint, bundle, name="mmdg kiosk begin", keys=keys) as client:
        client.hello()
        client.subscribe()
        session = client.begin(camera, policy=policy, deadline_ms=deadline_ms)
        decision = client.wait_decision(
            session, lambda event: None if event.get("type") == "session.decision" else _print(event, as_json))
        opens = is_open(decision, session, accept_simulated=accept_simulated)
    if decision is None:
        typer.echo("no decision came: closed", err=True)
    else:
        _print({"type": "session.decision", "session_id": session.session_id, "decision": decision.fields,
                "opens": opens}, as_json)
    raise typer.Exit(EXIT_OPEN if opens else EXIT_CLOSED)


@kiosk.command()
def schema() -> None:
    """Print the JSON Schema of all messages; docs/kiosk-schema.json is this."""
    from pipeline.kiosk_schema import schema_text

    typer.echo(schema_text(), nl=False)


@kiosk.command()
def simulate(
    endpoint: Annotated[str, typer.Argument(
        help="Where to serve, such as ipc:///tmp/mmdg-kiosk/kiosk, whose directory is made with mode 700, or, with "
             "--keys, tcp://127.0.0.1:5560.")],
    scene: Annotated[str, typer.Option(
        help="bona_fide, print, screen, mask, doubtful, nobody, two_people.")] = "bona_fide",
    camera: Annotated[str, typer.Option(help="Its name.")] = "front",
    fault: Annotated[str, typer.Option(help="Such as stall:2s,drop:ir,skew:20ms,kill:inference.")] = "",
    role: Annotated[str, typer.Option(help="Of programs of your user, on ipc: monitor, kiosk, operator.")] = "kiosk",
    keys: Annotated[Path | None, typer.Option(
        help="A folder of mmdg keys init: clients on tcp are those of the folder, its signing key signs.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after this long.")] = None,
    as_json: AsJson = False,
) -> None:
    """Serve an engine without camera and network, for integrators: its scores are made up, its sockets are real.

    A second camera, NAME-slow, shows a scene that no evidence decides. Every decision says `simulated`: a client opens
    only if it was told to accept that. Exit code 2: it cannot be served.
    """
    from pipeline.channels import ChannelError
    from pipeline.kiosk_sockets import TransportSettings
    from pipeline.report_lines import render
    from pipeline.security import Role, SecurityError
    from pipeline.simulated_engine import SimulatedEngine, SimulatedEngineSettings
    from pipeline.synthetic_scene import SCENES, FaultError, parse_faults

    if scene not in SCENES:
        raise typer.BadParameter(f"{scene!r}; there are {', '.join(SCENES)}", param_hint="--scene")
    if role.upper() not in Role.__members__:
        raise typer.BadParameter(f"{role!r}; there are monitor, kiosk, operator", param_hint="--role")
    try:
        faults = parse_faults(fault)
    except FaultError as error:
        raise typer.BadParameter(str(error), param_hint="--fault") from error

    def on_report(line: str) -> None:
        if as_json:
            typer.echo(line)
        elif (text := render(json.loads(line), scores=False)) is not None:
            typer.echo(text)

    stop = {"asked": False}
    before = {number: signal.signal(number, lambda *_: stop.update(asked=True))
              for number in (signal.SIGINT, signal.SIGTERM)}
    end = None if seconds is None else time.monotonic() + seconds
    settings = SimulatedEngineSettings(endpoint=endpoint, cameras={camera: scene, f"{camera}-slow": "doubtful"},
                                       faults=faults, role=Role[role.upper()], seed=seed,
                                       transport=TransportSettings(keys=None if keys is None else str(keys)))
    try:
        with SimulatedEngine(settings, on_report) as engine:
            typer.echo(f"serving {endpoint}: cameras {camera} ({scene}) and {camera}-slow (doubtful); SIMULATED, "
                       "all scores are made up. Stop with Ctrl-C.", err=True)
            engine.serve(lambda: stop["asked"] or (end is not None and time.monotonic() >= end))
    except (ChannelError, SecurityError, TimeoutError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_NO_ENGINE) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@kiosk.command()
def conformance(
    endpoint: Endpoint = None,
    bundle: Bundle = None,
    camera: Annotated[str | None, typer.Option(help="To open sessions on. Default: the engine's first.")] = None,
    policy: Annotated[str, typer.Option(help="Name of the policy.")] = "default",
    keys: Keys = None,
    only: Annotated[list[str] | None, typer.Option(help="Names of checks; can be repeated.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for one answer.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Try every promise of the kiosk contract against a running engine, as a client would (about 20 s).

    Opens some ten sessions on its cameras: not for an engine that is serving people. Exit code 0: no promise was
    broken. 1: one was. 2: no engine answers.
    """
    from pipeline.kiosk_conformance import Kit, Outcome, run_checks
    from pipeline.kiosk_promises import CHECKS, named

    try:
        wanted = named(only or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--only") from error

    def on_outcome(outcome: Outcome) -> None:
        if as_json:
            typer.echo(json.dumps({field: getattr(outcome, field) for field in outcome.__dataclass_fields__}))
        elif sys.stderr.isatty():
            typer.echo(f"{outcome.result}  {outcome.name}", err=True)

    with _connection(endpoint, bundle, name="mmdg kiosk conformance", keys=keys, timeout_s=timeout) as client:
        client.hello()
        kit = Kit(endpoint=client.endpoint, camera=camera, policy=policy, timeout_s=timeout, curve=client.curve,
                  signing_keys=keys if bundle is None else KioskBundle.read(str(bundle)).trusted())
    outcomes = run_checks(kit, CHECKS, only=wanted, on_outcome=on_outcome)
    if not as_json:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 160).print(_table(outcomes))
    raise typer.Exit(1 if any(outcome.result == "fail" for outcome in outcomes) else 0)


def _table(outcomes: list[Any]) -> RenderableType:
    from rich.table import Table

    table = Table("promise", "result", "why", "s", title=f"kiosk contract: {len(outcomes)} checks")
    colours = {"pass": "green", "fail": "red", "skip": "yellow"}
    for outcome in outcomes:
        table.add_row(outcome.promise, f"[{colours[outcome.result]}]{outcome.result}[/]", outcome.why,
                      f"{outcome.took_s:.1f}")
    return table


def register(app: typer.Typer) -> None:
    """Add `kiosk` to the `mmdg` command line."""
    app.add_typer(kiosk, name="kiosk")
