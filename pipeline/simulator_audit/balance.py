"""Checks 5 (non-response), 6 (serials) and 7: the label against cameras, places and identities; splits; priors."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations

import numpy as np

from calibration.error_rates import Proportion, Unit
from mmdg_model.training.manifests import COUNTS
from mmdg_model.training.samples import BONA_FIDE
from pipeline.simulator_audit.findings import BOUNDS, Findings, Line, Status, number_line
from pipeline.simulator_audit.frames import AuditedTree, Recorded

#: A place with fewer recordings may well have seen one label only.
_FEWEST_AT_A_PLACE = 12
#: A shorter list cannot show a ratio of labels.
_FEWEST_LINES = 40

MISSES, SERIALS, BALANCE = "5 non-response", "6 serials", "7 domain is not label"


def check_balance(tree: AuditedTree, findings: Findings) -> None:
    """From the records alone; no picture is read."""
    by_domain: dict[str, list[Recorded]] = defaultdict(list)
    for recording in tree.recordings:
        by_domain[recording.domain].append(recording)
    rows = [["domain", "camera", "live recordings", "attack recordings", "places", "identities"]]
    for domain, recordings in sorted(by_domain.items()):
        scope = f"domain {domain}"
        cameras = sorted({each.camera for each in recordings})
        both = [camera for camera in cameras if len({each.live for each in recordings if each.camera == camera}) == 2]
        findings.add(number_line(SERIALS, "cameras that filmed both labels", scope, float(len(both)),
                                 f"≥ {BOUNDS.serials} and all of them",
                                 len(both) >= BOUNDS.serials and both == cameras, note=", ".join(cameras)))
        for what, values in (("cameras", [each.camera for each in recordings]),
                             ("places", [str(each.place) for each in recordings])):
            association = _association([each.live for each in recordings], values)
            findings.add(number_line(BALANCE, f"association of the label with {what} (Cramér's V, corrected)", scope,
                                     association, f"≤ {BOUNDS.association:.2f}", association <= BOUNDS.association,
                                     units=f"{len(recordings)} recordings"))
        sizes = Counter(each.place for each in recordings)
        one_sided = [place for place in sizes if sizes[place] >= _FEWEST_AT_A_PLACE
                     and len({each.live for each in recordings if each.place == place}) == 1]
        findings.add(number_line(BALANCE, f"places with one label only, of those with {_FEWEST_AT_A_PLACE} recordings",
                                 scope, float(len(one_sided)), "0", not one_sided, units=f"{len(sizes)} places"))
        living = {each.person for each in recordings if each.live}
        depicted = {each.person for each in recordings if not each.live}
        share = len(living & depicted) / len(living | depicted)
        findings.add(number_line(BALANCE, "identities that are live and depicted", scope, share,
                                 f"≥ {BOUNDS.depicted:.2f}", share >= BOUNDS.depicted,
                                 units=f"{len(living | depicted)} identities",
                                 note=f"{len(living - depicted)} live only, {len(depicted - living)} depicted only"))
        for camera in cameras:
            own = [each for each in recordings if each.camera == camera]
            rows.append([domain, camera, str(sum(each.live for each in own)), str(sum(not each.live for each in own)),
                         str(len({each.place for each in own})), str(len({each.person for each in own}))])
    findings.tables["Label by camera"] = rows
    _check_splits(tree, findings)
    _check_priors(tree, findings)
    _check_misses(tree, findings)


def _association(live: list[bool], values: list[str]) -> float:
    """Bias-corrected Cramér's V (Bergsma, 2013): near zero for independent columns, however few the rows."""
    kinds, column = np.unique(values, return_inverse=True)
    table = np.zeros((2, len(kinds)))
    np.add.at(table, (np.array(live).astype(int), column), 1)
    number = table.sum()
    expected = table.sum(axis=1, keepdims=True) @ table.sum(axis=0, keepdims=True) / number
    if (expected == 0).any() or len(kinds) < 2:
        return 0.0
    phi = float(((table - expected) ** 2 / expected).sum() / number)
    corrected = max(0.0, phi - (len(kinds) - 1) / (number - 1))
    columns = len(kinds) - (len(kinds) - 1) ** 2 / (number - 1)
    rows = 2 - 1 / (number - 1)
    return float(np.sqrt(corrected / max(min(columns - 1, rows - 1), 1e-9)))


def _check_splits(tree: AuditedTree, findings: Findings) -> None:
    shared = sum(len(set(one) & set(two)) for (_, one), (_, two) in combinations(sorted(tree.identities.items()), 2))
    findings.add(number_line(BALANCE, "identities in more than one list", "all lists", float(shared), "0", shared == 0,
                             units=f"{sum(map(len, tree.identities.values()))} identities"))


def _check_priors(tree: AuditedTree, findings: Findings) -> None:
    for (domain, split), (lines, live) in sorted(tree.counts.items()):
        public = next((each for (letter, which), each in COUNTS.items() if (letter, which) == (domain, split)), None)
        if public is None or not public.lines:
            continue  # a domain without a public list has no prior to keep
        difference = abs(live / lines - public.live / public.lines)
        # A short list cannot come nearer than one recording; the shortest have two recordings of each label regardless.
        allowed = max(BOUNDS.prior, 3 / lines)
        status = Status.PASSED if difference <= allowed else (
            Status.FAILED if lines >= _FEWEST_LINES else Status.UNRESOLVED)
        findings.add(Line(check=BALANCE, what="share of live samples against the public list's",
                          scope=f"list {domain}-{split}", value=difference, bound=f"≤ {allowed:.2f}", status=status,
                          units=f"{lines} lines"))


def _check_misses(tree: AuditedTree, findings: Findings) -> None:
    rows = [["scene", "instants", "without a single face", "recordings", "recordings with any"]]
    for scene in sorted({each.scene for each in tree.recordings}):
        own = [each for each in tree.recordings if each.scene == scene]
        instants, missed = sum(each.instants for each in own), sum(each.missed for each in own)
        rows.append([scene, str(instants), f"{missed} ({missed / instants:.1%})", str(len(own)),
                     str(sum(each.missed > 0 for each in own))])
        if scene == BONA_FIDE:
            whole = Proportion(count=sum(each.missed > 0 for each in own), trials=len(own), unit=Unit.VIDEO)
            interval = whole.exact_interval()
            findings.add(number_line(
                MISSES, "bona fide instants without a single found face", "all domains", missed / instants,
                f"≤ {BOUNDS.missed:.2f}", missed / instants <= BOUNDS.missed, units=f"{instants} instants",
                note=f"recordings with any: {whole.count} of {whole.trials}, 95 % interval {interval.low:.1%} to "
                     f"{interval.high:.1%}"))
    findings.tables["Non-response: instants without a single found face"] = rows
