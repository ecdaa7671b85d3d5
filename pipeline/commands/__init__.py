"""The `mmdg` command line: one thin file a command.

Heavy libraries load inside the commands, so `--help` is instant.
"""

from __future__ import annotations

import typer

from pipeline.commands import record, sessions

app = typer.Typer(
    name="mmdg", no_args_is_help=True, pretty_exceptions_enable=False,
    help="Tools around mmdg-live: record and inspect sessions, check this machine, talk to the kiosk socket.",
)
record.register(app)
sessions.register(app)


def main() -> None:
    """Entry point of `mmdg`."""
    app()
