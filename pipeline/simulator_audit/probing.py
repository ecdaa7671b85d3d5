"""Checks 1 and 2: probes on null attacks, on null domains, and on what must not tell the label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmdg_model.training.samples import BONA_FIDE
from pipeline.simulator_audit.areas import Area, area, units
from pipeline.simulator_audit.findings import BOUNDS, Findings, at_chance, at_most, number_line, reported
from pipeline.simulator_audit.frames import AuditError, Frames
from pipeline.simulator_audit.linear_probe import (
    Folds,
    fold_of_groups,
    folds_by,
    folds_by_both,
    held_out_scores,
)

NULL_ATTACK, NULL_DOMAIN, LEAKAGE = "1 null attack", "1 null domain", "2 leakage"

#: Metadata: what a probe may read without opening a picture, and what surrounds the picture.
NEVER_CONTENT = ("JPEG tables", "names", "box", "borders", "camera", "place")
METADATA = ("file sizes", *NEVER_CONTENT)
BACKGROUND = ("background outside the box", "wall behind the face")
PICTURES = ("thumbnail colour", "thumbnail depth", "thumbnail infrared", "high-pass colour", "high-pass depth",
            "high-pass infrared")
#: Folds of people for the small network.
CNN_FOLDS = 3
#: Levels that the planted leak adds to one corner of every attack's colour.
PLANTED_LEVELS = 12
#: A species is probed by itself where it has enough recordings, and of so many people, in one domain.
_FEWEST_PEOPLE = 5
#: With fewer places, too little is left to train on once one is held out with people.
_FEWEST_PLACES = 3

Scores = NDArray[np.float64]


def _folds(frames: Frames) -> Folds:
    """Neither a person nor a place of a test was trained on; by person alone where there are too few places."""
    if len(np.unique(frames.place)) < _FEWEST_PLACES:
        return folds_by(frames.person.astype(str))
    return folds_by_both(frames.person.astype(str), frames.place)


def linear_scores(frames: Frames, names: Sequence[str], *, by_domain: bool) -> Scores | None:
    """Held-out scores of one linear probe on some groups of features, one a domain or one for all."""
    features = np.hstack([frames.probes[name] for name in names])
    if not by_domain:
        return held_out_scores(features, frames.live, _folds(frames), frames.domain)
    scores = np.full(len(frames), np.nan)
    for domain in np.unique(frames.domain):
        here = frames.domain == domain
        found = held_out_scores(features[here], frames.live[here], _folds(frames.taken(here)))
        if found is not None:
            scores[here] = found
    return None if np.isnan(scores).all() else scores


def area_of(frames: Frames, scores: Scores | None) -> Area | None:
    """Live against all attacks of the frames given, by recording and person."""
    if scores is None:
        return None
    return area(units(scores, frames.live, frames.domain, frames.person.astype(str), frames.recording))


def cnn_scores(frames: Frames, channels: Sequence[int] | None = None, *, steps: int = 300) -> Scores:
    """Held-out scores of the small network over all domains; some channels of `CHANNELS`, or all."""
    from mmdg_model.probes.small_cnn import held_out_scores as scores_of_network

    planes = frames.planes if channels is None else frames.planes[..., list(channels)]
    fold = fold_of_groups(frames.person.astype(str), CNN_FOLDS)
    try:
        return scores_of_network(np.ascontiguousarray(planes), frames.live, fold, steps=steps)
    except ValueError as error:
        raise AuditError(str(error)) from None


def planted(frames: Frames) -> Frames:
    """The frames with a leak in every attack's colour: one corner brighter, and a faint grid over all of it."""
    attacks = np.flatnonzero(~frames.live)
    planes = frames.planes.copy()
    grid = np.where(np.indices(planes.shape[1:3]).sum(axis=0) % 2 == 0, PLANTED_LEVELS, 0)[..., None]
    planes[attacks, ..., :3] = np.clip(planes[attacks, ..., :3].astype(np.int16) + grid, 0, 255)
    thumbnail = frames.probes["thumbnail colour"].copy()
    thumbnail[attacks, :3] += PLANTED_LEVELS
    return Frames(**{**vars(frames), "planes": planes,
                     "probes": {**frames.probes, "thumbnail colour": thumbnail}})


def check_null_attack(frames: Frames, findings: Findings, *, steps: int = 300) -> None:
    """Attacks with their physics off against live faces: no probe may tell them apart."""
    everything = {**{f"linear, {name}": (name,) for name in (*METADATA, *BACKGROUND, *PICTURES)},
                  "linear, all metadata": METADATA,
                  "linear, all metadata but sizes": NEVER_CONTENT, "linear, all pictures": PICTURES}
    for what, names in everything.items():
        # A group that is constant, as JPEG tables are, tells nothing: that is what is wanted, and no area exists.
        scores = linear_scores(frames, names, by_domain=False)
        if scores is None:
            findings.add(number_line(NULL_ATTACK, what, "all domains", 0.5, "at chance", True,
                                     note="constant within every domain"))
            continue
        findings.add(at_chance(NULL_ATTACK, what, "all domains", area_of(frames, scores)))
    scores = cnn_scores(frames, steps=steps)
    findings.add(at_chance(NULL_ATTACK, "small network, three modalities", "all domains",
                           area_of(frames, scores)))
    for domain in np.unique(frames.domain):
        here = frames.domain == domain
        findings.add(reported(NULL_ATTACK, "small network, three modalities", f"domain {domain}",
                              area_of(frames.taken(here), scores[here])))
    leaky = planted(frames)
    for what, found in (("linear probe", linear_scores(leaky, ("thumbnail colour",), by_domain=False)),
                        ("small network", cnn_scores(leaky, steps=steps))):
        area_found = area_of(leaky, found)
        value = None if area_found is None else area_found.value
        findings.add(number_line(
            NULL_ATTACK, f"control: {what} finds a planted leak of {PLANTED_LEVELS} levels", "all domains",
            value, f"≥ {BOUNDS.planted:.2f}", value is not None and value >= BOUNDS.planted,
            low=None if area_found is None else area_found.low, high=None if area_found is None else area_found.high))


def check_null_domain(frames: Frames, other: Frames, findings: Findings) -> None:
    """The same specification with another seed: which tree is it? Crossed by place, since places belong to a seed."""
    shared = np.intersect1d(np.unique(frames.domain), np.unique(other.domain))
    one, two = (each.taken(np.isin(each.domain, shared)) for each in (frames, other))
    first = np.concatenate([np.ones(len(one), bool), np.zeros(len(two), bool)])
    domain = np.concatenate([one.domain, two.domain])
    place = np.concatenate([one.place, two.place])
    cluster = np.char.add(np.where(first, "first", "second"), place)
    recording = np.char.add(np.where(first, "first", "second"), np.concatenate([one.recording, two.recording]))
    folds = folds_by(place)
    groups = {**{name: (name,) for name in (*PICTURES, "box", "file sizes")}, "all pictures": PICTURES}
    for what, names in groups.items():
        features = np.hstack([np.concatenate([one.probes[name], two.probes[name]]) for name in names])
        scores = held_out_scores(features, first, folds, domain)
        if scores is None:
            continue
        measured = units(scores, first, domain, cluster, recording)
        findings.add(at_chance(NULL_DOMAIN, f"linear, {what}", "all domains", area(measured),
                               note="people are drawn by place"))


def check_leakage(frames: Frames, findings: Findings) -> None:
    """What should say nothing of the label, domain by domain and species by species."""
    probes = {**{name: (name,) for name in (*METADATA, *BACKGROUND)}, "all metadata": METADATA,
              "all metadata but sizes": NEVER_CONTENT}
    rows = [["probe", "domain", *(species := _species(frames))]]
    for what, names in {**probes, **{name: (name,) for name in PICTURES}}.items():
        bounded = what in probes
        of_all = linear_scores(frames, names, by_domain=True)
        for domain in np.unique(frames.domain):
            here = frames.domain == domain
            subset, scores = frames.taken(here), None if of_all is None else of_all[here]
            found = None if scores is None or np.isnan(scores).all() else area_of(subset, scores)
            scope = f"domain {domain}"
            if not bounded:
                findings.add(reported(LEAKAGE, what, scope, found))
            elif found is None:
                findings.add(number_line(LEAKAGE, what, scope, 0.5, f"≤ {BOUNDS.leak:.2f}", True, note="constant"))
            else:
                findings.add(at_most(LEAKAGE, what, scope, found, BOUNDS.leak))
        if of_all is None:
            continue
        by_species = {name: _area_of_species(frames, names, of_all, name) for name in species}
        rows.append([what, "all", *(_cell(each) for each in by_species.values())])
        if bounded:
            for name, found in by_species.items():
                findings.add(at_most(LEAKAGE, what, f"species {name}", found, BOUNDS.leak_of_species))
    findings.tables["Leakage probes by species: area under the ROC curve against live faces of the same domain"] = rows


def _species(frames: Frames) -> list[str]:
    return sorted(set(frames.scene.tolist()) - {BONA_FIDE})


def _area_of_species(frames: Frames, names: Sequence[str], of_all: Scores, species: str) -> Area | None:
    """A probe of the species' own wherever it has enough recordings, else the probe of all attacks."""
    scores = of_all.copy()
    chosen = frames.live | (frames.scene == species)
    features = np.hstack([frames.probes[name] for name in names])
    for domain in np.unique(frames.domain[frames.scene == species]):
        here = (frames.domain == domain) & chosen
        shown = frames.taken((frames.domain == domain) & (frames.scene == species))
        if len(set(shown.recording)) < BOUNDS.fewest or len(set(shown.person.tolist())) < _FEWEST_PEOPLE:
            continue
        own = held_out_scores(features[here], frames.live[here], _folds(frames.taken(here)))
        if own is not None:
            scores[here] = own
    return area_of(frames.taken(chosen), scores[chosen])


def _cell(found: Area | None) -> str:
    return "constant" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
