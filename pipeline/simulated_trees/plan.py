"""Which recordings a simulated list consists of, and where their files lie. Pure: nothing is rendered here.

Everything random is keyed by what it belongs to, never by a label: a session's camera, place, light, distance and
movement by (seed, domain, split, person, session), the sensors' noise by (..., instrument, session) as well. A person's
first attack happens in the very session of their first bona fide recording: same place, same distance, same movement.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from mmdg_model.training import casia_surf, cefa, live_sessions, padisi, wmca
from mmdg_model.training.samples import BONA_FIDE, Domain, Split
from pipeline.simulated_trees.domains import (
    DOMAINS,
    END_TONES,
    SUNLIGHT,
    TOO_NEAR_M,
    CameraSpecification,
    DomainSpecification,
    Range,
    SimulationError,
    rendered_species,
)

#: At most so many persons of one list, so that the numbers of persons of two lists never meet.
MOST_PERSONS = 10_000
#: Where the subjects of a split start to be numbered, so that no subject is in two splits.
_FIRST_SUBJECT = {Split.TRAIN: 0, Split.VALIDATION: 400, Split.TEST: 600}
_CEFA_FOLDERS = {species: folder for folder, species in cefa.MASKS.items()}
_CEFA_INSTRUMENTS = {species: number for number, species in cefa.INSTRUMENTS.items()}
_SURF_RECORDINGS = {species: recording for recording, species in casia_surf.SPECIES.items()}
_PADISI_CODES = {species: code for code, species in padisi.SPECIES.items()}
_SENSORS = {Domain.CASIA_SURF: "color", Domain.CEFA: "profile", Domain.WMCA: "color",
            Domain.LIVE: "color"}
#: Places of the heads of the main family that each split draws from: no face is in two splits.
_HEADS = {Split.TRAIN: range(104), Split.VALIDATION: range(104, 120), Split.TEST: range(120, 160)}


def keyed(*key: object) -> int:
    """A number of 48 bits that follows from the key alone, on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=6).digest(), "big")


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where and how a recording is made: everything that must not depend on the label. Units as in the specification.

    Attributes:
        camera: which one. place: number of the place, which decides `wall_seed` and the light.
        movement_seed: of sway and tremor, and of blinking where there is a live face.
        surroundings_seed: of what stands near (`capture.simulated.surroundings`); None: nothing does.
        fine_depth: depth is matched at the camera's finest resolution, whose nearest depth is beyond parts of
            a face that comes near (`presentation.session_profile`).
    """

    camera: CameraSpecification
    place: int
    wall_seed: int
    wall_m: float
    wall_yaw_rad: float
    towards_key: tuple[float, float, float]
    key_light: float
    ambient_light: float
    room_infrared: float
    infrared_exposure: float
    distance_m: float
    aside_m: tuple[float, float]
    frame_gap_s: float
    liveliness: float
    movement_seed: int
    surroundings_seed: int | None = None
    fine_depth: bool = False


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One presentation, filmed for a few frames.

    Attributes:
        key: names it within the tree. domain, split: its list.
        scene: of the simulator. species: the data set's name of the attack, or `bona_fide`.
        person: number of the person who is shown, live or depicted; unique over all lists and seeds.
        subject: as the data set numbers them. order: place in the list.
        folder: below the data root, for S, C and W; the listed file for P.
        person_seed: of the person in scenes: complexion, hair, clothes.
        head: which of the simulator's heads the person has: its place in the main family.
        noise_seed: of the sensors. frames: how many are filmed of it.
        physics: False for a null attack: the whole path of the attack, with the victim's own shape and skin.
    """

    key: str
    domain: Domain
    split: Split
    scene: str
    species: str
    person: int
    subject: str
    order: int
    folder: str
    person_seed: int
    head: int
    noise_seed: int
    session: Session
    frames: int
    physics: bool = True

    @property
    def bona_fide(self) -> bool:
        return self.species == BONA_FIDE

    def names(self, instant: int) -> tuple[str, ...]:
        """Listed paths of the frame at an instant, counted from 0: three, or one for P."""
        if self.domain is Domain.PADISI:
            return (self.folder,)
        gap = self.session.frame_gap_s
        number = {Domain.CASIA_SURF: f"{round(31 + 30 * gap * instant)}",
                  Domain.CEFA: f"{round(1 + 25 * gap * (instant + 1)):04d}",
                  Domain.WMCA: f"{12 * (instant + 1):04d}", Domain.LIVE: f"{instant:04d}"}[self.domain]
        ending = "jpg" if self.domain is not Domain.LIVE else "png"
        return tuple(f"{self.folder}/{sensor}/{number}.{ending}" for sensor in (_SENSORS[self.domain], "depth", "ir"))


def person_number(seed: int, domain: Domain, split: Split, index: int) -> int:
    """Unique for each person of each list and each seed: another seed's people are other people.

    Raises:
        SimulationError: a negative seed, or too many persons.
    """
    if seed < 0 or not 0 <= index < MOST_PERSONS:
        raise SimulationError(f"seed is {seed}, person {index}; expected a seed of at least 0 and at most "
                              f"{MOST_PERSONS} persons a list")
    place = list(Domain).index(domain) * len(Split) + list(Split).index(split)
    return (seed * len(Domain) * len(Split) + place) * MOST_PERSONS + index


def head_place(split: Split, person: int) -> int:
    """Which head of the main family a person has; those of two splits never meet."""
    heads = _HEADS[split]
    return heads[keyed("head", person) % len(heads)]


def person_seed(specification: DomainSpecification, split: Split, person: int) -> int:
    """Seed of a person in scenes. Where the specification evens tones out for training, the first of the person's
    candidates whose complexion is in the drawn part of the range."""
    seed = keyed("person", person) & 0x7FFFFFFF
    if not (specification.even_tones and split is Split.TRAIN):
        return seed
    from capture.simulated.skin import MELANIN, Complexion

    darkest, lightest = END_TONES
    drawn = float(np.random.default_rng(keyed("tone", person)).uniform())
    low, high = (0.75, 1.0) if drawn < darkest else (0.0, 0.25) if drawn < darkest + lightest else (0.25, 0.75)
    for attempt in range(200):
        share = Complexion.of(seed).melanin / MELANIN[1]
        if low <= share < high:
            break
        seed = keyed("person", person, attempt) & 0x7FFFFFFF
    return seed


def plan_list(domain: Domain, split: Split, samples: int, *, seed: int, scenes: Collection[str],
              physics: bool = True, frames: int | None = None) -> tuple[Recording, ...]:
    """The recordings of one list: bona fide first, as in the public lists, in their ratio of labels.

    Every person is recorded live, and is the one depicted in attacks wherever there are as many attacks as persons.

    Args:
        domain, split: the list. samples: how many to aim at; at least two bona fide and two attack recordings are made.
        seed: of the whole benchmark. scenes: that the simulator has. physics: False for null attacks.
        frames: of each recording at most, instead of as many as the domain has: fewer frames of more recordings.

    Raises:
        SimulationError: `frames` below 1, or more persons than the data set's numbers have room for.
    """
    if frames is not None and frames < 1:
        raise SimulationError(f"{frames} frames a recording, expected at least 1")
    specification = DOMAINS[domain]
    num_frames = specification.frames if frames is None else min(frames, specification.frames)
    recordings = max(round(samples / num_frames), 4)
    num_live = min(max(round(recordings * specification.prior(split)), 2), recordings - 2)
    num_persons = max(num_live // specification.live_sessions, 2)
    room = _FIRST_SUBJECT[Split.VALIDATION if split is Split.TRAIN else Split.TEST] - _FIRST_SUBJECT[split]
    if domain is not Domain.LIVE and split is not Split.TEST and num_persons > room:
        raise SimulationError(f"{domain}-{split}: {num_persons} persons, room for {room}; ask for a smaller size, or "
                              f"for more than {num_frames} frames a recording")
    num_attacks = recordings - num_live
    if domain is Domain.CASIA_SURF:
        num_attacks = min(num_attacks, num_persons * len(casia_surf.SPECIES))  # a subject has each attack once
    shown = rendered_species(specification, split, scenes)
    species = _species_sequence(specification, split, shown, num_attacks, num_persons, seed)
    used: Counter[tuple[int, str]] = Counter()
    planned = []
    for order in range(num_live + num_attacks):
        attack = order - num_live
        index = (order if attack < 0 else attack) % num_persons
        kind = BONA_FIDE if attack < 0 else species[attack]
        take = used[index, kind]  # of this person's recordings of this kind
        used[index, kind] += 1
        session = take if attack < 0 else attack // num_persons
        scene = BONA_FIDE if attack < 0 else shown[kind][(index + take) % len(shown[kind])]
        planned.append(_recording(specification, split, index, kind, scene, take, session, order, seed, num_frames,
                                  physics))
    return tuple(planned)


def _recording(specification: DomainSpecification, split: Split, index: int, species: str, scene: str, take: int,
               session: int, order: int, seed: int, frames: int, physics: bool) -> Recording:
    domain = specification.domain
    person = person_number(seed, domain, split, index)
    drawn = draw_session(specification, split, person, session, seed)
    subject, folder = _place(domain, split, index, species, take, specification.cameras.index(drawn.camera), person)
    return Recording(key=f"{domain}-{split}-{order:05d}", domain=domain, split=split, scene=scene, species=species,
                     person=person, subject=subject, order=order, folder=folder, head=head_place(split, person),
                     person_seed=person_seed(specification, split, person),
                     session=drawn, frames=frames, physics=physics,
                     noise_seed=keyed("noise", seed, domain, split, person, species, take))


def _species_sequence(specification: DomainSpecification, split: Split, shown: Collection[str], attacks: int,
                      persons: int, seed: int) -> list[str]:
    """The species of each attack, in their shares; person i has the attacks i, i + persons, ..."""
    shares = {each.species: each.share for each in specification.species if each.species in shown}
    names = list(shares)
    if len(set(shares.values())) == 1:  # all alike: in turn, so that nobody has one twice before having had all
        return [names[(attack // persons + attack % persons) % len(names)] for attack in range(attacks)]
    total = sum(shares.values())
    # Each species' attacks are spread evenly over the list; ties fall in the order of the specification.
    spread = sorted((place, number) for number, name in enumerate(names)
                    for place in (np.arange(attacks) + 0.5) * total / shares[name])
    sequence = [names[number] for _, number in spread[:attacks]]
    np.random.default_rng(keyed("species", seed, specification.domain, split)).shuffle(sequence)
    return sequence


def draw_session(specification: DomainSpecification, split: Split, person: int, session: int, seed: int) -> Session:
    """The nuisances of one session. They do not depend on what is presented in it."""
    rng = np.random.default_rng(keyed("session", seed, specification.domain, split, person, session))
    camera = specification.cameras[int(rng.integers(len(specification.cameras)))]
    place = int(rng.integers(specification.places))
    room = np.random.default_rng(keyed("place", seed, specification.domain, place))

    def draw(generator: np.random.Generator, limits: Range) -> float:
        return float(generator.uniform(*limits))

    wall_seed, towards = int(room.integers(1 << 31)), room.uniform((-0.7, -0.7, -0.8), (0.7, -0.2, -0.5))
    key_light, ambient = draw(room, specification.key_light), draw(room, specification.ambient_light)
    sun = draw(room, SUNLIGHT) * (room.uniform() < specification.sunlit)
    infrared, wall_m, yaw = sun + draw(room, specification.room_infrared), draw(room, specification.wall_m), \
        float(room.uniform(-0.12, 0.12))
    brightness = float(rng.uniform(0.9, 1.1))
    distance = draw(rng, specification.distance_m)
    aside = rng.uniform(-specification.aside_m, specification.aside_m, 2)
    near = np.random.default_rng(keyed("too near", seed, specification.domain, split, person, session))
    too_near = bool(near.uniform() < specification.too_near)
    if too_near:
        distance = draw(near, TOO_NEAR_M)
        aside = aside / 3  # a face that fills the image is in its middle
    surroundings = keyed("surroundings", seed, specification.domain, split, person, session) & 0x7FFFFFFF
    return Session(
        camera=camera, place=place, wall_seed=wall_seed, wall_m=max(wall_m, distance + 0.5), wall_yaw_rad=yaw,
        towards_key=(float(towards[0]), float(towards[1]), float(towards[2])), key_light=key_light * brightness,
        ambient_light=ambient * brightness, room_infrared=infrared,
        infrared_exposure=draw(rng, specification.infrared_exposure), distance_m=distance,
        aside_m=(float(aside[0]), float(aside[1]) / 2), frame_gap_s=draw(rng, specification.frame_gap_s),
        liveliness=draw(rng, specification.liveliness),
        movement_seed=int(rng.integers(1 << 31)), fine_depth=too_near,
        surroundings_seed=surroundings if specification.surroundings else None)


def _place(domain: Domain, split: Split, index: int, species: str, take: int, camera: int,
           person: int) -> tuple[str, str]:
    """Subject and folder (for P the listed file), in the data set's own form."""
    number = _FIRST_SUBJECT[split] + index
    if domain is Domain.CASIA_SURF:
        part = "real" if species == BONA_FIDE else "fake"
        subject = f"CLKJ_AS{number:04d}"
        recording = "real" if species == BONA_FIDE else _SURF_RECORDINGS[species]
        return subject, f"CASIA-SURF-CROP/{part}_part/{part}_{split}_part/{subject}/{recording}.rssdk"
    if domain is Domain.CEFA:
        if species in _CEFA_FOLDERS:
            kind = _CEFA_FOLDERS[species]
            mask_type = list(cefa.MASKS).index(kind) + 1
            return f"{kind}-{number:03d}", (f"CeFA/CeFA-Mask/{kind}/{number:03d}/{mask_type}_{number:03d}_{camera}_"
                                            f"{take}_2_1_1")
        race, race_number = (("AF", 1), ("CA", 2))[number % 2]
        subject, half = f"{race}-{number // 2:03d}", number // 2
        return subject, (f"CeFA/CeFA-Race/{race}/{subject}/{race_number}_{half:03d}_{camera + 1}_{take + 1}_"
                         f"{_CEFA_INSTRUMENTS[species]}")
    if domain is Domain.WMCA:
        kind_and_instrument = (0, 0)
        if species != BONA_FIDE:
            instruments = [pair for pair, name in wmca.SPECIES.items() if name == species]
            kind_and_instrument = instruments[index % len(instruments)]
        attack_type, instrument = kind_and_instrument
        return f"{number:03d}", f"WMCA-Image/R_CDIT/{number:03d}_{take + 1:02d}_000_{attack_type}_{instrument:02d}"
    if domain is Domain.LIVE:
        subject = f"{'tvx'[list(Split).index(split)]}{index:05d}"
        return subject, live_sessions.folder(subject, species, take)
    return f"{number}", f"{keyed('trial', person, species, take) & 0xFFFFFFFF:08x}.npz"


def padisi_code(species: str) -> str:
    """The code of PADISI-Face's ground-truth table."""
    return "m00000" if species == BONA_FIDE else f"m5{_PADISI_CODES[species]}01"
