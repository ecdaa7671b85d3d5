"""The `mmdg` command line: one thin file a command. Heavy libraries load inside the commands: `--help` is instant."""

from __future__ import annotations

import typer

from pipeline.commands import (
    audit,
    benchmark,
    data,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    kiosk,
    pretrain,
    record,
    report,
    sensitivity,
    sessions,
    simulate,
    train,
    weights,
)

app = typer.Typer(
    name="mmdg", no_args_is_help=True, pretty_exceptions_enable=False,
    help="Tools around mmdg-live: record and inspect sessions, check this machine, train, evaluate and export "
         "models, make simulated data, talk to the kiosk socket.",
)


@app.callback()
def _group() -> None:
    """Keeps `mmdg NAME` a group of commands, however few are registered."""


for _command in (audit, benchmark, data, demo, doctor, evaluate, explain, export, kiosk, pretrain,
                 record, report, sensitivity, sessions, simulate, train, weights):
    _command.register(app)


def main() -> None:
    """Entry point of `mmdg`."""
    app()
