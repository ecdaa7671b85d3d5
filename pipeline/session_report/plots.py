"""Three pictures of judged sessions as SVG text: errors with intervals, error trade-off, time to decision."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.session_report.figures import NO_EVIDENCE, ScoredSession, SessionReport
from pipeline.simulated_sessions.evaluation import Pace
from pipeline.simulated_sessions.judging import JudgedSession
from pipeline.verdict import Verdict

_ATTACK, _LIVE, _GREY = "#b3392f", "#2a6f4e", "#7a7a7a"


def draw_errors(report: SessionReport, target: float) -> str:
    """APCER of each species and BPCER, with exact 95 % intervals and the policy's target.

    Raises:
        ModuleNotFoundError: without matplotlib, naming the extra.
    """
    found = report.evaluation
    rows = [(name, each.apcer, _ATTACK) for name, each in found.species.items()]
    if found.live.sessions:
        rows.append(("BPCER (bona fide)", found.live.bpcer, _LIVE))
    figure, axis = _figure(7.6, 1.0 + 0.27 * len(rows), report.simulated)
    for row, (_, share, colour) in enumerate(rows):
        both = share.exact_interval()
        axis.plot([100 * both.low, 100 * both.high], [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
        axis.plot(100 * share.rate, row, "o", color=colour, markersize=4.5)
    axis.axvline(100 * target, color=_GREY, linestyle=":", linewidth=1)
    axis.text(100 * target, -0.75, f" apcer_max {target:.3g}", color=_GREY, fontsize=7.5, va="center")
    axis.set_yticks(range(len(rows)), [name.replace("_", " ") for name, _, _ in rows])
    axis.set(xlabel="% of sessions, exact 95 % interval", xlim=(-1, None), ylim=(len(rows) - 0.5, -1.1))
    axis.grid(axis="x", alpha=0.25)
    return _svg(figure, "errors")


def draw_trade_off(scored: Sequence[ScoredSession], accept_bound: float, report: SessionReport) -> str:
    """Over the accept threshold: APCER by species, the worst drawn strong, and BPCER; the bound in force is marked."""
    figure, axis = _figure(7.6, 3.3, report.simulated)
    live = np.sort([each.score for each in scored if each.live])
    seen = [each.score for each in scored if each.score > NO_EVIDENCE]
    grid = np.linspace(min([*seen, 0.0]) - 0.2, max([*seen, accept_bound]) + 0.5, 400)
    curves = {}
    for name in sorted({each.species for each in scored if not each.live}):
        own = np.sort([each.score for each in scored if each.species == name])
        curves[name] = 100 * (1 - np.searchsorted(own, grid) / len(own))
        axis.plot(grid, curves[name], color=_ATTACK, linewidth=0.6, alpha=0.35)
    if curves:
        axis.plot(grid, np.max(list(curves.values()), axis=0), color=_ATTACK, label="APCER, worst species")
    if len(live):
        axis.plot(grid, 100 * np.searchsorted(live, grid) / len(live), color=_LIVE, label="BPCER")
    axis.axvline(accept_bound, color=_GREY, linestyle=":", label="bound in force")
    axis.set(xlabel="accept threshold in nats of a session's evidence", ylabel="% of sessions", ylim=(-2, 102))
    axis.legend(fontsize=8, frameon=False)
    axis.grid(alpha=0.25)
    return _svg(figure, "trade_off")


def draw_times(judged: Sequence[JudgedSession], report: SessionReport) -> str:
    """Share of sessions decided by a time, with the floors."""
    figure, axis = _figure(7.6, 3.0, report.simulated)
    found, latest_s = report.evaluation, 0.0
    sides: tuple[tuple[Verdict, bool, Pace, str, str], ...] = (
        (Verdict.BONA_FIDE, True, found.accepting, _LIVE, "bona fide accepted"),
        (Verdict.ATTACK, False, found.rejecting, _ATTACK, "attacks rejected"))
    for verdict, live, pace, colour, label in sides:
        own = [each for each in judged if (each.truth.label == "bona_fide") is live]
        times = sorted(each.decision.time_to_decision_ms / 1e3 for each in own if each.decision.verdict is verdict)
        latest_s = max([latest_s, *(each.decision.time_to_decision_ms / 1e3 for each in own)])
        if times:
            axis.step([0, *times, latest_s], np.array([*range(len(times) + 1), len(times)]) * 100 / len(own),
                      where="post", color=colour, label=label)
        if pace.floor_ms is not None:
            axis.axvline(pace.floor_ms / 1e3, color=colour, linestyle=":", linewidth=1, label=f"floor, {label}")
    axis.set(xlabel="seconds since the first frame (recorded time)", ylabel="% of these sessions", ylim=(0, 102),
             xlim=(0, None))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False)
    axis.grid(alpha=0.25)
    return _svg(figure, "times")


def _figure(width: float, height: float, simulated: bool) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("figures need matplotlib: pip install 'mmdg-live[engine]'",
                                  name="matplotlib") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    if simulated:
        axis.set_title("SIMULATED sessions", loc="right", fontsize=8, color=_GREY)
    return figure, axis


def _svg(figure: Any, name: str) -> str:
    """SVG that may stand beside others in one page: identifiers of its own, no date, text as text."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg"):]
