"""Policies in an integrator's words, compiled to an accept threshold that recorded sessions vouch for. Pure.

The sequential test's α and β hold for its model of the scores. What holds for sessions as they are recorded is shown
here, by Learn then Test (Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then Test: calibrating predictive
algorithms to achieve risk control", 2021) with fixed-sequence testing:

- the thresholds are fixed before the sessions are looked at, and tested from the strictest to the loosest;
- the hypothesis at a threshold is "some species has APCER > apcer_max". Its p-value is the largest of the species'
  exact binomial ones, P(Bin(n, apcer_max) <= accepted): an intersection-union test, so the worst species decides and no
  correction for the number of species is due;
- the first threshold that is not rejected at δ = 1 - confidence ends it; the last rejected one is chosen. Then the
  chance over sessions that a threshold with APCER > apcer_max was chosen is at most δ, whatever the scores are like.

BPCER is exactly bounded on the bona fide sessions, which had no say in the choice; where the policy demands
`bpcer_max`, it is tested there at the same δ. Each of the two statements holds with the stated confidence, both
together with at least 1 - 2δ. Sessions must be exchangeable with those to come: nothing is said of species or cameras
that are not among them, nor if the scores were calibrated on the same sessions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mmdg_model.scorer import Modality, Purpose
from mmdg_model.whole_file import write_whole
from pipeline.policy import Policy, PolicyError, parse_policy
from pipeline.sequential_test import effective, floor_ms

#: Of the file. A file of another version is refused. 2: `calibration_id` of 16 digits, camera kinds, counts of people.
#: 3: the policy's own `camera_kinds`.
VERSION = 3
#: Thresholds tried between the most evidence that a session can gather and the policy's own bound.
THRESHOLDS = 400


class CompiledPolicyError(PolicyError):
    """A compiled policy cannot be used; the message quotes the file, the key and the value."""


class UnsupportedPolicyError(PolicyError):
    """The sessions cannot vouch for the policy; the message says what they would need to be, and what they support.

    Attributes:
        needed: sessions of each species without one accepted that the demanded APCER takes.
        missing: how many each species lacks of them; empty where numbers are not what is wrong.
    """

    def __init__(self, message: str, needed: int, missing: Mapping[str, int]) -> None:
        super().__init__(message)
        self.needed, self.missing = needed, dict(missing)


class PolicyRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an integrator demands.

    Attributes:
        apcer_max: of the worst species, in (0, 0.5). bpcer_max: null = not demanded; BPCER is bounded and reported.
        deadline_ms: of a session. No session of the evidence may be shorter.
        confidence: 1 - δ, in [0.5, 1).
        species: that must be among the sessions; whatever else is there is tested, too.
        settings: any other value of `pipeline.policy.Policy`.
    """

    name: str
    apcer_max: float
    deadline_ms: int
    bpcer_max: float | None = None
    confidence: float = 0.95
    species: tuple[str, ...] = ()
    required_modalities: tuple[Modality, ...] = Policy().required_modalities
    allowed_purposes: tuple[Purpose, ...] = (Purpose.RELEASE,)
    settings: dict[str, Any] = {}

    def policy(self, place: str = "policy") -> Policy:
        """The policy before any threshold: Wald's bounds of the demanded rates.

        Raises:
            PolicyError: an unknown setting, one that is stated twice, a value out of range.
        """
        if not 0.5 <= self.confidence < 1:
            raise PolicyError(f"{place}.confidence: {self.confidence!r} is out of range, allowed is [0.5, 1)")
        own = {"name", "apcer_max", "bpcer_max", "deadline_ms", "required_modalities", "allowed_purposes"}
        if wrong := sorted(own & set(self.settings) | {"threshold_id", "camera_kinds"} & set(self.settings)):
            raise PolicyError(f"{place}.settings.{wrong[0]}: state it one level up, or not at all")
        values = {"name": self.name, "apcer_max": self.apcer_max, "deadline_ms": self.deadline_ms,
                  "required_modalities": self.required_modalities, "allowed_purposes": self.allowed_purposes,
                  **self.settings}
        if self.bpcer_max is not None:
            values["bpcer_max"] = self.bpcer_max
        return parse_policy(msgspec.to_builtins(values), place)


def parse_request(values: object, place: str) -> PolicyRequest:
    """From configuration values; checked as a policy, too.

    Raises:
        PolicyError: as `PolicyRequest.policy`, or not a request; names the place.
    """
    try:
        request = msgspec.convert(values, PolicyRequest)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: a lone surrogate
        raise PolicyError(f"{place}: {error}") from None
    request.policy(place)
    return request


@dataclass(frozen=True, kw_only=True)
class SessionPeak:
    """What the sequential test made of one recorded session.

    Attributes:
        peak: the most evidence that ever spoke for acceptance before the session was rejected, in nats; -inf for none.
            At a threshold the session is accepted if and only if peak >= threshold.
        responded: at least one frame was scored. duration_ms: from the first frame to the last.
    """

    species: str
    live: bool
    person: str
    peak: float
    responded: bool
    duration_ms: float


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sessions were judged with, and which they are.

    Attributes:
        calibration_id: of what made logits evidence, 16 hexadecimal digits: of an operating-point file, or of the
            checkpoint's own operating point; `none` without either. calibration: which of these it is.
        sessions_sha256: of each folder. splits: of the sessions.
        frame_period_ms: the shortest among the sessions. simulated: they are; simulated and recorded never mix.
        camera_kinds: of the sessions (`CameraDescription.camera_kind`).
        apart_from_calibration: none of them was used to calibrate the scores; null = nobody can tell.
    """

    model_hash: str
    purpose: Purpose
    calibration_id: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{16}|none)$")]
    calibration: Literal["checkpoint", "file", "none"]
    camera_kinds: tuple[str, ...]
    sessions_sha256: tuple[str, ...]
    splits: tuple[str, ...]
    frame_period_ms: float
    simulated: bool
    apart_from_calibration: bool | None
    command: str
    date: str


class SpeciesEvidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Attack sessions of one species at the threshold.

    Attributes:
        people: whom they depict. accepted_people: of them, with at least one session accepted.
        p_value: of "APCER > apcer_max". upper_bound: of APCER, one-sided, at the confidence, as if sessions of one
            person told as much as those of several. people_upper_bound: of the share of people with a session
            accepted, which needs no such thing.
    """

    sessions: int
    people: int
    non_response: int
    accepted: int
    accepted_people: int
    p_value: float
    upper_bound: float
    people_upper_bound: float


class LiveEvidence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bona fide sessions at the threshold. p_value: of "BPCER > bpcer_max", null where none is demanded.

    refused_people: with at least one session refused; people_upper_bound: of their share.
    """

    sessions: int
    people: int
    non_response: int
    refused: int
    refused_people: int
    upper_bound: float
    people_upper_bound: float
    p_value: float | None


class TriedThreshold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step of the fixed sequence: the species with the largest p-value."""

    threshold: float
    worst_species: str
    accepted: int
    sessions: int
    p_value: float
    live_accepted: int


class CompiledPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy with its threshold and all that it rests on.

    Attributes:
        policy: before the threshold. threshold: nats of evidence that acceptance takes, at least the policy's bound.
        tried: the sequence, from the strictest threshold to the first that failed; steps that accept the same sessions
            are told once.
        floor_ms: least time from a session's first scored frame to its acceptance; null when out of reach.
        threshold_id: SHA-256 of all the rest.
    """

    version: int
    request: PolicyRequest
    policy: Policy
    threshold: float
    species: dict[str, SpeciesEvidence]
    bona_fide: LiveEvidence
    tried: tuple[TriedThreshold, ...]
    floor_ms: float | None
    provenance: Provenance
    threshold_id: str = ""

    @property
    def worst_species(self) -> str:
        """With the largest bound; by name among equals."""
        return max(self.species, key=lambda name: (self.species[name].upper_bound, name))

    def digest(self) -> str:
        """What `threshold_id` must be."""
        values = msgspec.to_builtins(self)
        del values["threshold_id"]
        return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":"),
                                         allow_nan=False).encode()).hexdigest()

    def in_force(self) -> Policy:
        """What decides: the policy with its bound of acceptance raised to the threshold, never lowered, on the kinds of
        camera that the sessions were of."""
        return msgspec.structs.replace(self.policy, threshold_id=self.threshold_id,
                                       camera_kinds=self.provenance.camera_kinds,
                                       min_accept_evidence=max(self.policy.min_accept_evidence, self.threshold))


def sessions_needed(apcer_max: float, confidence: float) -> int:
    """Sessions of a species, none of them accepted, that show APCER <= apcer_max: ln δ / ln(1 - apcer_max), rounded up.

    149 for 2 %, 299 for 1 % and 2,995 for 0.1 % at a confidence of 0.95.
    """
    return math.ceil(math.log(1 - confidence) / math.log1p(-apcer_max) - 1e-12)


def threshold_grid(policy: Policy, frame_period_ms: float, number: int = THRESHOLDS) -> NDArray[np.float64]:
    """Thresholds from the strictest to the policy's own bound: fixed by the policy, not by what the sessions did.

    Args:
        policy: with its operating point applied (`Policy.calibrated`). frame_period_ms: between scored frames.
    """
    frames = math.floor(policy.deadline_ms / frame_period_ms + 1e-9) + 1
    most = policy.bounded(policy.llr_clip * effective(frames, policy))
    return np.linspace(max(most, policy.upper_bound), policy.upper_bound, number)


def compile_policy(request: PolicyRequest, sessions: Sequence[SessionPeak], provenance: Provenance,
                   *calibrated: Policy) -> CompiledPolicy:
    """Learn then Test, see the module.

    Args:
        sessions: judged by the real sequential test under `calibrated`.
        calibrated: `request.policy()` with the operating point of the scores applied; with an operating-point file
            each of its maps that counts. Thresholds begin at the most evidence that any of them allows.

    Raises:
        UnsupportedPolicyError: too few sessions, too many accepted, or none bona fide accepted.
        PolicyError: no session of a label, a demanded species that is missing, a session shorter than the deadline.
    """
    policy = request.policy()
    live, attacks = [each for each in sessions if each.live], [each for each in sessions if not each.live]
    _check_sessions(request, sessions, provenance)
    by_species = {name: [each for each in attacks if each.species == name]
                  for name in sorted({each.species for each in attacks})}
    delta = 1 - request.confidence
    thresholds = max((threshold_grid(one, provenance.frame_period_ms) for one in calibrated), key=lambda grid: grid[0])
    names = list(by_species)
    totals = np.array([len(by_species[name]) for name in names])
    accepted = np.array([_accepted(by_species[name], thresholds) for name in names])  # [species, thresholds]
    p_values = np.asarray(stats.binom.cdf(accepted, totals[:, None], request.apcer_max), np.float64)
    worst = p_values.argmax(axis=0)
    live_accepted = _accepted(live, thresholds)
    largest = p_values.max(axis=0)
    failing = np.flatnonzero(largest > delta)
    chosen = (int(failing[0]) if len(failing) else len(thresholds)) - 1
    if chosen < 0 or not live_accepted[chosen]:
        raise _unsupported(request, by_species, thresholds, live, chosen)
    refused = len(live) - int(live_accepted[chosen])
    bpcer = _bound(refused, len(live), request.confidence)
    live_p = None if request.bpcer_max is None else float(stats.binom.cdf(refused, len(live), request.bpcer_max))
    if request.bpcer_max is not None and live_p is not None and live_p > delta:
        takes = sessions_needed(request.bpcer_max, request.confidence)
        raise UnsupportedPolicyError(
            f"policy {request.name!r}: at {thresholds[chosen]:.3f} nats, the loosest threshold at which APCER <= "
            f"{request.apcer_max:g} is shown, {refused} of {len(live)} bona fide sessions are refused: BPCER <= "
            f"{bpcer:.3g} at {request.confidence:.0%} confidence, demanded is {request.bpcer_max:g}"
            + (f"; that takes {takes} sessions without one refused" if refused == 0 else
               "; a better network, or a larger bpcer_max or apcer_max"),
            sessions_needed(request.apcer_max, request.confidence), {})
    last = min(chosen + 1, len(thresholds) - 1)
    both = np.vstack([accepted, live_accepted])
    steps = [index for index in range(last + 1)
             if index in (0, chosen, last) or (both[:, index] != both[:, index - 1]).any()]
    compiled = CompiledPolicy(
        version=VERSION, request=request, policy=policy, threshold=float(thresholds[chosen]), provenance=provenance,
        species={name: SpeciesEvidence(
            sessions=len(each), people=len({one.person for one in each}),
            non_response=sum(not one.responded for one in each), accepted=int(accepted[row, chosen]),
            accepted_people=len(_people(each, thresholds[chosen], accepted=True)), p_value=float(p_values[row, chosen]),
            upper_bound=_bound(int(accepted[row, chosen]), len(each), request.confidence),
            people_upper_bound=_bound(len(_people(each, thresholds[chosen], accepted=True)),
                                      len({one.person for one in each}), request.confidence))
            for row, (name, each) in enumerate(by_species.items())},
        bona_fide=LiveEvidence(sessions=len(live), people=len({one.person for one in live}),
                               non_response=sum(not one.responded for one in live), refused=refused,
                               refused_people=len(_people(live, thresholds[chosen], accepted=False)),
                               people_upper_bound=_bound(len(_people(live, thresholds[chosen], accepted=False)),
                                                         len({one.person for one in live}), request.confidence),
                               upper_bound=bpcer, p_value=live_p),
        tried=tuple(TriedThreshold(
            threshold=float(thresholds[index]), worst_species=names[int(worst[index])],
            accepted=int(accepted[worst[index], index]), sessions=int(totals[worst[index]]),
            p_value=float(largest[index]), live_accepted=int(live_accepted[index])) for index in steps),
        floor_ms=min((time for one in calibrated if (time := floor_ms(
            one, provenance.frame_period_ms, float(thresholds[chosen]))) is not None), default=None))
    return msgspec.structs.replace(compiled, threshold_id=compiled.digest())


def _check_sessions(request: PolicyRequest, sessions: Sequence[SessionPeak], provenance: Provenance) -> None:
    names = Counter(each.species for each in sessions if not each.live)
    live = sum(each.live for each in sessions)
    if not names or not live:
        raise PolicyError(f"policy {request.name!r}: {live} bona fide and {sum(names.values())} attack sessions; both "
                          "are needed")
    if absent := sorted(set(request.species) - set(names)):
        raise PolicyError(f"policy {request.name!r}: no session of {absent[0]!r}, which the policy demands; there are "
                          f"{', '.join(sorted(names))}")
    if provenance.purpose not in request.allowed_purposes:
        allowed = ", ".join(one.value for one in request.allowed_purposes)
        raise PolicyError(f"policy {request.name!r}: allowed_purposes [{allowed}] "
                          f"leave out the checkpoint's, {provenance.purpose.value}: it would decide nothing")
    shortest_ms = min(each.duration_ms for each in sessions)
    if shortest_ms + provenance.frame_period_ms <= request.deadline_ms:
        raise PolicyError(f"policy {request.name!r}: deadline_ms {request.deadline_ms} is longer than the shortest "
                          f"session, {shortest_ms:.0f} ms: an attacker would have more time than was tested. Record "
                          f"longer sessions, or demand a deadline_ms of at most {math.floor(shortest_ms)}")


def _unsupported(request: PolicyRequest, by_species: Mapping[str, Sequence[SessionPeak]],
                 thresholds: NDArray[np.float64], live: Sequence[SessionPeak], chosen: int) -> UnsupportedPolicyError:
    """Says what is lacking, and what these sessions would have supported."""
    needed = sessions_needed(request.apcer_max, request.confidence)
    missing = {name: needed - len(each) for name, each in by_species.items() if len(each) < needed}
    demanded = f"APCER <= {request.apcer_max:g} of every species at {request.confidence:.0%} confidence"
    if missing:
        there = ", ".join(f"{name} {len(by_species[name])}" for name in missing)
        why = f"{demanded} takes {needed} sessions of each species without one accepted; there are {there}"
    elif chosen < 0:
        first = thresholds[:1]
        name = max(by_species, key=lambda one: _accepted(by_species[one], first)[0] / len(by_species[one]))
        why = (f"{demanded} is not shown even at the strictest threshold, {first[0]:.3f} nats: of {name} "
               f"{_accepted(by_species[name], first)[0]} of {len(by_species[name])} sessions are accepted")
    else:
        why = (f"{demanded} is shown from {thresholds[chosen]:.3f} nats on, where none of {len(live)} bona fide "
               "sessions is accepted any more")
    usable = np.flatnonzero(_accepted(live, thresholds) > 0)
    said = "no bona fide session is accepted at any threshold"
    if len(usable):
        said = "; ".join(_supports(thresholds[index], by_species, live, request.confidence)
                         for index in dict.fromkeys((int(usable[0]), len(thresholds) - 1)))
    return UnsupportedPolicyError(f"policy {request.name!r}: {why}. What the sessions would support: {said}", needed,
                                  missing)


def _supports(threshold: float, by_species: Mapping[str, Sequence[SessionPeak]], live: Sequence[SessionPeak],
              confidence: float) -> str:
    at = np.array([threshold])
    bounds = {name: _bound(int(_accepted(each, at)[0]), len(each), confidence) for name, each in by_species.items()}
    worst = max(bounds, key=lambda name: bounds[name])
    return (f"at {threshold:.3f} nats APCER <= {bounds[worst]:.3g} ({worst}), with "
            f"{len(live) - int(_accepted(live, at)[0])} of {len(live)} bona fide sessions refused")


def _people(sessions: Sequence[SessionPeak], threshold: float, *, accepted: bool) -> set[str]:
    """Who has at least one session that is accepted, or refused."""
    return {each.person for each in sessions if (each.peak >= threshold) is accepted}


def _accepted(sessions: Sequence[SessionPeak], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    peaks = np.sort([each.peak for each in sessions])
    return (len(peaks) - np.searchsorted(peaks, thresholds, side="left")).astype(np.int64)


def _bound(count: int, trials: int, confidence: float) -> float:
    """One-sided Clopper-Pearson upper bound."""
    return 1.0 if count == trials else float(stats.beta.ppf(confidence, count + 1, trials - count))


def write_compiled(compiled: CompiledPolicy, path: Path) -> None:
    """Writes it whole or not at all."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(compiled), indent=1) + b"\n")


def read_compiled(path: Path) -> CompiledPolicy:
    """Strictly back; whoever changed a digit is found out by `threshold_id`.

    Raises:
        CompiledPolicyError: unreadable, another version, another hash, a threshold below the policy's own bound.
    """
    try:
        compiled = msgspec.json.decode(path.read_bytes(), type=CompiledPolicy)
        compiled.policy.check("policy")
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError, PolicyError, RecursionError) as error:
        raise CompiledPolicyError(f"{path}: no compiled policy ({error}); compile it again: mmdg policy compile"
                                  ) from error
    if compiled.version != VERSION:
        raise CompiledPolicyError(f"{path}: version {compiled.version}, this program reads {VERSION}; compile it again")
    if compiled.threshold_id != compiled.digest():
        raise CompiledPolicyError(f"{path}: threshold_id {compiled.threshold_id!r} is not that of its content; it was "
                                  "changed by hand or damaged, compile it again")
    if compiled.policy.threshold_id is not None or compiled.threshold < compiled.policy.upper_bound:
        raise CompiledPolicyError(f"{path}: threshold {compiled.threshold!r} is below the policy's own bound of "
                                  f"{compiled.policy.upper_bound:.6g} nats; compile it again")
    return compiled
