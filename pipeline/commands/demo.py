"""`mmdg demo`: what the pipeline does with simulated people and attacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for contact_sheet.png and report.json.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated scenes: who, and in what room. 1 is an ordinary "
                                                 "room; 0 a dim one with the sun in it and a hand at the chin.")] = 1,
    model: Annotated[Path | None, typer.Option(help="Checkpoint. Default: the installed one.")] = None,
) -> None:
    """Run simulated scenes (bona fide, print, screen, mask) through the real processes and show what came out.

    Exit codes: 0 all scenes ran and none was judged wrong, 1 one failed, a person was refused or an attack accepted.
    An untrained checkpoint leaves everything undecided, which is right of it.
    """
    from rich.console import Console
    from rich.table import Column, Table

    from pipeline.demo import NO_WEIGHTS, SCENES, SIMULATED_WEIGHTS, demonstrate, draw_contact_sheet

    screen, progress = Console(), Console(stderr=True)
    if not screen.is_terminal:
        screen.width = 110  # a log has no edge to wrap at
    outcomes = []
    with progress.status(f"{SCENES[0]} ...") as status:
        for outcome in demonstrate(seed, model):
            outcomes.append(outcome)
            if len(outcomes) < len(SCENES):
                status.update(f"{SCENES[len(outcomes)]} ... ({len(outcomes)} of {len(SCENES)} scenes done)")
    trained = any(outcome.may_decide for outcome in outcomes)
    screen.print(SIMULATED_WEIGHTS if trained else NO_WEIGHTS, style="yellow", markup=False)
    verdicts = Table("scene", "expected", "verdict", "", Column("reason", no_wrap=True), "camera time", "frames",
                     Column("logit min .. max", no_wrap=True),
                     title=f"outcomes (simulated scenes, {'simulated training' if trained else 'untrained network'})")
    colours = {"right": "green", "wrong": "red", "open": "yellow"}
    stages = Table(Column("stage", no_wrap=True), *(Column(o.scene, no_wrap=True) for o in outcomes),
                   title="stage latencies, p50 / p95 in ms")
    for outcome in outcomes:
        decision, logits = outcome.decision, [logit for _, logit in outcome.scores]
        spread = f"{min(logits):.2f} .. {max(logits):.2f}" if logits else "-"
        if decision is None:
            verdicts.add_row(outcome.scene, outcome.expected, "[red]failed[/red]", "", "see below", "-", "-", spread)
        else:
            mark = f"[{colours[outcome.judgement]}]{outcome.judgement if trained else '-'}[/]"
            verdicts.add_row(outcome.scene, outcome.expected, f"{decision['verdict']} \\[simulated]", mark,
                             decision["reason"],
                             f"{decision['time_to_decision_ms'] / 1e3:.2f} s", str(decision["frames_used"]), spread)
    for stage in next((o.latencies_ms for o in outcomes if o.latencies_ms), {}):
        cells = [o.latencies_ms.get(stage) for o in outcomes]
        stages.add_row(stage, *(f"{c['p50']:.1f} / {c['p95']:.1f}" if c else "-" for c in cells))
    screen.print(verdicts)
    screen.print(stages)
    draw_contact_sheet(outcomes, out / "contact_sheet.png")
    (out / "report.json").write_text(json.dumps(
        [{"scene": o.scene, "simulated": True, "expected": o.expected, "judgement": o.judgement,
          "decision": o.decision, "scores": o.scores, "latencies_ms": o.latencies_ms, "drops": o.drops,
          "error": o.error} for o in outcomes], indent=1) + "\n")
    screen.print(f"contact sheet: {out / 'contact_sheet.png'}   figures: {out / 'report.json'}")
    for outcome in outcomes:
        if outcome.error is not None:
            progress.print(f"{outcome.scene} failed:\n{outcome.error}", style="red", highlight=False, markup=False)
    for outcome in outcomes:
        if outcome.judgement == "wrong" and outcome.decision is not None:
            progress.print(f"{outcome.scene}: {outcome.decision['verdict']} where {outcome.expected} is right",
                           style="red", highlight=False, markup=False)
    if any(o.error or o.judgement == "wrong" for o in outcomes):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command to `mmdg`."""
    app.command()(demo)
