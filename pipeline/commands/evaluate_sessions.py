"""`mmdg evaluate sessions`: one page of ISO/IEC 30107-3 figures on judged sessions."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from calibration.operating_point_file import OperatingPointFile
    from pipeline.policy import Policy
    from pipeline.session_folders import SessionFolder
    from pipeline.session_report.figures import ScoredSession
    from pipeline.simulated_sessions.judging import JudgedSession
    from pipeline.simulated_sessions.scoring import ModelFacts
    from pipeline.verdict import ModelInfo


def sessions_command(
    sessions: Annotated[list[Path], typer.Argument(metavar="SESSIONS...", help="folders of mmdg simulate films, or of "
                                                                               "labelled recordings")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where sessions.html, sessions.json and "
                                                                   "decisions.csv go")],
    model: Annotated[Path | None, typer.Option("--model", help="checkpoint; the shipped weights by default")] = None,
    operating_point: Annotated[Path | None, typer.Option(help="file of mmdg simulate calibrate; the checkpoint's own "
                                                              "by default")] = None,
    calibration: Annotated[Path | None, typer.Option(
        "--calibration", metavar="FILE", help="of mmdg calibrate score, instead of an operating point")] = None,
    policy: Annotated[Path | None, typer.Option("--policy", metavar="FILE", help="YAML of a policy, or JSON of mmdg "
                                                                                 "policy compile; the simulated one by "
                                                                                 "default")] = None,
    dev: Annotated[list[Path] | None, typer.Option(
        "--dev", metavar="DIR", help="development sessions, on which the thresholds of BPCER at fixed APCER are set; "
                                     "may be repeated")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="processes; one a core by default")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print sessions.json")] = False,
) -> None:
    """Judge every session with the real decision step and write the figures of ISO/IEC 30107-3 as one page.

    APCER by species with exact intervals, the worst first; BPCER; non-response rates; BPCER at fixed APCER, set on
    other sessions; time to decision against its floor. Each look at test sessions is written to openings.jsonl beside
    them before any figure is computed.

    Exit codes: 0 written, 1 not possible (the reason is printed), 2 wrong usage.
    """
    from mmdg_model.operating_point import read_operating_point
    from pipeline.commands.session_options import chosen_model, failing, named_calibration
    from pipeline.session_folders import check_one_world, read_session_folder
    from pipeline.session_report.figures import session_report
    from pipeline.session_report.page import write_session_report
    from pipeline.simulated_sessions.compiling import check_sessions, refuse_repeats
    from pipeline.simulated_sessions.scoring import model_facts
    from pipeline.verdict import ModelInfo

    console, jobs = Console(stderr=True), jobs or os.cpu_count() or 1
    if calibration is not None and operating_point is not None:
        raise typer.BadParameter("contradicts --operating-point; both make logits evidence", param_hint="--calibration")
    with failing(console):
        folders = [read_session_folder(folder) for folder in sessions]
        own = [read_session_folder(folder) for folder in dev or ()]
        refuse_repeats(folders)
        check_sessions(own, folders, "which is judged here")
        model = chosen_model(model)
        facts = model_facts(model)
        check_one_world([*folders, *own], facts)
        point = read_operating_point(operating_point) if operating_point is not None else facts.operating_point
        info = ModelInfo(model_hash=facts.info.model_hash, purpose=facts.info.purpose, operating_point=point)
        chosen = _policy(policy, facts)
        file = named_calibration(calibration, facts, chosen, str(policy or "policy"), simulated=folders[0].simulated)
        if policy is not None and policy.suffix == ".json":
            _check_compiled(policy, info, file)
        opened = _open(console, folders, info, file)
        development, _, _ = _judged(console, own, model, facts, info, chosen, file, jobs)
        scored, judged, kinds = _judged(console, folders, model, facts, info, chosen, file, jobs)
        in_force = chosen if file is not None else chosen.calibrated(point)
        report = session_report(judged, scored, development, in_force,
                                _facts(folders, own, info, chosen, file, opened, judged, kinds))
        page = write_session_report(out, report, judged, scored, in_force)
    if as_json:
        sys.stdout.write((out / "sessions.json").read_text(encoding="utf-8"))
        return
    found, name = report.evaluation, report.evaluation.worst_species
    lines = ["SIMULATED sessions"] if report.simulated else []
    if name is not None:
        worst = found.species[name].apcer
        lines.append(f"worst species: {name}, APCER {worst.rate:.1%}, at most {worst.upper_bound():.1%} "
                     f"({worst.count} of {worst.trials} sessions)")
    if found.live.sessions:
        lines.append(f"BPCER {found.live.bpcer.rate:.1%}, at most {found.live.bpcer.upper_bound():.1%} "
                     f"({found.live.bpcer.count} of {found.live.sessions} sessions)")
    sys.stdout.write("\n".join([*lines, str(page)]) + "\n")


def _policy(path: Path | None, facts: ModelFacts) -> Policy:
    from pipeline.commands.session_options import named_policy
    from pipeline.policy_compiler import read_compiled

    return read_compiled(path).in_force() if path is not None and path.suffix == ".json" else named_policy(path, facts)


def _check_compiled(path: Path, info: ModelInfo, file: OperatingPointFile | None) -> None:
    """That a compiled policy is judged with what its threshold was measured with."""
    from pipeline.commands.session_options import calibration_facts
    from pipeline.policy_compiler import CompiledPolicyError, read_compiled

    measured = read_compiled(path).provenance
    for what, wanted, here in (("checkpoint", measured.model_hash, info.model_hash),
                               ("calibration", measured.calibration_id,
                                calibration_facts(file, info.operating_point)[0])):
        if wanted != here:
            raise CompiledPolicyError(f"{path}: its threshold was measured with {what} {wanted}, here is {here}; "
                                      "compile the policy for what runs"
                                      + (", or name its file: --calibration" if what == "calibration" else ""))


def _open(console: Console, folders: list[SessionFolder], info: ModelInfo, file: OperatingPointFile | None) -> int:
    """Logs a look at each test set; returns how often the most opened one was."""
    from mmdg_model.training.samples import Split
    from pipeline.commands.session_options import calibration_facts, typed
    from pipeline.simulated_sessions.openings import open_test_set

    most = 0
    for folder in folders:
        if any(truth.split == Split.TEST for truth in folder.truths):
            openings = open_test_set(folder.root, checkpoint=info.model_hash, sessions=folder.sha256,
                                     operating_point=calibration_facts(file, info.operating_point)[0],
                                     number=len(folder.truths), command=typed())
            console.print(f"opening number {len(openings)} of test set {folder.root}", highlight=False, soft_wrap=True)
            most = max(most, len(openings))
    return most


def _judged(console: Console, folders: list[SessionFolder], model: Path, facts: ModelFacts, info: ModelInfo,
            policy: Policy, file: OperatingPointFile | None,
            jobs: int) -> tuple[list[ScoredSession], list[JudgedSession], set[str]]:
    """Sessions as numbers, as decided, and the kinds of camera that filmed them."""
    from mmdg_model.training.samples import BONA_FIDE
    from pipeline.commands.session_options import progress_bar
    from pipeline.session_folders import scored_records
    from pipeline.session_report.figures import ScoredSession
    from pipeline.simulated_sessions.film import camera_kind_of
    from pipeline.simulated_sessions.judging import judge, peak_evidence

    scored, judged, kinds = [], [], set()
    for folder in folders:
        with progress_bar(console, f"scores of {folder.root}") as show:
            records, scores = scored_records(folder, model, facts, jobs=jobs, on_progress=show)
        for record in records:
            own = scores[record.truth.key]
            judged.append(judge(record, own, policy, info, calibration=file))
            kinds.add(camera_kind_of(record))
            scored.append(ScoredSession(species=record.truth.species, live=record.truth.label == BONA_FIDE,
                                        peak=peak_evidence(record, own, policy, info, file)))
    return scored, judged, kinds


def _facts(folders: list[SessionFolder], development: list[SessionFolder], info: ModelInfo, policy: Policy,
           file: OperatingPointFile | None, opened: int, judged: list[JudgedSession], kinds: set[str],
           ) -> dict[str, Any]:
    """Everything that the figures depend on, as plain values."""
    import hashlib
    import json
    from datetime import UTC, datetime

    import msgspec

    from pipeline.commands.session_options import calibration_facts, typed

    values, point = msgspec.to_builtins(policy), info.operating_point if file is None else None
    in_force = policy.calibrated(point)
    calibration_id, kind = calibration_facts(file, point)
    return {
        "command": typed(), "date": datetime.now(UTC).isoformat(timespec="seconds"), "checkpoint": info.model_hash,
        "purpose": info.purpose.value, "number": len(judged), "camera_kinds": sorted(kinds),
        "splits": sorted({truth.split for folder in folders for truth in folder.truths}),
        "sessions_sha256": [folder.sha256 for folder in folders],
        "development_sha256": [folder.sha256 for folder in development],
        "test_set_opened": opened, "operating_point": None if point is None else point.to_dict(),
        "calibration": kind, "calibration_id": calibration_id, "accept_bound": in_force.upper_bound,
        "reject_bound": in_force.lower_bound, "threshold_id": policy.threshold_id,
        "frame_correlation": sorted({each.applied.correlation for each in judged if each.applied is not None}),
        "lasting_share": sorted({each.applied.lasting_share for each in judged if each.applied is not None}),
        "policy_sha256": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
        "policy": {key: value for key, value in values.items() if value is not None}}
