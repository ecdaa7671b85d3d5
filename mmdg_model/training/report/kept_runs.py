"""What of evaluated runs is worth keeping in a repository: enough to make the report again, without network or data.

Of each run: its configuration, its evaluation, the score tables of the epochs that the three columns chose (complete
tests), and the losses that figures are drawn of, every few updates. Checkpoints and images stay behind.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from calibration.error_rates import Unit
from mmdg_model.training.evaluation import Column
from mmdg_model.training.metrics_log import read_lines
from mmdg_model.training.report.run_results import Collection, RunResult
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.scores import Split
from mmdg_model.whole_file import write_whole

#: Lines of updates kept of a training.
_MOST_UPDATES = 2000
_KEPT = ("kind", "epoch", "update", "loss/total", "loss/cross_entropy", "ssp/", "prototypes/variance/",
         "source_validation/hter")


def keep_runs(collection: Collection, out: Path) -> int:
    """Writes a small directory for each evaluated run, which `collect` reads as the run; returns how many.

    Raises:
        OSError: it cannot be written. RunDirectoryError: a log is damaged.
    """
    runs = [run for row in collection.rows for run in row.runs.values()]
    for run in runs:
        _keep(run, RunDirectory(out / run.directory.path.name))
    return len(runs)


def _keep(run: RunResult, kept: RunDirectory) -> None:
    kept.path.mkdir(parents=True, exist_ok=True)
    for path in (run.directory.config_file, run.directory.done_file):
        if path.is_file():
            shutil.copyfile(path, kept.path / path.name)
    evaluation = json.loads((run.directory.path / "evaluation.json").read_text(encoding="utf-8"))
    write_whole(kept.path / "evaluation.json", json.dumps(evaluation, separators=(",", ":")).encode())  # half the size
    for epoch in {run.evaluation.choice(column, unit).epoch for column in Column for unit in (Unit.FRAME, Unit.VIDEO)}:
        place = kept.scores_file(Split.TARGET_TEST, epoch)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.directory.scores_file(Split.TARGET_TEST, epoch), place)
    if run.directory.metrics_file.is_file():
        write_whole(kept.metrics_file, _thinned(run.directory.metrics_file))


def _thinned(path: Path) -> bytes:
    lines = read_lines(path)
    updates = sum(line.get("kind") == "update" for line in lines)
    stride = max(1, updates // _MOST_UPDATES)
    kept, seen = [], 0
    for line in lines:
        if line.get("kind") == "update":
            seen += 1
            if (seen - 1) % stride:
                continue
        kept.append({key: float(f"{value:.5g}") if isinstance(value, float) else value for key, value in line.items()
                     if key.startswith(_KEPT)})
    return "".join(json.dumps(line) + "\n" for line in kept).encode()
