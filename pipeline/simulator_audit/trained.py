"""Check 9: what trained plain networks reach on the simulated domains, read from evaluated runs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from pipeline.simulator_audit.findings import BOUNDS, Findings, number_line
from pipeline.simulator_audit.frames import AuditError

TRAINED = "9 trained difficulty"
#: The plain network that the bounds are about.
METHOD = "vit_late"


def check_runs(folder: Path, findings: Findings) -> None:
    """Honest HTER by video of every evaluated `vit_late` run below a folder, seeds averaged.

    `W_W` and the like are in-domain; a target that no source holds is unseen. Runs of other methods are left out.

    Raises:
        AuditError: no evaluated run of the method there, one that is not of simulated data, or one that is damaged.
    """
    from calibration.error_rates import Unit
    from mmdg_model.training.evaluation import Column
    from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError
    from mmdg_model.training.run_evaluation import read_evaluation

    found: dict[str, list[float]] = defaultdict(list)
    for path in sorted(folder.glob("**/evaluation.json")):
        try:
            evaluation = read_evaluation(RunDirectory(path.parent))
        except RunDirectoryError as error:
            raise AuditError(str(error)) from error
        if evaluation.method != METHOD:
            continue
        report = next(iter(evaluation.levels.values()))[Unit.VIDEO]
        if not evaluation.simulated:
            raise AuditError(f"{path} is of real data; this audit is of simulated domains: name their runs' folder")
        found[evaluation.protocol].append(report.columns[Column.HONEST].hter)
    if not found:
        raise AuditError(f"{folder} holds no evaluated run of {METHOD}; train one (mmdg train) and evaluate it (mmdg "
                         "evaluate)")
    low, high = BOUNDS.unseen_hter
    for protocol, values in sorted(found.items()):
        sources, _, targets = protocol.partition("_")
        value = float(np.mean(values))
        seeds = f"{len(values)} seed{'s' * (len(values) > 1)}: " + ", ".join(f"{each:.1%}" for each in values)
        if set(targets) <= set(sources):
            findings.add(number_line(TRAINED, f"{METHOD}, in-domain HTER (honest, by video)", f"protocol {protocol}",
                                     value, f"≤ {BOUNDS.in_domain_hter:.2f}", value <= BOUNDS.in_domain_hter,
                                     units=seeds))
        else:
            findings.add(number_line(TRAINED, f"{METHOD}, HTER on a domain never seen (honest, by video)",
                                     f"protocol {protocol}", value, f"{low:.2f} to {high:.2f}", low <= value <= high,
                                     units=seeds))
