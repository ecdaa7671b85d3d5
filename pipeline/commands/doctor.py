"""`mmdg doctor`: is this machine fit?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import doctor


def register(app: typer.Typer) -> None:
    """Add the command to `mmdg`."""

    @app.command("doctor")
    def doctor_command(
        as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
        model: Annotated[Path | None, typer.Option("--model", help="The checkpoint to judge.")] = None,
    ) -> None:
        """Check libraries, cameras, model and machine.

        Exit codes: 0 fit (warnings allowed), 1 a check failed, 2 wrong usage.
        """
        checks = doctor.examine(model)
        typer.echo(doctor.report(checks, as_json=as_json))
        raise typer.Exit(doctor.exit_code(checks))
