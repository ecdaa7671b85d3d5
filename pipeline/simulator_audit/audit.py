"""The whole audit, from trees to findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.simulator_audit.balance import check_balance
from pipeline.simulator_audit.cues import check_cues, check_hard_cases, check_modalities, check_unseen_domains
from pipeline.simulator_audit.findings import Findings
from pipeline.simulator_audit.frames import AuditedTree, AuditError
from pipeline.simulator_audit.parity import check_parity, tabulate_noise
from pipeline.simulator_audit.probing import check_leakage, check_null_attack, check_null_domain
from pipeline.simulator_audit.sensor_noise import check_sensor_noise
from pipeline.simulator_audit.trained import check_runs


@dataclass(frozen=True, kw_only=True)
class Trees:
    """What is audited: a tree, the same with another seed, and one of null attacks; the latter two may be missing."""

    tree: AuditedTree
    other_seed: AuditedTree | None
    null: AuditedTree | None

    @property
    def all(self) -> tuple[AuditedTree, ...]:
        """Those that are there."""
        return tuple(each for each in (self.tree, self.other_seed, self.null) if each is not None)


def sorted_trees(trees: Sequence[AuditedTree]) -> Trees:
    """Tells by their marks which is which; the first with physics is the one that is audited.

    Raises:
        AuditError: none with physics, more of a kind than can be used, or two of the same seed.
    """
    physical = [tree for tree in trees if tree.physics]
    null = [tree for tree in trees if not tree.physics]
    if not physical or len(physical) > 2 or len(null) > 1:
        raise AuditError(f"{len(physical)} trees with physics and {len(null)} of null attacks; name one tree, and if "
                         "you have them one of another seed and one of null attacks")
    if len(physical) == 2 and physical[0].seed == physical[1].seed:
        raise AuditError(f"{physical[0].root} and {physical[1].root} are both of seed {physical[0].seed}; null domains "
                         "need two seeds")
    return Trees(tree=physical[0], other_seed=physical[1] if len(physical) == 2 else None,
                 null=null[0] if null else None)


def audit(trees: Trees, *, runs: Path | None = None, steps: int = 300, film_frames: int = 8,
          on_stage: Callable[[str], None] = lambda what: None) -> Findings:
    """All checks for which there are trees.

    Args:
        runs: a folder of evaluated runs, for check 9. steps: of training of each small network.
        film_frames: of each recording at rest that noise is measured on; 0 leaves that out.
        on_stage: told what comes next.

    Raises:
        AuditError: as the checks.
    """
    findings, frames = Findings(), trees.tree.frames
    if trees.null is not None:
        on_stage("null attacks")
        check_null_attack(trees.null.frames, findings, steps=steps)
    if trees.other_seed is not None:
        on_stage("null domains")
        check_null_domain(frames, trees.other_seed.frames, findings)
    on_stage("leakage")
    check_leakage(frames, findings)
    on_stage("single cues")
    check_cues(frames, findings)
    on_stage("modalities alone")
    check_modalities(frames, findings, steps=steps)
    on_stage("unseen domains")
    check_unseen_domains(frames, findings, steps=steps)
    on_stage("hard cases, parity, balance")
    check_hard_cases(frames, findings)
    if trees.null is not None:
        check_parity(trees.null.frames, findings)
    tabulate_noise(frames, findings)
    check_balance(trees.tree, findings)
    if film_frames:
        on_stage("sensor noise")
        check_sensor_noise(findings, frames=film_frames)
    if runs is not None:
        on_stage("trained runs")
        check_runs(runs, findings)
    return findings
