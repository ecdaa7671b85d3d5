"""Presentation attacks: from a species and a victim to the bodies of a scene. One code path for every species."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from capture.simulated.covers import Cover
from capture.simulated.displays import make_display
from capture.simulated.eyewear import make_spectacles
from capture.simulated.formats import PLAIN, Format, draw_format
from capture.simulated.gestures import make_gesture
from capture.simulated.heads import load_heads
from capture.simulated.holders import held_in_hands, presenter
from capture.simulated.masks import make_mannequin, make_shell, put_on, thickness_m
from capture.simulated.people import make_person
from capture.simulated.pictures import Picture, take_picture
from capture.simulated.scene import Body, Motion, Segment
from capture.simulated.sheets import PAGE_M, make_sheet
from capture.simulated.species import SPECIES, Bend, Display, Hold, Ink, Mannequin, Outline, Paint, Sheet, Shell
from capture.simulated.surroundings import Surroundings, draw_cover

#: The attacker differs from the victim: this much is added to the seed and to the identity.
ATTACKER_SEED, ATTACKER_IDENTITY = 1000, 37
#: How large a depicted face is, as a share of life size (of a display: of what suits its size).
HELD_SCALES, WORN_SCALES = (0.80, 1.20), (0.93, 1.07)
#: What a played video shows of a live face's expressions.
VIDEO_EXPRESSIONS = ("neutral", "half_blink", "blink", "smile", "jaw_open")


def make_attack(species: str, *, seed: int, identity: int, motion: Motion, instrument_seed: int | None = None,
                session_seed: int | None = None, liveliness: float = 1.0, physics: bool = True,
                surroundings: Surroundings | None = None) -> tuple[Body, ...]:
    """Bodies of an attack by `species`; `seed` and `identity` are the victim's, as of a bona fide scene.

    `instrument_seed`, by default `seed`, is of what was made: which portrait, which printer, which mould.
    `session_seed`, by default `seed`, is of what a wearer's hands do; who holds an instrument has them full.
    With `surroundings` instruments come in several sizes and outlines (`capture.simulated.formats`), and a wearer wears
    the session's hood or headscarf, a portrait that of its own.

    `physics=False` is the null attack: the instrument is made all the same, then every body of it is given the victim's
    true geometry, skin and hair, and the presenter is left out. What then still tells it from a bona fide scene leaks
    from the simulation's own machinery.
    """
    instrument_seed = seed if instrument_seed is None else instrument_seed
    bodies = _made(species, seed=seed, identity=identity, motion=motion, instrument_seed=instrument_seed,
                   liveliness=liveliness, surroundings=surroundings)
    session_seed = seed if session_seed is None else session_seed
    if physics:
        instrument = SPECIES[species].instrument
        if _leaves_hands_free(instrument):
            own = isinstance(instrument, Paint)
            bodies += make_gesture(session_seed, identity=identity, skin_seed=seed + (0 if own else ATTACKER_SEED),
                                   motion=motion)
        return bodies
    motions = {body.motion for body in bodies if body.face_points is not None}
    if len(motions) != 1:
        raise AssertionError(f"species {species}: its faces move by {len(motions)} motions, expected one")
    return make_live(seed=seed, identity=identity, motion=motions.pop(), session_seed=session_seed,
                     cover=surroundings.cover if surroundings else Cover.NONE)


def make_live(*, seed: int, identity: int, motion: Motion, session_seed: int,
              cover: Cover = Cover.NONE) -> tuple[Body, ...]:
    """A bona fide presentation: a person, and what the hands do in that session."""
    return (*make_person(seed=seed, identity=identity, motion=motion, cover=cover),
            *make_gesture(session_seed, identity=identity, skin_seed=seed, motion=motion))


def _leaves_hands_free(instrument: Sheet | Display | Shell | Mannequin | Paint) -> bool:
    """Whether a living wearer has nothing to hold; a mannequin has no hands."""
    if isinstance(instrument, Sheet | Display):
        return instrument.hold is Hold.WORN
    return not isinstance(instrument, Mannequin)


def _made(species: str, *, seed: int, identity: int, motion: Motion, instrument_seed: int,
          liveliness: float, surroundings: Surroundings | None) -> tuple[Body, ...]:
    instrument = SPECIES[species].instrument
    shape, cover, of_portrait, kneels = PLAIN, Cover.NONE, Cover.NONE, False
    if surroundings is not None:
        shape, of_portrait = draw_format(instrument_seed), draw_cover(instrument_seed)
        cover, kneels = surroundings.cover, surroundings.kneels
    rng = np.random.default_rng([instrument_seed, 21])
    attacker = {"seed": seed + ATTACKER_SEED, "identity": load_heads().another(identity, ATTACKER_IDENTITY)}
    eyes = load_heads().eyes(identity)
    portrait = partial(take_picture, seed=seed, identity=identity, portrait_seed=instrument_seed, liveliness=liveliness,
                       cover=of_portrait)
    if isinstance(instrument, Sheet):
        # Nobody prints to scale; what is worn has to fit the wearer's eyes.
        worn = instrument.hold is Hold.WORN
        scale = float(rng.uniform(*(WORN_SCALES if worn else HELD_SCALES)))
        page_m = shape.page_m if instrument.outline is Outline.PAGE else PAGE_M
        picture = portrait(size_m=(page_m[0] / scale, page_m[1] / scale),
                           infrared=instrument.ink in (Ink.INFRARED_TONER, Ink.TWO_LAYER)).enlarged(scale)
        half_distance_m = scale * float(eyes[1, 0] - eyes[0, 0]) / 2
        if worn:
            return _worn_sheet(instrument, picture, half_distance_m, attacker, motion, rng, eyes, shape, cover)
        sheet = make_sheet(instrument, picture, rng=rng, motion=motion, eye_half_distance_m=half_distance_m,
                           bust=shape.bust)
        middle = sheet.meshes["neutral"].vertices.mean(axis=0).astype(np.float64)
        hands = held_in_hands(page_m, middle, seed=attacker["seed"], motion=motion, rng=rng, low=shape.bust)
        behind = () if kneels else presenter(instrument.hold, **attacker, motion=motion, rng=rng)
        return (sheet, *hands, *behind)
    if isinstance(instrument, Display):
        instrument = replace(instrument, size_m=shape.front_m(instrument),
                             face_scale=instrument.face_scale * shape.display_scale * float(rng.uniform(*HELD_SCALES)))
        shown = VIDEO_EXPRESSIONS if instrument.video else (None,)
        width_m, height_m = (1.02 * length / instrument.face_scale for length in instrument.size_m)
        pictures = {name or "neutral": portrait(size_m=(width_m, height_m), expression=name) for name in shown}
        display = make_display(instrument, pictures, motion=motion, rng=rng)
        if instrument.hold is Hold.STANDING:
            return (display,)
        middle = display.meshes["neutral"].vertices.mean(axis=0).astype(np.float64)
        hands = held_in_hands(instrument.size_m, middle, seed=attacker["seed"], motion=motion, rng=rng)
        behind = () if kneels else presenter(instrument.hold, **attacker, motion=motion, rng=rng)
        return (display, *hands, *behind)
    if isinstance(instrument, Shell):
        # A mask is made to fit: it shares the form of the head that wears it, and depicts another complexion.
        wearer = make_person(seed=attacker["seed"], identity=identity, motion=motion,
                             above_skin_m=thickness_m(instrument.stuff), cover=cover)
        victim = make_person(seed=seed, identity=identity, motion=motion)[0]
        return (make_shell(instrument, wearer[0], victim, identity, rng), *_without_face(wearer))
    victim_bodies = make_person(seed=seed, identity=identity, motion=motion, cover=cover)
    if isinstance(instrument, Mannequin):
        return (make_mannequin(victim_bodies[0], rng), *victim_bodies[1:])
    assert isinstance(instrument, Paint)
    return (put_on(instrument, victim_bodies[0], rng), *victim_bodies[1:])


def _worn_sheet(instrument: Sheet, picture: Picture, half_distance_m: float, attacker: dict[str, int], motion: Motion,
                rng: np.random.Generator, eyes: NDArray[np.float64], shape: Format, cover: Cover) -> tuple[Body, ...]:
    if instrument.bend is Bend.BENT and instrument.outline is Outline.PAGE:
        cover = Cover.NONE  # a page bent around the head is where a hood would be
    wearer = make_person(seed=attacker["seed"], identity=attacker["identity"], motion=motion, spectacles=False,
                         headwear=False, cover=cover)
    # The open jaw is left out: paper that a chin pushes away comes back.
    skin = np.concatenate([mesh.vertices for name, mesh in wearer[0].meshes.items() if name != "jaw_open"])
    if instrument.outline is Outline.PAGE:  # it reaches past the face, where cloth may hold it off
        skin = np.concatenate([skin, *(body.meshes["neutral"].vertices for body in wearer if body.name == cover)])
    sheet = make_sheet(instrument, picture, rng=rng, motion=motion, eye_half_distance_m=half_distance_m, wearer=skin,
                       bust=shape.bust)
    if instrument.outline is not Outline.EYE_DISCS:
        return (sheet, *_without_face(wearer))
    frame, _ = make_spectacles(eyes, motion=motion, rng=rng,
                               stand_off_m=float(sheet.meshes["neutral"].vertices[:, 2].max()) + 0.002)
    return (sheet, replace(frame, segment=Segment.FACE), *_without_face(wearer))


def _without_face(bodies: tuple[Body, ...]) -> tuple[Body, ...]:
    """Bodies of a wearer whose face is not the one that is presented."""
    return tuple(replace(body, face_points=None) for body in bodies)
