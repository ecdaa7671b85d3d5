"""`mmdg kiosk watch` and `mmdg kiosk begin`: talk to the kiosk socket of a running engine."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from pipeline.kiosk_client import KioskClient, KioskError, is_open

kiosk = typer.Typer(no_args_is_help=True, help="Talk to the kiosk socket of a running engine.")

Endpoint = Annotated[str, typer.Argument(help="The engine's kiosk endpoint, such as ipc:///run/mmdg/kiosk.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of text.")]

#: Exit codes of `mmdg kiosk begin`: only the first may open anything.
EXIT_OPEN, EXIT_CLOSED, EXIT_NO_ENGINE = 0, 1, 2


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
    detail = event.get("phase") or event.get("reason") or event.get("camera") or event.get("code") or "all clear"
    return f"{session}   {kind}  {detail}"


def _print(event: dict[str, Any], as_json: bool) -> None:
    typer.echo(json.dumps(event) if as_json else describe(event))


@kiosk.command()
def watch(endpoint: Endpoint, as_json: AsJson = False,
          seconds: Annotated[float | None, typer.Option(help="Stop after this long.")] = None) -> None:
    """Print every event of every session until stopped. Exit code 2: no engine answers."""
    end = None if seconds is None else time.monotonic() + seconds
    with KioskClient(endpoint, name="mmdg kiosk watch") as client:
        try:
            client.hello()
            client.subscribe("")
            while end is None or time.monotonic() < end:
                event = client.next_event(0.2)
                if event is not None:
                    _print(event, as_json)
        except KioskError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(EXIT_NO_ENGINE) from error
        except KeyboardInterrupt:
            return


@kiosk.command()
def begin(endpoint: Endpoint, camera: Annotated[str, typer.Option(help="Name of the camera in the configuration.")],
          policy: Annotated[str, typer.Option(help="Name of the policy.")] = "default",
          deadline_ms: Annotated[int | None, typer.Option(help="Instead of the policy's.")] = None,
          accept_simulated: Annotated[bool, typer.Option(help="Let a simulated camera open: for tests.")] = False,
          as_json: AsJson = False) -> None:
    """Run one session and print its decision.

    Exit code 0: the decision opens. 1: it does not. 2: no engine answers, or it refuses the session.
    """
    with KioskClient(endpoint, name="mmdg kiosk begin") as client:
        try:
            client.hello()
            client.subscribe()
            session = client.begin(camera, policy=policy, deadline_ms=deadline_ms)
            decision = client.wait_decision(
                session, lambda event: None if event.get("type") == "session.decision" else _print(event, as_json))
        except KioskError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(EXIT_NO_ENGINE) from error
        opens = is_open(decision, session, accept_simulated=accept_simulated)
    if decision is None:
        typer.echo("no decision came: closed", err=True)
    else:
        _print({"type": "session.decision", "session_id": session.session_id, "decision": decision.fields,
                "opens": opens}, as_json)
    raise typer.Exit(EXIT_OPEN if opens else EXIT_CLOSED)


def register(app: typer.Typer) -> None:
    """Add `kiosk` to the `mmdg` command line."""
    app.add_typer(kiosk, name="kiosk")
