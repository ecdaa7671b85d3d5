"""The difficulty specification: domains, bounds and the audit's outcome, committed by hash before anything is trained.

Once it is committed, domains made easier, or bounds made looser, are seen: `check_difficulty` refuses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmdg_model.whole_file import write_whole
from pipeline.simulated_trees.domains import fingerprint
from pipeline.simulator_audit.findings import BOUNDS, Findings, Status
from pipeline.simulator_audit.frames import AuditedTree, AuditError

FORMAT = 1
_SOURCES = ("capture/simulated", "pipeline/simulated_trees")


def domains_sha256() -> str:
    """Of the domain specifications in the code."""
    return fingerprint()


def simulator_sha256() -> str:
    """Of the simulator's source files and assets: any change, even of a comment, changes it."""
    top = Path(__file__).resolve().parent.parent.parent
    total = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((top / folder).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".npz"):
                total.update(f"{path.relative_to(top).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
                             .encode())
    return total.hexdigest()


def _bounds() -> dict[str, Any]:
    """As JSON has them."""
    bounds: dict[str, Any] = json.loads(json.dumps(asdict(BOUNDS)))
    return bounds


def difficulty(findings: Findings, trees: Sequence[AuditedTree]) -> dict[str, Any]:
    """The specification with the outcome of an audit."""
    lines = [asdict(line) for line in findings.lines]
    outcome = hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()
    return {
        "simulated": True, "format": FORMAT, "domains_sha256": domains_sha256(),
        "simulator_sha256": simulator_sha256(), "bounds": _bounds(),
        "audit": {
            "outcome_sha256": outcome, **{status.value.lower(): findings.count(status) for status in Status},
            "trees": [{"seed": tree.seed, "size": tree.size, "physics": tree.physics,
                       "specification_sha256": tree.specification_sha256} for tree in trees],
            "not_held": [f"{line.check}: {line.what}, {line.scope}: {line.value} ({line.bound})"
                         for line in findings.lines if line.status is Status.FAILED]}}


def write_difficulty(path: Path, findings: Findings, trees: Sequence[AuditedTree]) -> None:
    """Writes the specification, whole or not at all."""
    write_whole(path, (json.dumps(difficulty(findings, trees), indent=1, ensure_ascii=False) + "\n").encode())


def check_difficulty(path: Path) -> list[str]:
    """Warnings; an empty list where code and committed specification agree in everything.

    Raises:
        AuditError: the file is missing or damaged, or domains or bounds differ: trained figures would not be
            comparable with what was committed.
    """
    try:
        committed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        domains, simulator, bounds = (committed[key] for key in ("domains_sha256", "simulator_sha256", "bounds"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AuditError(f"difficulty specification {path} cannot be read ({error}); write it with "
                         "`mmdg simulate audit TREE... --commit FILE`") from error
    if domains != domains_sha256():
        raise AuditError(f"{path} was committed for the domains {domains[:12]}, the code has {domains_sha256()[:12]}; "
                         "audit the new domains and commit them before training on them")
    if bounds != _bounds():
        changed = sorted(key for key in {*bounds, *_bounds()} if bounds.get(key) != _bounds().get(key))
        raise AuditError(f"{path} was committed with other bounds ({', '.join(changed)}); a bound is changed by a new "
                         "audit, never by itself")
    if simulator != simulator_sha256():
        return [("the simulator's source has changed since the committed audit (domains and bounds have not); its "
                 "figures are of the older source")]
    return []
