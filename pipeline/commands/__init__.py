"""The `mmdg` command line: one thin file a command. Heavy libraries load inside the commands: `--help` is instant."""

from __future__ import annotations

import typer

from pipeline.commands import (
    audit,
    benchmark,
    calibrate,
    data,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    keys,
    kiosk,
    policy,
    pretrain,
    record,
    report,
    search,
    sensitivity,
    sessions,
    simulate,
    train,
    weights,
)

app = typer.Typer(
    name="mmdg", no_args_is_help=True, pretty_exceptions_enable=False,
    help="Tools around mmdg-live: record and inspect sessions, check this machine, train, evaluate and export "
         "models, make simulated data, talk to the kiosk socket, keep its keys.",
)


@app.callback()
def _group() -> None:
    """Keeps `mmdg NAME` a group of commands, however few are registered."""


for _command in (audit, benchmark, calibrate, data, demo, doctor, evaluate, explain, export, keys, kiosk, policy,
                 pretrain, record, report, search, sensitivity, sessions, simulate, train, weights):
    _command.register(app)


def main() -> None:
    """Entry point of `mmdg`."""
    app()
