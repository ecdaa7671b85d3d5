"""`mmdg policy compile | show | floor`: accept thresholds that sessions vouch for, and the floor under the time."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pipeline.policy_compiler import CompiledPolicy


def register(app: typer.Typer) -> None:
    """Add the group to `mmdg`."""
    policy = typer.Typer(no_args_is_help=True, help="Compile a policy to a threshold with its evidence, show one, "
                                                    "print the floor under the time to a decision.")
    policy.command("compile")(compile_command)
    policy.command("show")(show_command)
    policy.command("floor")(floor_command)
    app.add_typer(policy, name="policy")


def compile_command(
    policy: Annotated[Path, typer.Argument(metavar="POLICY.yaml", help="apcer_max, bpcer_max, deadline_ms, ... : "
                                                                       "docs/decisions.md")],
    sessions: Annotated[list[Path], typer.Argument(metavar="SESSIONS...", help="folders of mmdg simulate films or of "
                                                                               "labelled recordings, not of the test "
                                                                               "split")],
    out: Annotated[Path, typer.Option("--out", help="the compiled policy, JSON")],
    model: Annotated[Path | None, typer.Option("--model", help="checkpoint; the shipped weights by default")] = None,
    calibration: Annotated[Path | None, typer.Option(
        "--calibration", metavar="FILE", help="of mmdg calibrate score; the threshold then counts with this file "
                                              "alone. Default: the checkpoint's own operating point")] = None,
    calibrated_on: Annotated[list[Path] | None, typer.Option(
        "--calibrated-on", metavar="DIR", help="sessions that the scores were calibrated on: they may not be among "
                                               "SESSIONS; may be repeated")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="processes; one a core by default")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the compiled policy")] = False,
) -> None:
    """Choose the loosest accept threshold at which the sessions show that every species keeps apcer_max.

    Learn then Test over a fixed sequence of thresholds, exact binomial tests per species, the worst species decides.
    What the sessions cannot show is refused, with the number of sessions that it takes.

    Exit codes: 0 written, 1 refused (the reason is printed), 2 wrong usage.
    """
    import msgspec

    from pipeline.commands.session_options import failing
    from pipeline.policy_compiler import write_compiled

    console = Console(stderr=True)
    with failing(console):
        compiled = _compile(console, policy, sessions, model, calibration, calibrated_on, jobs or os.cpu_count() or 1)
        write_compiled(compiled, out)
    if as_json:
        sys.stdout.write(msgspec.json.encode(compiled).decode() + "\n")
        return
    sys.stdout.write(f"{out}\n{describe(compiled)}")


def show_command(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="of mmdg policy compile")],
) -> None:
    """Check a compiled policy and print what it rests on. Exit codes: 0 sound, 1 not."""
    from pipeline.policy_compiler import CompiledPolicyError, read_compiled

    try:
        compiled = read_compiled(path)
    except CompiledPolicyError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    sys.stdout.write(describe(compiled))


def floor_command(
    policy: Annotated[Path | None, typer.Option(
        "--policy", metavar="FILE", help="YAML of a policy, or a compiled one; the default policy otherwise")] = None,
    correlation: Annotated[list[float] | None, typer.Option(
        "--correlation", min=0.0, max=0.999, help="of successive scored frames; may be repeated; by default the "
                                                  "policy's and 0, 0.5, 0.9, 0.95, 0.97")] = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, help="scored frames a second")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Print the least time to acceptance and rejection: every score at the clip, none uncertain.

    Evidence per second is bounded by clip · n_eff(ρ); no network and no computer decides sooner.

    Exit codes: 0 printed, 1 no such policy.
    """
    import json

    import msgspec

    from pipeline.policy import PolicyError
    from pipeline.sequential_test import fewest_frames, floor_ms

    try:
        chosen = _policy(policy)
    except (PolicyError, OSError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    rows = []
    for rho in correlation or sorted({chosen.correlation, 0.0, 0.5, 0.9, 0.95, 0.97}):
        one = msgspec.structs.replace(chosen, frame_correlation=rho)
        accept, reject = one.upper_bound, -one.lower_bound
        rows.append({"correlation": rho, "accept_frames": fewest_frames(one, bound=accept),
                     "accept_ms": floor_ms(one, 1e3 / rate, accept), "reject_frames": fewest_frames(one, bound=reject),
                     "reject_ms": floor_ms(one, 1e3 / rate, reject)})
    if as_json:
        sys.stdout.write(json.dumps({"policy": chosen.name, "rate": rate, "floors": rows}) + "\n")
        return
    sys.stdout.write(f"policy {chosen.name}: accept at {chosen.upper_bound:.3f} nats, reject at "
                     f"{chosen.lower_bound:.3f}, clip {chosen.llr_clip:g} nats a frame, {rate:g} scored frames a "
                     f"second, deadline {chosen.deadline_ms} ms\n{'rho':>6} {'accept':>22} {'reject':>22}\n")
    for row in rows:
        sys.stdout.write(f"{row['correlation']:>6.3g} {_floor(row, 'accept'):>22} {_floor(row, 'reject'):>22}\n")


def _floor(row: dict[str, Any], side: str) -> str:
    frames, time_ms = row[f"{side}_frames"], row[f"{side}_ms"]
    return "out of reach" if frames is None else f"{frames} frames, {time_ms:.0f} ms"


def describe(compiled: CompiledPolicy) -> str:
    """A compiled policy for people."""
    request, source, live = compiled.request, compiled.provenance, compiled.bona_fide
    worst = compiled.species[compiled.worst_species]
    demanded = "none demanded" if request.bpcer_max is None else f"demanded: {request.bpcer_max:g}"
    floor = "out of reach" if compiled.floor_ms is None else f"{compiled.floor_ms:.0f} ms"
    apart = {True: "was calibrated on other sessions", False: "was calibrated on these sessions",
             None: "may have been calibrated on these sessions (--calibrated-on would tell)"}
    lines = [f"{'SIMULATED sessions; ' if source.simulated else ''}policy {request.name}"]
    lines.append(f"threshold_id {compiled.threshold_id}")
    lines.append(f"accept at {compiled.threshold:.3f} nats (the policy's own bound: {compiled.policy.upper_bound:.3f})"
                 f": every species has APCER <= {request.apcer_max:g} at {request.confidence:.0%} confidence")
    lines.append(f"worst species: {compiled.worst_species}, {worst.accepted} of {worst.sessions} sessions accepted, "
                 f"APCER <= {worst.upper_bound:.4f}; {worst.accepted_people} of {worst.people} people, <= "
                 f"{worst.people_upper_bound:.4f}")
    lines.append(f"bona fide: {live.refused} of {live.sessions} sessions refused, BPCER <= {live.upper_bound:.4f} "
                 f"({demanded}); {live.refused_people} of {live.people} people refused at least once, <= "
                 f"{live.people_upper_bound:.4f}")
    if live.people < live.sessions or any(each.people < each.sessions for each in compiled.species.values()):
        lines.append("Several sessions are of one person: bounds on sessions take them as if they were of several, "
                     "those on people do not.")
    lines.append(f"floor of the time to acceptance: {floor}, deadline {request.deadline_ms} ms")
    calibration = {"file": f"calibration file {source.calibration_id}", "none": "no calibration",
                   "checkpoint": f"the checkpoint's own operating point {source.calibration_id}"}[source.calibration]
    lines.append(f"checkpoint {source.model_hash} ({source.purpose.value}), {calibration}, "
                 f"{apart[source.apart_from_calibration]}")
    lines.append(f"kinds of camera: {', '.join(source.camera_kinds)}")
    lines.append(f"\n{'species':<24} {'sessions':>8} {'people':>7} {'no response':>12} {'accepted':>9} {'APCER <=':>9} "
                 f"{'p':>8} {'people <=':>10}")
    lines += [f"{name:<24} {each.sessions:>8} {each.people:>7} {each.non_response:>12} {each.accepted:>9} "
              f"{each.upper_bound:>9.4f} {each.p_value:>8.4f} {each.people_upper_bound:>10.4f}"
              for name, each in compiled.species.items()]
    lines.append("\nNo guarantee for species, instruments, cameras or places that are not among these sessions.\n")
    return "\n".join(lines)


def _policy(path: Path | None) -> Any:
    from pipeline.policy import Policy, PolicyError, parse_policy
    from pipeline.policy_compiler import parse_request, read_compiled

    if path is None:
        return Policy()
    if path.suffix == ".json":
        return read_compiled(path).in_force()
    raw = _yaml(path)
    if not isinstance(raw, dict):
        raise PolicyError(f"{path}: expected a mapping of a policy's values, got {type(raw).__name__}")
    return parse_request(raw, str(path)).policy() if {"confidence", "settings", "species"} & set(raw) else parse_policy(
        raw, str(path))


def _yaml(path: Path) -> Any:
    from pipeline.policy import PolicyError
    from pipeline.yaml_file import YamlFileError, read_yaml

    try:
        return read_yaml(path)
    except YamlFileError as error:
        raise PolicyError(str(error)) from None


def _compile(console: Console, policy: Path, roots: list[Path], model: Path | None, calibration: Path | None,
             calibrated_on: list[Path] | None, jobs: int) -> CompiledPolicy:
    from collections import Counter
    from datetime import UTC, datetime

    from pipeline.commands.session_options import (
        calibration_facts,
        chosen_model,
        named_calibration,
        progress_bar,
        typed,
    )
    from pipeline.policy_compiler import Provenance, compile_policy, parse_request
    from pipeline.session_folders import check_one_world, read_session_folder, scored_records
    from pipeline.simulated_sessions.compiling import check_mapped, check_sessions, session_peaks
    from pipeline.simulated_sessions.film import camera_kind_of, load_record
    from pipeline.simulated_sessions.judging import applied_policies
    from pipeline.simulated_sessions.scoring import model_facts
    from pipeline.simulated_sessions.studio import film_path
    from pipeline.simulated_trees.domains import SimulationError

    request = parse_request(_yaml(policy), str(policy))
    if twice := [folder for folder, times in Counter(roots).items() if times > 1]:
        raise SimulationError(f"{twice[0]} is named twice; each session is evidence once")
    folders = [read_session_folder(root) for root in roots]
    check_sessions(folders, [read_session_folder(root) for root in calibrated_on or ()], "which calibrated the scores")
    model = chosen_model(model)
    facts = model_facts(model)
    check_one_world(folders, facts)
    file = named_calibration(calibration, facts, request.policy(), str(policy), simulated=folders[0].simulated)
    peaks, records = [], []
    for folder in folders:
        if folder.kind == "films":  # says so before anything is scored
            check_mapped([load_record(film_path(folder.root, truth.key)) for truth in folder.truths], request.policy(),
                         file)
        with progress_bar(console, f"scores of {folder.root}") as show:
            own, scores = scored_records(folder, model, facts, jobs=jobs, on_progress=show)
        records += own
        check_mapped(own, request.policy(), file)
        peaks += session_peaks(own, scores, request.policy(), facts.info, file)
    calibration_id, kind = calibration_facts(file, facts.operating_point)
    provenance = Provenance(
        model_hash=facts.info.model_hash, purpose=facts.info.purpose, calibration_id=calibration_id, calibration=kind,
        camera_kinds=tuple(sorted({camera_kind_of(record) for record in records})),
        sessions_sha256=tuple(folder.sha256 for folder in folders),
        splits=tuple(sorted({record.truth.split for record in records})),
        frame_period_ms=min((1e3 / record.truth.frame_rate for record in records), default=1.0),
        simulated=any(folder.simulated for folder in folders),
        apart_from_calibration=True if calibrated_on or kind == "none" else None, command=typed(),
        date=datetime.now(UTC).isoformat(timespec="seconds"))
    return compile_policy(request, peaks, provenance, *applied_policies(request.policy(), facts.info, file))
