"""`mmdg simulate session | films | calibrate | evaluate | sweep`: simulated sessions, recorded and judged."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline.commands.session_options import SpeciesWeighting, named_calibration
from pipeline.commands.session_options import calibration_facts as _calibration_facts
from pipeline.commands.session_options import chosen_model as _model
from pipeline.commands.session_options import failing as _failing
from pipeline.commands.session_options import named_policy as _policy
from pipeline.commands.session_options import progress_bar as _bar
from pipeline.commands.session_options import typed as _typed

if TYPE_CHECKING:
    from mmdg_model.training.samples import Split
    from pipeline.simulated_sessions.plan import PlannedSession, SessionOptions
    from pipeline.simulated_sessions.studio import StudioOutcome

Progress = Callable[[int, int], None]
_CAMERA = "pipeline.simulated_sessions.presentation:session_camera"

Out = Annotated[Path, typer.Argument(metavar="OUT", help="a new folder, or one that the same command began")]
Scenes = Annotated[str, typer.Option("--scenes", help="bona_fide and species, separated by commas; `main`: bona_fide "
                                                      "and one or two species of each family; `all`: every species")]
SplitName = Annotated[str, typer.Option("--split", help="val (to calibrate on) or test (to judge by): other people, "
                                                        "heads and instruments")]
Count = Annotated[int, typer.Option("--count", min=1, help="sessions of each scene, each of another person")]
LiveCount = Annotated[int | None, typer.Option("--live", min=1, help="bona fide sessions, where they are to be others "
                                                                     "than --count")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="another seed shows other people")]
Frames = Annotated[int, typer.Option("--frames", min=1, help="frame sets of a session")]
Rate = Annotated[float, typer.Option("--rate", help="frame sets a second")]
Distance = Annotated[str, typer.Option("--distance", help="of the face in metres: NEAR-FAR or one number")]
Profile = Annotated[str | None, typer.Option("--profile", help="kind of camera; by default units of d4xx and "
                                                               "d4xx_projector")]
HeldOut = Annotated[bool, typer.Option("--held-out-heads", help="people of the family of heads that is never trained "
                                                                "on")]
Factory = Annotated[str, typer.Option("--camera", help="module:function that makes the camera of a session, for "
                                                       "another renderer")]
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="processes; one a core by default")]
CropSize = Annotated[int, typer.Option("--crop-size", help="side of the crops in pixels, as the network takes them")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON line")]
Model = Annotated[Path | None, typer.Option("--model", help="checkpoint; the shipped weights by default")]


def add_to(simulate: typer.Typer) -> None:
    """Add the commands to `mmdg simulate`."""
    simulate.command("session")(session_command)
    simulate.command("films")(films_command)
    simulate.command("calibrate")(calibrate_command)
    simulate.command("evaluate")(evaluate_command)
    simulate.command("sweep")(sweep_command)


def session_command(out: Out, scenes: Scenes = "bona_fide", split: SplitName = "test", count: Count = 1,
                    live: LiveCount = None, seed: Seed = 0, frames: Frames = 50, rate: Rate = 10.0,
                    distance: Distance = "0.35-1.0", profile: Profile = None, held_out_heads: HeldOut = False,
                    camera: Factory = _CAMERA, jobs: Jobs = None, as_json: AsJson = False) -> None:
    """Record simulated sessions as files of `mmdg record`, for mmdg-live --camera replay:FILE, with an index of truth.

    Run it again to go on after an interruption.

    Exit codes: 0 complete, 1 failed (the reason is printed), 2 wrong usage.
    """
    from pipeline.simulated_sessions.studio import announce, record_sessions, recording_path

    console, jobs = Console(stderr=True), jobs or os.cpu_count() or 1
    with _failing(console):
        planned = _plan(scenes, split, count, live, _options(seed, frames, rate, distance, profile, held_out_heads))
        _announce(console, "recordings", announce(planned, jobs, recordings=True), jobs)
        with _bar(console, "recordings") as show:
            outcome = record_sessions(out, planned, jobs=jobs, factory=camera, on_progress=show)
    _say(out, outcome, as_json, files=[str(recording_path(out, each.key)) for each in planned])


def films_command(out: Out, scenes: Scenes = "main", split: SplitName = "test", count: Count = 150,
                  live: LiveCount = None, seed: Seed = 0, frames: Frames = 16, rate: Rate = 10.0,
                  distance: Distance = "0.35-1.0", profile: Profile = None, held_out_heads: HeldOut = False,
                  camera: Factory = _CAMERA, crop_size: CropSize = 112, jobs: Jobs = None,
                  as_json: AsJson = False) -> None:
    """Film simulated sessions through the live camera step and keep the crops, for any number of networks to score.

    Run it again to go on after an interruption, or with a larger --count to add sessions.

    Exit codes: 0 complete, 1 failed (the reason is printed), 2 wrong usage.
    """
    from pipeline.simulated_sessions.studio import announce, make_films

    console, jobs = Console(stderr=True), jobs or os.cpu_count() or 1
    with _failing(console):
        planned = _plan(scenes, split, count, live, _options(seed, frames, rate, distance, profile, held_out_heads))
        _announce(console, "films", announce(planned, jobs), jobs)
        with _bar(console, "films") as show:
            outcome = make_films(out, planned, jobs=jobs, crop_size=crop_size, factory=camera, on_progress=show)
    _say(out, outcome, as_json)


def calibrate_command(
    films: Annotated[Path, typer.Argument(metavar="FILMS", help="validation sessions of mmdg simulate films")],
    model: Model = None,
    out: Annotated[Path, typer.Option("--out", help="file to write")] = Path("operating_point.json"),
    policy: Annotated[Path | None, typer.Option("--policy", help="YAML of a policy; the simulated one by "
                                                                 "default")] = None,
    apcer: Annotated[float, typer.Option("--apcer", min=0.0, max=0.5, help="largest share of any species' sessions "
                                                                           "accepted")] = 0.05,
    species_weights: SpeciesWeighting = "balanced", jobs: Jobs = None, as_json: AsJson = False,
) -> None:
    """Fit scale, offset, frame correlation and threshold of a checkpoint's scores on validation sessions.

    Exit codes: 0 written, 1 not possible (the reason is printed), 2 wrong usage.
    """
    from mmdg_model.operating_point import write_operating_point
    from pipeline.simulated_sessions.calibrating import calibrate
    from pipeline.simulated_sessions.film import load_record
    from pipeline.simulated_sessions.scoring import model_facts, score_sessions
    from pipeline.simulated_sessions.studio import film_path, read_index

    console, jobs = Console(stderr=True), jobs or os.cpu_count() or 1
    with _failing(console):
        model = _model(model)
        facts = model_facts(model)
        records = [load_record(film_path(films, truth.key)) for truth in read_index(films)]
        with _bar(console, "scores") as show:
            scores = score_sessions(films, records, model, facts, jobs=jobs, on_progress=show)
        found = calibrate(records, scores, _policy(policy, facts), facts.info, command=_typed(), apcer_target=apcer,
                          species_weights=species_weights)
        write_operating_point(found.point, out)
    point = found.point
    if as_json:
        sys.stdout.write(json.dumps({**point.to_dict(), "file": str(out), "worst_species": found.worst_species,
                                     "wald_bound": found.wald_bound, "apcer_by_species": found.apcer}) + "\n")
        return
    sys.stdout.write(
        f"{out}: LLR = {point.logit_scale:.4g} · logit {point.logit_offset:+.4g}, frame correlation "
        f"{point.frame_correlation:.3f}, threshold {point.threshold:.3f} nats (Wald's bound {found.wald_bound:.3f})\n"
        f"on {point.sessions} simulated validation sessions: worst species {found.worst_species}, APCER "
        f"{point.apcer:.1%}; BPCER {point.bpcer:.1%} of {found.live} bona fide sessions\n")


def evaluate_command(
    films: Annotated[Path, typer.Argument(metavar="FILMS", help="sessions of mmdg simulate films")],
    model: Model = None,
    operating_point: Annotated[Path | None, typer.Option(help="file of mmdg simulate calibrate; the checkpoint's own "
                                                              "by default")] = None,
    calibration: Annotated[Path | None, typer.Option("--calibration", help="file of mmdg calibrate score, instead of "
                                                                           "an operating point")] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="YAML of a policy; the simulated one by "
                                                                 "default")] = None,
    out: Annotated[Path, typer.Option("--out", help="folder of the report")] = Path("out/session_report"),
    jobs: Jobs = None, as_json: AsJson = False,
) -> None:
    """Judge every session with the real decision step: APCER by species, BPCER by group, time to decision, bounds.

    Each look at test sessions is written to openings.jsonl beside them before any figure is computed.

    Exit codes: 0 evaluated, 1 not possible (the reason is printed), 2 wrong usage.
    """
    from mmdg_model.operating_point import read_operating_point
    from mmdg_model.training.samples import Split
    from pipeline.simulated_sessions.evaluation import evaluate
    from pipeline.simulated_sessions.film import load_record
    from pipeline.simulated_sessions.judging import judge
    from pipeline.simulated_sessions.openings import open_test_set
    from pipeline.simulated_sessions.report import write_report
    from pipeline.simulated_sessions.scoring import model_facts, score_sessions
    from pipeline.simulated_sessions.studio import film_path, read_index, sessions_hash
    from pipeline.verdict import ModelInfo

    console, jobs = Console(stderr=True), jobs or os.cpu_count() or 1
    with _failing(console):
        model = _model(model)
        facts = model_facts(model)
        point = read_operating_point(operating_point) if operating_point is not None else facts.operating_point
        info = ModelInfo(model_hash=facts.info.model_hash, purpose=facts.info.purpose, operating_point=point)
        chosen = _policy(policy, facts)
        if calibration is not None and operating_point is not None:
            raise typer.BadParameter("contradicts --operating-point; both make logits evidence",
                                     param_hint="--calibration")
        file = named_calibration(calibration, facts, chosen, str(policy or "policy"), simulated=True)
        point = point if file is None else None
        calibration_id, _ = _calibration_facts(file, point)
        truths, identity = read_index(films), sessions_hash(films)
        tested = any(truth.split == Split.TEST for truth in truths)
        openings = open_test_set(films, checkpoint=info.model_hash, operating_point=calibration_id, sessions=identity,
                                 number=len(truths), command=_typed()) if tested else []
        if openings:
            console.print(f"opening number {len(openings)} of this simulated test set", highlight=False)
        records = [load_record(film_path(films, truth.key)) for truth in truths]
        with _bar(console, "scores") as show:
            scores = score_sessions(films, records, model, facts, jobs=jobs, on_progress=show)
        judged = [judge(record, scores[record.truth.key], chosen, info, calibration=file) for record in records]
        evaluation = evaluate(judged, chosen.calibrated(point))
        described: dict[str, Any] = {
            "command": _typed(), "checkpoint": info.model_hash, "purpose": info.purpose.value,
            "sessions_sha256": identity, "splits": ", ".join(sorted({truth.split for truth in truths})),
            "test_set_opened": len(openings),
            "calibration_id": calibration_id, "operating_point": None if point is None else point.to_dict(),
            "policy": {"name": chosen.name, "apcer_max": chosen.apcer_max, "bpcer_max": chosen.bpcer_max,
                       "min_frames": chosen.min_frames, "min_time_ms": chosen.min_time_ms, "llr_clip": chosen.llr_clip,
                       "uncertainty_weight": chosen.uncertainty_weight, "deadline_ms": chosen.deadline_ms}}
        page = write_report(out, evaluation, judged, described)
    sys.stdout.write(((out / "evaluation.json").read_text(encoding="utf-8") if as_json
                      else page.read_text(encoding="utf-8")) + "\n")


def sweep_command(
    out: Out,
    parameter: Annotated[str, typer.Option(help="distance_m, yaw_deg, pitch_deg, light, room_infrared, noise, missing "
                                                "or profile")],
    values: Annotated[str | None, typer.Option(help="separated by commas; a usual range by default")] = None,
    model: Model = None, scenes: Scenes = "main", count: Count = 20, seed: Seed = 1, frames: Frames = 8,
    rate: Rate = 10.0,
    operating_point: Annotated[Path | None, typer.Option(help="file of mmdg simulate calibrate; the checkpoint's own "
                                                              "by default")] = None,
    calibration: Annotated[Path | None, typer.Option(help="file of mmdg calibrate score, instead of an operating "
                                                          "point")] = None,
    jobs: Jobs = None,
) -> None:
    """Film, score and judge the same sessions with one circumstance changed; writes OUT/PARAMETER.csv, a row a frame.

    Exit codes: 0 complete, 1 failed (the reason is printed), 2 wrong usage.
    """
    from dataclasses import replace

    from calibration.operating_point_file import read_operating_point_file
    from mmdg_model.operating_point import read_operating_point
    from pipeline.simulated_sessions.evaluation import Outcomes
    from pipeline.simulated_sessions.plan import SessionOptions
    from pipeline.simulated_sessions.scoring import model_facts
    from pipeline.simulated_sessions.sweep import SWEEPS, sweep

    console, jobs = Console(stderr=True), jobs or os.cpu_count() or 1
    if parameter not in SWEEPS:
        raise typer.BadParameter(f"{parameter!r}, expected one of {', '.join(SWEEPS)}", param_hint="--parameter")
    with _failing(console):
        model = _model(model)
        facts = model_facts(model)
        if operating_point is not None:
            facts = replace(facts, info=replace(facts.info, operating_point=read_operating_point(operating_point)))
        file = None
        if calibration is not None:
            file = read_operating_point_file(calibration, model_sha256=facts.info.model_hash)
        with _bar(console, "sessions") as show:
            points = sweep(parameter, values.split(",") if values else SWEEPS[parameter], root=out,
                           scenes=_scenes(scenes), count=count, model=model, facts=facts, policy=_policy(None, facts),
                           options=SessionOptions(seed=seed, frames=frames, frame_rate=rate), jobs=jobs,
                           calibration=file, on_progress=lambda what, done, total: show(done, total))
    counted = ("sessions", "accepted", "rejected", "undecided", "non_response", "frames", "missed")
    lines = ["simulated sessions", f"{parameter},species,{','.join(counted)}"]
    for point in points:
        for species in dict.fromkeys(each.truth.species for each in point.judged):
            each = Outcomes.of([one for one in point.judged if one.truth.species == species])
            lines.append(f"{point.value},{species},{','.join(str(getattr(each, name)) for name in counted)}")
    sys.stdout.write("\n".join(lines) + f"\n{out / parameter}.csv has every frame's score\n")


def _options(seed: int, frames: int, rate: float, distance: str, profile: str | None,
             held_out_heads: bool) -> SessionOptions:
    from capture.simulated.profiles import sensor_profile
    from pipeline.simulated_sessions.plan import SessionOptions

    if profile is not None:
        sensor_profile(profile)  # says now which there are
    near, _, far = distance.partition("-")
    try:
        limits = (float(near), float(far or near))
    except ValueError:
        raise typer.BadParameter(f"{distance!r}, expected metres such as 0.35-1.0", param_hint="--distance") from None
    return SessionOptions(seed=seed, frames=frames, frame_rate=rate, distance_m=limits, profile=profile,
                          held_out_heads=held_out_heads)


def _scenes(text: str) -> tuple[str, ...]:
    from mmdg_model.training.samples import BONA_FIDE
    from pipeline.simulated_sessions.plan import MAIN_SPECIES, known_species

    if text == "main":
        return (BONA_FIDE, *MAIN_SPECIES)
    return (BONA_FIDE, *known_species()) if text == "all" else tuple(text.split(","))


def _plan(scenes: str, split: str, count: int, live: int | None,
          options: SessionOptions) -> tuple[PlannedSession, ...]:
    from mmdg_model.training.samples import BONA_FIDE
    from pipeline.simulated_sessions.plan import plan_sessions

    names, which = _scenes(scenes), _split(split)
    if live is None or BONA_FIDE not in names:
        return plan_sessions(names, which, count, options)
    attacks = [name for name in names if name != BONA_FIDE]
    return (*plan_sessions([BONA_FIDE], which, live, options),
            *(plan_sessions(attacks, which, count, options) if attacks else ()))


def _split(name: str) -> Split:
    from mmdg_model.training.samples import Split

    if name not in (Split.VALIDATION, Split.TEST):
        raise typer.BadParameter(f"{name!r}, expected {Split.VALIDATION} or {Split.TEST}", param_hint="--split")
    return Split(name)


def _announce(console: Console, what: str, expected: Any, jobs: int) -> None:
    console.print(f"simulated sessions: {expected.sessions} {what}, about {expected.megabytes:.0f} MB, about "
                  f"{expected.minutes:.1f} min with {jobs} processes on cores of their own", highlight=False,
                  soft_wrap=True)


def _say(out: Path, outcome: StudioOutcome, as_json: bool, files: Sequence[str] = ()) -> None:
    if as_json:
        sys.stdout.write(json.dumps({
            "simulated": True, "root": str(out), "sessions": outcome.sessions, "bytes": outcome.bytes,
            "frames": dict(outcome.frames), "missed": dict(outcome.missed), "files": list(files)}) + "\n")
        return
    lines = [f"no single face found: {species} {outcome.missed[species]} of {frames} frames"
             for species, frames in outcome.frames.items() if species in outcome.missed]
    lines.append(f"{out}: {outcome.sessions} simulated sessions, {outcome.bytes / 1e6:.1f} MB; truth in index.json")
    sys.stdout.write("\n".join(lines) + "\n")
