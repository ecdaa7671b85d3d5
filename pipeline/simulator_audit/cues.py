"""Checks 3 and 4: no single cue solves it, each modality has its blind spots, and hard cases are really there."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmdg_model.training.samples import BONA_FIDE
from pipeline.simulator_audit.areas import Area, area, units
from pipeline.simulator_audit.describing import CHANNELS, CUES
from pipeline.simulator_audit.findings import BOUNDS, Findings, Line, Status, number_line, reported
from pipeline.simulator_audit.frames import Frames
from pipeline.simulator_audit.probing import Scores, area_of, cnn_scores

CUE, MODALITY, HARD = "3 single cues", "3 modalities", "4 hard cases"

#: Cues that have a bound; the others are reported.
BOUNDED_CUES = ("plane_residual_mm", "depth_mean_mm", "hole_fraction", "infrared_colour_ratio")
MODALITIES = {"colour": (0, 1, 2), "depth": (CHANNELS.index("depth"), CHANNELS.index("holes")),
              "infrared": (CHANNELS.index("infrared"),)}
_REPLAYS = ("phone_replay", "tablet_replay", "tablet_video_replay", "monitor_replay", "screen")


def check_cues(frames: Frames, findings: Findings) -> None:
    """Areas of each cue alone, over all attacks and species by species, in the direction that serves it best."""
    species = sorted(set(frames.scene.tolist()) - {BONA_FIDE})
    rows, values = [["cue", "all attacks", *species]], []
    for number, cue in enumerate(CUES):
        score = frames.cues[:, number].astype(np.float64)
        whole = _area(frames, score)
        if whole is None:
            continue
        if whole.value < 0.5:
            score = -score
            whole = _area(frames, score)
        assert whole is not None, "the same recordings as before"
        areas = {name: _area(frames.taken(chosen), score[chosen]) for name in species
                 for chosen in (frames.live | (frames.scene == name),)}
        rows.append([cue, f"{whole.value:.2f}", *("-" if each is None else f"{each.value:.2f}"
                                                  for each in areas.values())])
        values.append([whole.value, *(np.nan if each is None else each.value for each in areas.values())])
        bounded = cue in BOUNDED_CUES
        if not bounded:
            findings.add(reported(CUE, cue, "all attacks", whole))
            continue
        findings.add(Line(
            check=CUE, what=cue, scope="all attacks", value=whole.value, bound=f"≤ {BOUNDS.cue:.2f}", low=whole.low,
            high=whole.high, status=Status.PASSED if whole.value <= BOUNDS.cue else Status.FAILED,
            units=f"{whole.live} live, {whole.attacks} attack recordings"))
        near = [name for name, each in areas.items() if each and abs(each.value - 0.5) <= BOUNDS.cue_chance]
        findings.add(number_line(
            CUE, f"{cue}: species near chance (area within {BOUNDS.cue_chance:.2f} of 0.5)", "all attacks",
            float(len(near)), f"≥ {BOUNDS.cue_chance_species}", len(near) >= BOUNDS.cue_chance_species,
            note=", ".join(near)))
    findings.tables["Single cues by species: area under the ROC curve, direction fixed over all attacks"] = rows
    findings.matrices["single_cues"] = {"rows": [row[0] for row in rows[1:]], "columns": rows[0][1:], "values": values}


def _area(frames: Frames, score: Scores) -> Area | None:
    return area(units(score, frames.live, frames.domain, frames.person.astype(str), frames.recording), resamples=300)


def check_modalities(frames: Frames, findings: Findings, *, steps: int = 300) -> None:
    """The small network on each modality alone: who is accepted at the bound's BPCER, and where it is blind."""
    species = sorted(set(frames.scene.tolist()) - {BONA_FIDE})
    scores = {name: cnn_scores(frames, channels, steps=steps) for name, channels in MODALITIES.items()}
    scores["all three"] = cnn_scores(frames, steps=steps)
    rows = [["modality alone", "all attacks", *species]]
    areas: dict[str, dict[str, Area | None]] = {}
    for name, score in scores.items():
        areas[name] = {each: area_of(frames.taken(chosen), score[chosen]) for each in species
                       for chosen in (frames.live | (frames.scene == each),)}
        whole = area_of(frames, score)
        findings.add(reported(MODALITY, f"small network on {name}, in its domains", "all attacks", whole))
        accepted = _accepted(frames, score)
        rows.append([name, "-" if whole is None else f"{whole.value:.2f}", *(
            "-" if (found := areas[name][each]) is None else f"{found.value:.2f} ({accepted[each]:.0%})"
            for each in species)])
        if name == "all three":
            continue
        sizes = {each: len(set(frames.recording[frames.scene == each])) for each in species}
        worst = max(species, key=lambda each: (sizes[each] >= BOUNDS.fewest, accepted[each]))
        # One or two species that have enough recordings are not the worst of all.
        judged = sum(size >= BOUNDS.fewest for size in sizes.values())
        value = accepted[worst] if judged >= BOUNDS.cue_chance_species else None
        findings.add(number_line(
            MODALITY, f"{name} alone: worst species' APCER at BPCER {BOUNDS.bpcer:.0%}", f"species {worst}", value,
            f"≥ {BOUNDS.apcer:.2f}", value is not None and value >= BOUNDS.apcer, units=f"{sizes[worst]} recordings"))
    lag_1, pairs = lagged_correlation(frames, scores["all three"])
    findings.add(Line(check=MODALITY, what="correlation of the network's scores between successive frames, beyond "
                      "what domain and scene explain", scope="all recordings", value=lag_1, bound="",
                      status=Status.REPORTED, units=f"{pairs} pairs of frames",
                      note="a decision over several frames gains less the nearer this is to 1"))
    for name in MODALITIES:
        others = [other for other in MODALITIES if other != name]
        only = [each for each in species if (own := areas[name][each]) and own.value >= BOUNDS.informative
                and all((other := areas[it][each]) and other.value <= BOUNDS.uninformative for it in others)]
        findings.add(number_line(
            MODALITY, f"{name}: species that it alone tells (own area ≥ {BOUNDS.informative:.2f}, others' ≤ "
            f"{BOUNDS.uninformative:.2f})", "all attacks", float(len(only)), "≥ 1", bool(only), note=", ".join(only)))
    findings.tables[f"Species × modality: area of the small network (APCER at BPCER {BOUNDS.bpcer:.0%} in brackets)"
                    ] = rows
    findings.matrices["modalities"] = {
        "rows": list(scores), "columns": species,
        "values": [[np.nan if (found := areas[name][each]) is None else found.value for each in species]
                   for name in scores]}


def check_unseen_domains(frames: Frames, findings: Findings, *, steps: int = 300) -> None:
    """Each modality trained on the other domains: somewhere it must mislead."""
    domains = [str(each) for each in np.unique(frames.domain)]
    if len(domains) < 2:
        return
    from mmdg_model.probes.small_cnn import scores_of_others

    rows = [["modality alone", *(f"{domain}, unseen" for domain in domains)]]
    for name, channels in MODALITIES.items():
        worst: tuple[float, str, str] = (np.inf, "", "")
        cells = []
        for domain in domains:
            unseen = frames.domain == domain
            planes = np.ascontiguousarray(frames.planes[..., list(channels)])
            scores = scores_of_others(planes[~unseen], frames.live[~unseen], planes[unseen], steps=steps)
            subset = frames.taken(unseen)
            whole = area_of(subset, scores)
            cells.append("-" if whole is None else f"{whole.value:.2f}")
            for species in sorted(set(subset.scene.tolist()) - {BONA_FIDE}):
                chosen = subset.live | (subset.scene == species)
                found = area_of(subset.taken(chosen), scores[chosen])
                if found is not None and len(set(subset.recording[subset.scene == species])) >= 3:
                    worst = min(worst, (found.value, species, domain))
        rows.append([name, *cells])
        value = worst[0] if np.isfinite(worst[0]) else None
        findings.add(number_line(
            MODALITY, f"{name} alone, domain unseen in training: smallest area (misleading somewhere)",
            f"species {worst[1]}, domain {worst[2]}", value, f"≤ {BOUNDS.misleading:.2f}",
            value is not None and value <= BOUNDS.misleading))
    findings.tables["Each modality trained on the other domains: area in the unseen one"] = rows


def lagged_correlation(frames: Frames, score: Scores) -> tuple[float | None, int]:
    """Correlation of a frame's score with the next one's of its recording, each less the mean of its domain and scene;
    None where fewer than three pairs exist. Also the number of pairs."""
    _, kind = np.unique(np.char.add(frames.domain, frames.scene), return_inverse=True)
    rest = score - (np.bincount(kind, weights=score) / np.bincount(kind))[kind]
    order = np.lexsort((frames.index, frames.recording))
    follows = frames.recording[order][1:] == frames.recording[order][:-1]
    one, other = rest[order][:-1][follows], rest[order][1:][follows]
    if len(one) < 3 or one.std() == 0 or other.std() == 0:
        return None, len(one)
    return float(np.corrcoef(one, other)[0, 1]), len(one)


def _accepted(frames: Frames, score: Scores) -> dict[str, float]:
    """APCER of each species, recording by recording, at the threshold that refuses the bound's share of live ones."""
    known = units(score, frames.live, frames.domain, frames.person.astype(str), frames.recording)
    threshold = np.quantile(known.score[known.live], BOUNDS.bpcer)
    recordings, first, member = np.unique(frames.recording, return_index=True, return_inverse=True)
    mean = np.bincount(member, weights=score) / np.bincount(member)
    scene = frames.scene[first]
    assert len(recordings) == len(mean)
    return {str(name): float((mean[scene == name] >= threshold).mean()) for name in np.unique(scene)
            if name != BONA_FIDE}


def _by_recording(frames: Frames, values: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    """Mean of each recording, and its scene; recordings with nothing measured are left out."""
    known = np.isfinite(values)
    _, first, member = np.unique(frames.recording[known], return_index=True, return_inverse=True)
    return np.bincount(member, weights=values[known]) / np.bincount(member), frames.scene[known][first]


def check_hard_cases(frames: Frames, findings: Findings) -> None:
    """Attacks as hard as they should be, measured against the live faces of the same tree."""
    cue = {name: _by_recording(frames, frames.cues[:, number]) for number, name in enumerate(CUES)}
    holes, scene = cue["hole_fraction"]
    live = holes[scene == BONA_FIDE]
    replays = holes[np.isin(scene, _REPLAYS)]
    few = float(np.quantile(replays, 0.10)) if len(replays) else None
    share = None if few is None else float((live >= few).mean())
    findings.add(number_line(
        HARD, "bona fide recordings with as many holes as the tenth of the replays with fewest", "all domains", share,
        f"≥ {BOUNDS.hard_share:.2f}", share is not None and share >= BOUNDS.hard_share,
        units=f"{len(live)} live, {len(replays)} replay recordings",
        note="" if few is None else (f"replays' 10 % quantile {few:.3f}, live 95 % quantile "
                                     f"{np.quantile(live, 0.95):.3f}")))
    for what, names, measure, side in (
            ("a print bent on a form, with the relief of a head",
             ("bent_print", "formed_print", "bent_print_eyes_cut", "bent_print_eyes_nose_cut",
              "bent_print_eyes_nose_mouth_cut"), "plane_residual_mm", "at least"),
            ("a mask with true relief", ("rigid_mask", "silicone_mask", "mannequin_head"), "plane_residual_mm",
             "at least"),
            ("silicone as bright in infrared as skin", ("silicone_mask",), "infrared_mean", "at least"),
            ("a matte screen without holes", ("matte_display_replay",), "hole_fraction", "at most"),
            ("dye ink without its picture at 850 nm", ("dye_print", "glossy_print", "cloth_print"), "infrared_texture",
             "at most"),
            ("partial attacks with the depth of a face",
             ("half_mask", "printed_eye_glasses", "paper_glasses", "heavy_make_up", "face_tattoo"),
             "plane_residual_mm", "at least")):
        values, scenes = cue[measure]
        chosen = values[np.isin(scenes, names)]
        if not len(chosen):
            findings.add(number_line(HARD, what, "all domains", None, "in the tree", False,
                                     note=f"no recording of {', '.join(names)}"))
            continue
        people = values[scenes == BONA_FIDE]
        # A tenth of the live faces lies beyond: an attack's middle one must lie among the other nine tenths.
        limit = float(np.quantile(people, 0.10 if side == "at least" else 0.90))
        middle = float(np.median(chosen))
        holds = middle >= limit if side == "at least" else middle <= limit
        findings.add(number_line(
            HARD, f"{what}: median {measure}", "all domains", middle,
            f"≥ {limit:.3g} (live 10 % quantile)" if side == "at least" else f"≤ {limit:.3g} (live 90 % quantile)",
            holds, units=f"{len(chosen)} recordings"))
