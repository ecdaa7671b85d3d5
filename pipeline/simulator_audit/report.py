"""The audit as files: `audit.json` for machines, `audit.md` and pictures for people."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mmdg_model.whole_file import write_whole
from pipeline.simulator_audit.difficulty import difficulty
from pipeline.simulator_audit.findings import Findings, Line, Status
from pipeline.simulator_audit.frames import AuditedTree


def write_report(out: Path, findings: Findings, trees: Sequence[AuditedTree]) -> Path:
    """Writes everything below `out`; returns the report's path."""
    pictures = _draw(out, findings)
    for tree in trees:
        sheet = tree.root / "contact_sheet.png"
        if sheet.exists():
            name = f"contact_sheet_seed{tree.seed}{'' if tree.physics else '_null'}.png"
            shutil.copyfile(sheet, out / name)
            pictures[f"Random crops, seed {tree.seed}{'' if tree.physics else ', null attacks'}"] = name
    content = {**difficulty(findings, trees), "lines": [asdict(line) for line in findings.lines],
               "tables": findings.tables}
    write_whole(out / "audit.json", (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    write_whole(out / "audit.md", markdown(findings, trees, pictures).encode())
    return out / "audit.md"


def markdown(findings: Findings, trees: Sequence[AuditedTree], pictures: dict[str, str]) -> str:
    """The report; what does not hold comes first."""
    parts = ["# Audit of the simulator", "",
             "Everything here is simulated. docs/simulator-audit.md says what each line means.", ""]
    for tree in trees:
        parts.append(f"- {len(tree.frames)} frames of {len(tree.recordings)} recordings, seed {tree.seed}, size "
                     f"{tree.size}{'' if tree.physics else ', null attacks'}, specification "
                     f"{tree.specification_sha256[:12]}")
    parts += ["", "**" + ", ".join(f"{findings.count(status)} {status.value}" for status in Status) + "**", ""]
    for title, status in (("Bounds that do not hold", Status.FAILED), ("Not resolved", Status.UNRESOLVED)):
        chosen = [line for line in findings.lines if line.status is status]
        if chosen:
            parts += [f"## {title}", "", *_line_table(chosen, with_check=True), ""]
    for check in dict.fromkeys(line.check for line in findings.lines):
        # Leakage by species is a table of its own.
        chosen = [line for line in findings.lines if line.check == check
                  and not (check.startswith("2") and line.scope.startswith("species"))]
        parts += [f"## {check}", "", *_line_table(chosen, with_check=False), ""]
    for title, rows in findings.tables.items():
        parts += [f"## {title}", "", *_markdown_rows(rows), ""]
    for title, name in pictures.items():
        parts += [f"## {title} (simulated)", "", f"![{title}]({name})", ""]
    return "\n".join(parts)


def _line_table(lines: Sequence[Line], *, with_check: bool) -> list[str]:
    rows = [[*(["check"] if with_check else []), "what", "scope", "value", "95 % interval", "bound", "", "counted",
             "note"]]
    for line in lines:
        value = "-" if line.value is None else f"{line.value:.3g}"
        interval = "" if line.low is None or line.high is None else f"{line.low:.2f} to {line.high:.2f}"
        rows.append([*([line.check] if with_check else []), line.what, line.scope, value, interval, line.bound,
                     line.status.value, line.units, line.note])
    return _markdown_rows(rows)


def _markdown_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = [[cell.replace("|", "/") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)]


def _draw(out: Path, findings: Findings) -> dict[str, str]:
    """Matrices as pictures: white is chance, blue tells live from attack, red takes one for the other."""
    out.mkdir(parents=True, exist_ok=True)
    if not findings.matrices:
        return {}
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pictures = {}
    for name, matrix in findings.matrices.items():
        values = np.array(matrix["values"], float)
        height, width = values.shape
        figure, axes = pyplot.subplots(figsize=(2.4 + 0.42 * width, 2.2 + 0.36 * height), dpi=110,
                                       layout="constrained")
        axes.imshow(values, cmap="RdBu", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(width), matrix["columns"], rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(height), matrix["rows"], fontsize=8)
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7,
                          color="white" if abs(value - 0.5) > 0.35 else "black")
        title = name.replace("_", " ")
        axes.set_title(f"Area under the ROC curve, {title}; SIMULATED", fontsize=9)
        figure.savefig(out / f"{name}.png")
        pyplot.close(figure)
        pictures[title.capitalize()] = f"{name}.png"
    return pictures
