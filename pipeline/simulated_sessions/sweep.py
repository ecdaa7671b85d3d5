"""Sensitivity: the same people and instruments filmed again and again with one circumstance changed, and scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calibration.operating_point_file import OperatingPointFile
from mmdg_model.scorer import Modality
from mmdg_model.training.samples import Split
from mmdg_model.whole_file import write_whole
from pipeline.policy import Policy
from pipeline.simulated_sessions.film import load_record
from pipeline.simulated_sessions.judging import JudgedSession, judge
from pipeline.simulated_sessions.plan import SessionOptions, plan_sessions
from pipeline.simulated_sessions.scoring import COLUMNS, ModelFacts, score_sessions, score_table
from pipeline.simulated_sessions.studio import film_path, make_films
from pipeline.simulated_trees.domains import SimulationError

#: What a sweep may vary, and the values that it takes where none are named. Numbers are those of `SessionOptions`.
SWEEPS: Mapping[str, tuple[str, ...]] = {
    "distance_m": ("0.3", "0.4", "0.5", "0.65", "0.8", "1.0", "1.2"),
    "yaw_deg": ("-30", "-15", "0", "15", "30"), "pitch_deg": ("-20", "-10", "0", "10", "20"),
    "light": ("0.1", "0.3", "0.6", "1", "1.5"), "room_infrared": ("0", "0.5", "1", "2"),
    "noise": ("0.5", "1", "2", "4"), "missing": ("none", "depth", "infrared", "depth+infrared"),
    "profile": ("d4xx", "d4xx_projector", "sr300"),
}


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One value of a sweep: the judged sessions. `lacking`: modalities withheld from network and decision."""

    parameter: str
    value: str
    lacking: tuple[Modality, ...]
    judged: tuple[JudgedSession, ...]


def sweep(parameter: str, values: Sequence[str], *, root: Path, scenes: Sequence[str], count: int, model: Path,
          facts: ModelFacts, policy: Policy, options: SessionOptions | None = None, jobs: int = 1,
          calibration: OperatingPointFile | None = None,
          on_progress: Callable[[str, int, int], None] = lambda what, done, total: None) -> list[SweepPoint]:
    """Films, scores and judges `count` test sessions of each scene at each value; writes `<parameter>.csv` to `root`.

    The table has one row a scored frame (`scoring.COLUMNS`). Films lie in `<root>/<parameter>=<value>` and are kept.
    With a modality missing, the decision does without it, too, where `calibration` has a map for what is left; without
    one such sessions are undecided, and the table says what the network made of them. The default policy of a live
    camera refuses such frames.

    Args:
        parameter: of `SWEEPS`. values: as text; the table's order. facts: of the model, from `scoring.model_facts`.
        options: everything that does not vary. calibration: instead of the model's own operating point.
        on_progress: called with the value, sessions done, sessions in all.

    Raises:
        SimulationError: an unknown parameter or value; see also `studio.make_films` and `scoring.score_sessions`.
    """
    import msgspec

    variants = [_variant(parameter, value, options or SessionOptions()) for value in values]
    points, lines = [], [",".join(COLUMNS) + "\n"]
    for value, (changed, lacking) in zip(values, variants, strict=True):
        folder = root / ("complete" if parameter == "missing" else f"{parameter}={value}")

        def show(done: int, total: int, value: str = value) -> None:
            on_progress(f"{parameter} {value}", done, total)

        planned = plan_sessions(scenes, Split.TEST, count, changed)
        make_films(folder, planned, jobs=jobs, crop_size=facts.image_size, on_progress=show)
        records = {each.key: load_record(film_path(folder, each.key)) for each in planned}
        scores = score_sessions(folder, list(records.values()), model, facts, jobs=jobs, withheld=lacking)
        lines.append(score_table(scores, records, parameter, value))
        needed = tuple(modality for modality in policy.required_modalities if modality not in lacking)
        bent = msgspec.structs.replace(policy, required_modalities=needed)
        points.append(SweepPoint(parameter=parameter, value=value, lacking=lacking, judged=tuple(
            judge(record, scores[key], bent, facts.info, lacking, calibration) for key, record in records.items())))
    write_whole(root / f"{parameter}.csv", "".join(lines).encode())
    return points


def _variant(parameter: str, value: str, options: SessionOptions) -> tuple[SessionOptions, tuple[Modality, ...]]:
    if parameter not in SWEEPS:
        raise SimulationError(f"parameter is {parameter!r}, expected one of {', '.join(SWEEPS)}")
    if parameter == "missing":
        if value not in SWEEPS["missing"]:
            raise SimulationError(f"missing is {value!r}, expected one of {', '.join(SWEEPS['missing'])}")
        return options, tuple(Modality(name) for name in value.split("+") if name != "none")
    if parameter == "profile":
        return replace(options, profile=value), ()
    try:
        number = float(value)
    except ValueError:
        raise SimulationError(f"{parameter} is {value!r}, expected a number") from None
    if parameter == "distance_m":
        return replace(options, distance_m=(number, number)), ()
    changes: dict[str, float] = {parameter: number}
    return replace(options, **changes), ()  # type: ignore[arg-type]
