"""The page of a session report: one HTML file with style and pictures inside, and the same figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mmdg_model.whole_file import write_whole
from pipeline.policy import Policy
from pipeline.session_report.figures import ScoredSession, SessionReport
from pipeline.session_report.plots import draw_errors, draw_times, draw_trade_off
from pipeline.simulated_sessions.judging import JudgedSession
from pipeline.simulated_sessions.report import decisions_table


def write_session_report(folder: Path, report: SessionReport, judged: Sequence[JudgedSession],
                         scored: Sequence[ScoredSession], policy: Policy) -> Path:
    """`sessions.html`, `sessions.json` and `decisions.csv` in a folder. Returns the page's path.

    Args:
        policy: that decided, with its operating point applied.

    Raises:
        OSError: the folder cannot be written. ModuleNotFoundError: without matplotlib or jinja2, naming the extra.
    """
    values = report.to_dict()
    page = html(values, {"errors": draw_errors(report, policy.apcer_max),
                         "trade_off": draw_trade_off(scored, policy.upper_bound, report),
                         "times": draw_times(judged, report)})
    write_whole(folder / "decisions.csv", decisions_table(judged).encode())
    write_whole(folder / "sessions.json", (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())
    write_whole(folder / "sessions.html", page.encode())
    return folder / "sessions.html"


def html(values: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """The page. No script, nothing fetched; whatever is not a picture is escaped."""
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the report needs jinja2: pip install 'mmdg-live[train]'", name="jinja2") from error
    source = (resources.files("pipeline.session_report") / "page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters.update(percent=_percent, ms=_milliseconds, numbers=_numbers,
                               words=lambda text: str(text).replace("_", " "))
    return environment.from_string(source).render(r=values, plots=plots, described=described(values)).lstrip()


def described(values: Mapping[str, Any]) -> dict[str, str]:
    """What the figures were measured with, for people."""
    policy, point = values["policy"], values["operating_point"]
    lines = {
        "checkpoint": f"{values['checkpoint']} (purpose {values['purpose']})",
        "operating point": {"none": "none: scores taken at their word", "checkpoint": "the checkpoint's own",
                            "file": "a file of mmdg calibrate score"}[values["calibration"]] + (
            "" if point is None else ": ") + ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in (point or {}).items()),
        "calibration id": values["calibration_id"],
        "accept at / reject at": f"{values['accept_bound']:.4f} / {values['reject_bound']:.4f} nats",
        "threshold id": values["threshold_id"] or "none: this policy was not compiled (mmdg policy compile)",
        "policy": ", ".join(f"{key} {_plain(value)}" for key, value in policy.items()),
        "kinds of camera": ", ".join(values["camera_kinds"]),
        "policy SHA-256": values["policy_sha256"],
        "sessions SHA-256": ", ".join(values["sessions_sha256"]),
        "openings of the test set": str(values["test_set_opened"]),
        "development sessions": ", ".join(values["development_sha256"]) or "none",
        "command": values["command"]}
    return {name: str(value) for name, value in lines.items()}


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + " ".join(str(each) for each in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(values: Sequence[float]) -> str:
    """Least and largest of what was applied to sessions."""
    if not values:
        return "unknown"
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
