"""The evaluation of simulated sessions for people: a page of tables, and pictures of scores and times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibration.error_rates import roc
from mmdg_model.training.samples import BONA_FIDE
from mmdg_model.whole_file import write_whole
from pipeline.simulated_sessions.evaluation import Outcomes, Pace, SessionEvaluation
from pipeline.simulated_sessions.judging import JudgedSession
from pipeline.verdict import Verdict

_HOW_COUNTED = ("Bounds are one-sided 95 % Clopper-Pearson bounds. An attack session counts towards APCER when it was "
                "accepted; a bona fide session towards BPCER when it was not: rejected, undecided or without response.")
_HOW_TIMED = ("Recorded time since the first frame; computing time is not in it. The floor is the fewest frames N with "
              "clip · n_eff(N, ρ) at the bound, n_eff = N / (1 + 2 Σ (1 - k/N) ρᵏ), every score at the clip: "
              "max((N - 1) · frame period, least time).")
_COUNTS = "sessions | accepted | rejected | undecided | no response | frames missed"


def write_report(folder: Path, evaluation: SessionEvaluation, judged: Sequence[JudgedSession],
                 facts: Mapping[str, Any]) -> Path:
    """`evaluation.json`, `evaluation.md`, `decisions.csv` and three pictures in a folder. Returns the page's path.

    Args:
        facts: what the figures were measured with: checkpoint, operating point, policy, sessions, command.
    """
    content = {**facts, **evaluation.to_dict()}
    write_whole(folder / "evaluation.json", (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    write_whole(folder / "decisions.csv", decisions_table(judged).encode())
    draw_scores(judged, folder / "scores.png")
    draw_error_trade_off(judged, folder / "det.png")
    draw_times(judged, evaluation, folder / "time_to_decision.png")
    write_whole(folder / "evaluation.md", markdown(evaluation, facts).encode())
    return folder / "evaluation.md"


def decisions_table(judged: Sequence[JudgedSession]) -> str:
    """One CSV row a session."""
    lines = ["session,label,species,verdict,reason,time_to_decision_ms,frames_used,evidence,frames,missed"]
    for each in sorted(judged, key=lambda one: one.truth.key):
        decision = each.decision
        lines.append(f"{each.truth.key},{each.truth.label},{each.truth.species},{decision.verdict.value},"
                     f"{decision.reason},{decision.time_to_decision_ms:.1f},{decision.frames_used},"
                     f"{decision.evidence:.4f},{each.frames},{each.missed}")
    return "\n".join(lines) + "\n"


def markdown(evaluation: SessionEvaluation, facts: Mapping[str, Any]) -> str:
    """The page."""
    live = evaluation.live
    lines = ["# Decisions on simulated sessions", "",
             "**Every session is simulated. No figure here says anything about real people or real attacks.**", "",
             *(f"- {name.replace('_', ' ')}: {_plain(value)}" for name, value in facts.items()), "",
             _HOW_COUNTED,
             "", "## Attack sessions", "",
             f"| species | {_COUNTS} | APCER | at most |",
             "|---|---|---|---|---|---|---|---|---|"]
    lines += [f"| {name} | {_counts(each)} | {each.apcer.rate:.1%} | {each.apcer.upper_bound():.1%} |"
              for name, each in evaluation.species.items()]
    if evaluation.worst_species is not None:
        worst = evaluation.species[evaluation.worst_species]
        lines.append("")
        lines.append(f"Worst species: {evaluation.worst_species}, APCER {worst.apcer.rate:.1%}, at most "
                     f"{worst.apcer.upper_bound():.1%}.")
    if live.sessions:
        lines += ["", "## Bona fide sessions", "",
                  f"| group | {_COUNTS} | BPCER | at most |", "|---|---|---|---|---|---|---|---|---|",
                  f"| all | {_counts(live)} | {live.bpcer.rate:.1%} | {live.bpcer.upper_bound():.1%} |"]
        lines += [f"| {attribute.replace('_', ' ')}: {value} | {_counts(each)} | {each.bpcer.rate:.1%} | "
                  f"{each.bpcer.upper_bound():.1%} |"
                  for attribute, values in evaluation.groups.items() for value, each in values.items()]
        lines.append("")
        for attribute, value in evaluation.worst_groups.items():
            worst = evaluation.groups[attribute][value]
            lines.append(f"Worst group by {attribute.replace('_', ' ')}: {value}, BPCER {worst.bpcer.rate:.1%}, at "
                         f"most {worst.bpcer.upper_bound():.1%}.  ")
    lines += ["", "## Time to decision", "",
              _HOW_TIMED, "",
              "| bound | decisions | median | p95 | floor | frames at the floor | median / floor |",
              "|---|---|---|---|---|---|---|", f"| accept | {_pace(evaluation.accepting)} |",
              f"| reject | {_pace(evaluation.rejecting)} |"]
    correlation = evaluation.correlation
    if correlation is not None:
        lines.append("")
        lines.append(f"Scores of successive frames: lag-one autocorrelation {correlation.lag_one:.2f} about a "
                     f"session's own mean ({correlation.within:.2f} corrected for the fitted mean), "
                     f"{correlation.total:.2f} about the mean of the species; {correlation.between:.0%} of the "
                     f"variance lies between sessions ({correlation.sessions} sessions, {correlation.pairs} pairs).")
    if evaluation.area is not None:
        lines += ["", f"AUC of sessions' mean logits: {evaluation.area:.4f}."]
    lines += ["", "![scores](scores.png)", "", "![error trade-off](det.png)", "", "![times](time_to_decision.png)", ""]
    return "\n".join(lines)


def _counts(each: Outcomes) -> str:
    return (f"{each.sessions} | {each.accepted} | {each.rejected} | {each.undecided} | {each.non_response} | "
            f"{each.missed / max(each.frames, 1):.1%}")


def _pace(each: Pace) -> str:
    def milliseconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f} ms"

    return (f"{each.decisions} | {milliseconds(each.median_ms)} | {milliseconds(each.p95_ms)} | "
            f"{milliseconds(each.floor_ms)} | {'out of reach' if each.floor_frames is None else each.floor_frames} | "
            f"{'-' if each.ratio is None else f'{each.ratio:.2f}'}")


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_scores(judged: Sequence[JudgedSession], path: Path) -> None:
    """Sessions' mean logits, a row a species."""
    names = [BONA_FIDE, *sorted({each.truth.species for each in judged} - {BONA_FIDE})]
    figure, axis = _figure(8, 1.2 + 0.32 * len(names))
    colours = {Verdict.BONA_FIDE: "tab:green", Verdict.ATTACK: "tab:red", Verdict.UNDECIDED: "0.5"}
    rng = np.random.default_rng(0)
    for row, name in enumerate(names):
        for verdict, colour in colours.items():
            own = [float(np.mean(each.logits)) for each in judged
                   if each.truth.species == name and each.responded and each.decision.verdict is verdict]
            axis.scatter(own, row + rng.uniform(-0.3, 0.3, len(own)), s=6, color=colour,
                         label=verdict.value if row == 0 else None)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlabel="mean raw logit of a session", title="SIMULATED sessions by verdict")
    axis.legend(fontsize=8)
    _save(figure, path)


def draw_error_trade_off(judged: Sequence[JudgedSession], path: Path) -> None:
    """DET of sessions' mean logits: each species against all bona fide sessions, on normal-deviate axes."""
    from scipy import stats

    scored = [each for each in judged if each.responded]
    means = {each.truth.key: float(np.mean(each.logits)) for each in scored}
    live = [means[each.truth.key] for each in scored if each.truth.label == BONA_FIDE]
    figure, axis = _figure(7, 6)
    ticks = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6])
    for name in sorted({each.truth.species for each in scored} - {BONA_FIDE}):
        own = [means[each.truth.key] for each in scored if each.truth.species == name]
        if not live:
            break
        curve = roc([*live, *own], [True] * len(live) + [False] * len(own))
        apcer, bpcer = (np.clip(rate, 0.004, 0.996) for rate in (curve.fpr, 1 - curve.tpr))
        axis.plot(stats.norm.ppf(apcer), stats.norm.ppf(bpcer), drawstyle="steps-post", linewidth=1, label=name)
    axis.set_xticks(stats.norm.ppf(ticks), [f"{tick:.0%}" for tick in ticks])
    axis.set_yticks(stats.norm.ppf(ticks), [f"{tick:.0%}" for tick in ticks])
    axis.set(xlabel="APCER of the species", ylabel="BPCER", title="SIMULATED sessions, mean logit against a threshold")
    if axis.lines:
        axis.legend(fontsize=7)
    axis.grid(alpha=0.3)
    _save(figure, path)


def draw_times(judged: Sequence[JudgedSession], evaluation: SessionEvaluation, path: Path) -> None:
    """Share of sessions decided by a time, by bound, with the floors."""
    figure, axis = _figure(7, 4)
    for verdict, pace, colour, label in ((Verdict.BONA_FIDE, evaluation.accepting, "tab:green", BONA_FIDE),
                                         (Verdict.ATTACK, evaluation.rejecting, "tab:red", "attack")):
        own = [each for each in judged if (each.truth.label == BONA_FIDE) == (verdict is Verdict.BONA_FIDE)]
        times = sorted(each.decision.time_to_decision_ms / 1e3 for each in own if each.decision.verdict is verdict)
        if times:
            axis.step([0, *times], np.arange(len(times) + 1) / len(own), where="post", color=colour,
                      label=f"{label}: decided as such")
        if pace.floor_ms is not None:
            axis.axvline(pace.floor_ms / 1e3, color=colour, linestyle=":", label=f"floor, {label}")
    axis.set(xlabel="seconds since the first frame (recorded time)", ylabel="share of these sessions", ylim=(0, 1.02),
             title="SIMULATED sessions: time to decision")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    _save(figure, path)
