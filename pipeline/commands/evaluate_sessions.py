"""`mmdg evaluate sessions`: one page of ISO/IEC 30107-3 figures on judged sessions."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pipeline.policy import Policy
    from pipeline.session_report.figures import ScoredSession
    from pipeline.simulated_sessions.judging import JudgedSession
    from pipeline.simulated_sessions.presentation import Truth
    from pipeline.simulated_sessions.scoring import ModelFacts
    from pipeline.verdict import ModelInfo


def sessions_command(
    sessions: Annotated[list[Path], typer.Argument(metavar="SESSIONS...", help="folders of mmdg simulate films")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="where sessions.html, sessions.json and "
                                                                   "decisions.csv go")],
    model: Annotated[Path | None, typer.Option("--model", help="checkpoint; the shipped weights by default")] = None,
    operating_point: Annotated[Path | None, typer.Option(help="file of mmdg simulate calibrate; the checkpoint's own "
                                                              "by default")] = None,
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
    from pipeline.commands.session_options import chosen_model, failing
    from pipeline.session_report.figures import session_report
    from pipeline.session_report.page import write_session_report
    from pipeline.simulated_sessions.compiling import check_sessions, refuse_repeats
    from pipeline.simulated_sessions.scoring import model_facts
    from pipeline.simulated_sessions.studio import read_index
    from pipeline.verdict import ModelInfo

    console, jobs = Console(stderr=True), jobs or os.cpu_count() or 1
    with failing(console):
        truths = {str(folder): read_index(folder) for folder in sessions}
        own = {str(folder): read_index(folder) for folder in dev or ()}
        refuse_repeats(truths)
        check_sessions(own, truths, "which is judged here")
        model = chosen_model(model)
        facts = model_facts(model)
        point = read_operating_point(operating_point) if operating_point is not None else facts.operating_point
        info = ModelInfo(model_hash=facts.info.model_hash, purpose=facts.info.purpose, operating_point=point)
        chosen = _policy(policy, facts, info)
        opened = _open(console, truths, info)
        development, _ = _judged(console, own, model, facts, info, chosen, jobs)
        scored, judged = _judged(console, truths, model, facts, info, chosen, jobs)
        report = session_report(judged, scored, development, chosen.calibrated(point),
                                _facts(truths, own, info, chosen, opened))
        page = write_session_report(out, report, judged, scored, chosen.calibrated(point))
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


def _policy(path: Path | None, facts: ModelFacts, info: ModelInfo) -> Policy:
    from pipeline.commands.session_options import named_policy
    from pipeline.policy_compiler import CompiledPolicyError, read_compiled
    from pipeline.simulated_sessions.compiling import calibration_id

    if path is None or path.suffix != ".json":
        return named_policy(path, facts)
    compiled = read_compiled(path)
    for what, measured, here in (
            ("checkpoint", compiled.provenance.model_hash, info.model_hash),
            ("calibration", compiled.provenance.calibration_id, calibration_id(info.operating_point))):
        if measured != here:
            raise CompiledPolicyError(f"{path}: its threshold was measured with {what} {measured}, here is {here}; "
                                      "compile the policy for what runs")
    return compiled.in_force()


def _open(console: Console, folders: dict[str, list[Truth]], info: ModelInfo) -> int:
    """Logs a look at each test set; returns how often the most opened one was."""
    from mmdg_model.training.samples import Split
    from pipeline.commands.session_options import point_hash, typed
    from pipeline.simulated_sessions.openings import open_test_set
    from pipeline.simulated_sessions.studio import sessions_hash

    most = 0
    for folder, truths in folders.items():
        if any(truth.split == Split.TEST for truth in truths):
            openings = open_test_set(Path(folder), checkpoint=info.model_hash, sessions=sessions_hash(Path(folder)),
                                     operating_point=point_hash(info.operating_point), number=len(truths),
                                     command=typed())
            console.print(f"opening number {len(openings)} of test set {folder}", highlight=False, soft_wrap=True)
            most = max(most, len(openings))
    return most


def _judged(console: Console, folders: dict[str, list[Truth]], model: Path, facts: ModelFacts, info: ModelInfo,
            policy: Policy, jobs: int) -> tuple[list[ScoredSession], list[JudgedSession]]:
    from mmdg_model.training.samples import BONA_FIDE
    from pipeline.commands.session_options import progress_bar
    from pipeline.session_report.figures import ScoredSession
    from pipeline.simulated_sessions.film import load_record
    from pipeline.simulated_sessions.judging import judge, peak_evidence
    from pipeline.simulated_sessions.scoring import score_sessions
    from pipeline.simulated_sessions.studio import film_path

    scored, judged = [], []
    for folder, truths in folders.items():
        records = [load_record(film_path(Path(folder), truth.key)) for truth in truths]
        with progress_bar(console, f"scores of {folder}") as show:
            scores = score_sessions(Path(folder), records, model, facts, jobs=jobs, on_progress=show)
        for record in records:
            own = scores[record.truth.key]
            judged.append(judge(record, own, policy, info))
            scored.append(ScoredSession(species=record.truth.species, live=record.truth.label == BONA_FIDE,
                                        peak=peak_evidence(record, own, policy, info)))
    return scored, judged


def _facts(folders: dict[str, list[Truth]], development: dict[str, list[Truth]], info: ModelInfo, policy: Policy,
           opened: int) -> dict[str, Any]:
    """Everything that the figures depend on, as plain values."""
    import hashlib
    import json
    from datetime import UTC, datetime

    import msgspec

    from pipeline.commands.session_options import typed
    from pipeline.simulated_sessions.compiling import calibration_id
    from pipeline.simulated_sessions.studio import sessions_hash

    values, point = msgspec.to_builtins(policy), info.operating_point
    in_force = policy.calibrated(point)
    return {
        "command": typed(), "date": datetime.now(UTC).isoformat(timespec="seconds"), "checkpoint": info.model_hash,
        "purpose": info.purpose.value, "number": sum(len(truths) for truths in folders.values()),
        "splits": sorted({truth.split for truths in folders.values() for truth in truths}),
        "sessions_sha256": [sessions_hash(Path(folder)) for folder in folders],
        "development_sha256": [sessions_hash(Path(folder)) for folder in development],
        "test_set_opened": opened, "operating_point": None if point is None else point.to_dict(),
        "calibration_id": calibration_id(point), "accept_bound": in_force.upper_bound,
        "reject_bound": in_force.lower_bound, "threshold_id": policy.threshold_id,
        "policy_sha256": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
        "policy": {key: value for key, value in values.items() if value is not None}}
