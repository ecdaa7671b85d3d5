"""The simulated domains as data: how each differs from the others, and what it imitates.

Domains differ as the data sets do: cameras, light, distances, framing, compression, background, and kinds of attack.
Nothing in a specification depends on the label: a session's camera, place, light and distance are drawn before it is
known what stands before the camera. All figures are choices of ours, made to differ; none was fitted to a data set.

Four stand for the benchmark's data sets, the fifth, `L`, for sessions before the cameras that the pipeline itself runs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass

from mmdg_model.training.casia_surf import SPECIES as SURF_SPECIES
from mmdg_model.training.manifests import COUNTS
from mmdg_model.training.samples import Domain, Split

Range = tuple[float, float]

#: A change of what is written for equal specifications; part of the hash, so that two forms never mix in one tree.
FORMAT = 3


class SimulationError(ValueError):
    """A simulated tree cannot be made as asked; the message quotes the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class CameraSpecification:
    """One simulated camera. Two of a domain share a kind and differ as specimens do.

    Attributes:
        serial: its name. Each camera films both labels.
        profile: kind of sensor, of `capture.simulated.profiles.SENSOR_PROFILES`.
        colour_focal_px, infrared_focal_px: of the 640 x 480 images; depth and infrared share a grid.
        distorted: whether the colour lens bends lines (`capture.simulated.sensors.MILD_DISTORTION`).
        disparity_share: noise of disparity as a share of the profile's.
        full_well, read_codes, blur_px: see `capture.simulated.sensors.SensorNoise`.
        colour_gains: of the red, green and blue codes: a white balance that is a little off.
    """

    serial: str
    colour_focal_px: float
    infrared_focal_px: float
    profile: str = "d4xx"
    distorted: bool = False
    disparity_share: float = 1.0
    full_well: float = 6000.0
    read_codes: float = 0.9
    blur_px: float = 0.6
    colour_gains: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class SpeciesSpecification:
    """One kind of attack of a data set, and the simulated scenes that show it.

    Attributes:
        species: the data set's name of it (`mmdg_model.training.casia_surf` and so on).
        scenes: attacks made the same way; those that the simulator has are taken in turn.
        stand_in: what is rendered when it has none of them. Without that as well, the species is left out.
        share: of the domain's attacks, relative to its other species.
        splits: lists that have it.
    """

    species: str
    scenes: tuple[str, ...]
    stand_in: str | None = None
    share: float = 1.0
    splits: tuple[Split, ...] = tuple(Split)


@dataclass(frozen=True, kw_only=True)
class DomainSpecification:
    """One simulated domain. Ranges are drawn from evenly, once a session.

    Attributes:
        domain: whose layout and lists it has.
        cameras: at least two.
        places: number of places, each a wall and a light of its own; a session is at one of them.
        distance_m: of the face. aside_m: largest distance from the optical axis.
        key_light, ambient_light: levels of the visible light (`capture.simulated.scene.Light`).
        room_infrared: lamps at 850 nm. sunlit: share of places with the sun in them, which adds `SUNLIGHT`.
        wall_m: how far the wall is behind the camera's origin.
        infrared_exposure: the distance that the infrared exposure is set for, as a share of the face's own.
        face_scale: side of the crop over the side of the face box.
        background_removed: black where depth says background, and outside an oval around the face.
        jpeg_quality: of the three images; None where files are lossless.
        frames: of one recording. frame_gap_s: seconds between them. liveliness: how far people and instruments turn and
            nod, as a share of what the simulator's scenes do by default.
        live_sessions: bona fide recordings of one person. species: the attacks.
        live_share: of a list's recordings, where there is no public list that says it.
        surroundings: whether something may stand near the face (`capture.simulated.surroundings`), and instruments come
            in several sizes and outlines.
        too_near: share of sessions at `TOO_NEAR_M`, nearer than depth is matched.
        even_tones: whether people of the training list have the darkest or the lightest quarter of complexions in
            `END_TONES` of cases each; of the other lists, and without it, they are of any tone with equal chance.
    """

    domain: Domain
    cameras: tuple[CameraSpecification, ...]
    places: int
    distance_m: Range
    aside_m: float
    key_light: Range
    ambient_light: Range
    room_infrared: Range
    wall_m: Range
    infrared_exposure: Range
    face_scale: float
    background_removed: bool
    jpeg_quality: int | None
    frames: int
    frame_gap_s: Range
    liveliness: Range
    live_sessions: int
    species: tuple[SpeciesSpecification, ...]
    sunlit: float = 0.0
    live_share: float = 0.4
    surroundings: bool = False
    too_near: float = 0.0
    even_tones: bool = False

    def prior(self, split: Split) -> float:
        """Share of bona fide samples: the public list's where there is one."""
        counts = COUNTS.get((self.domain, split))
        return self.live_share if counts is None else counts.live / counts.lines


#: Infrared of the sun, added to a room's.
SUNLIGHT: Range = (0.3, 1.2)

#: Shares of the darkest and of the lightest quarter of complexions where a training list evens them out.
END_TONES = (0.40, 0.30)
#: Distance of faces that come too near: a camera that matches 126 disparities of a D435's finest images (f = 617
#: pixels) sees nothing nearer than f B / 126 = 0.245 m, so noses are lost, then whole faces.
TOO_NEAR_M: Range = (0.235, 0.305)
#: What those images leave of the 126 disparities, on the grid of 640 columns with f = 385.
FINE_DEPTH_SHARE = 385 / 617

_TEST_ONLY = (Split.TEST,)

#: Every species that the simulator has (a test compares): sessions know no data set's selection of them.
LIVE_SPECIES = (
    "flat_print", "rolled_print", "dye_print", "glossy_print", "cloth_print", "bent_print", "formed_print",
    "infrared_print", "formed_infrared_print", "two_layer_print",
    "face_cut_print", "flat_print_eyes_cut", "bent_print_eyes_cut", "flat_print_eyes_nose_cut",
    "bent_print_eyes_nose_cut", "flat_print_eyes_nose_mouth_cut", "bent_print_eyes_nose_mouth_cut", "phone_replay",
    "tablet_replay", "tablet_video_replay", "monitor_replay", "matte_display_replay", "rigid_mask", "silicone_mask",
    "paper_mask", "transparent_mask", "mannequin_head", "half_mask", "printed_eye_glasses", "paper_glasses",
    "heavy_make_up", "face_tattoo")

_D4XX_SERIALS = (("d4xx", "A"), ("d4xx", "B"), ("d4xx_projector", "C"), ("d4xx_projector", "D"))

DOMAINS: Mapping[Domain, DomainSpecification] = {each.domain: each for each in (
    DomainSpecification(
        domain=Domain.CASIA_SURF, places=6, distance_m=(0.40, 0.75), aside_m=0.05,
        cameras=(CameraSpecification(serial="SIM-SURF-A", colour_focal_px=616.0, infrared_focal_px=475.0,
                                     profile="sr300", disparity_share=0.9, full_well=5000.0,
                                     colour_gains=(1.02, 1.0, 0.97)),
                 CameraSpecification(serial="SIM-SURF-B", colour_focal_px=612.0, infrared_focal_px=478.0,
                                     profile="sr300", full_well=5000.0, colour_gains=(0.99, 1.0, 1.01))),
        key_light=(0.45, 0.70), ambient_light=(0.30, 0.45), room_infrared=(0.02, 0.08), wall_m=(1.4, 2.6),
        infrared_exposure=(0.75, 0.95), face_scale=1.3, background_removed=True, jpeg_quality=92, frames=3,
        frame_gap_s=(1.0, 3.3), liveliness=(0.4, 0.8), live_sessions=1,
        species=tuple(SpeciesSpecification(species=name, scenes=(name,), stand_in="print")
                      for name in SURF_SPECIES.values())),
    DomainSpecification(
        domain=Domain.CEFA, places=8, distance_m=(0.45, 0.95), aside_m=0.08,
        cameras=(CameraSpecification(serial="SIM-CEFA-A", colour_focal_px=640.0, infrared_focal_px=480.0,
                                     profile="sr300", disparity_share=1.3, full_well=3500.0, read_codes=1.2,
                                     blur_px=0.8, colour_gains=(1.06, 1.0, 0.90)),
                 CameraSpecification(serial="SIM-CEFA-B", colour_focal_px=634.0, infrared_focal_px=476.0,
                                     profile="sr300", disparity_share=1.4, full_well=3500.0, read_codes=1.2,
                                     blur_px=0.8, colour_gains=(1.03, 1.0, 0.94))),
        key_light=(0.20, 0.85), ambient_light=(0.25, 0.50), room_infrared=(0.02, 0.30), wall_m=(1.5, 3.0),
        infrared_exposure=(0.65, 0.95), face_scale=1.6, background_removed=True, jpeg_quality=80, frames=3,
        frame_gap_s=(0.5, 1.2), liveliness=(0.4, 0.9), live_sessions=1,
        species=(SpeciesSpecification(species="cloth_print", scenes=("cloth_print",), stand_in="print", share=1200),
                 SpeciesSpecification(species="screen_replay", scenes=("tablet_replay", "tablet_video_replay"),
                                      stand_in="screen", share=600),
                 SpeciesSpecification(species="printed_3d_mask", scenes=("rigid_mask",), stand_in="mask", share=880,
                                      splits=_TEST_ONLY),
                 SpeciesSpecification(species="silicone_mask", scenes=("silicone_mask",), share=90,
                                      splits=_TEST_ONLY))),
    DomainSpecification(
        domain=Domain.WMCA, places=7, distance_m=(0.38, 0.55), aside_m=0.03,
        cameras=(CameraSpecification(serial="SIM-WMCA-A", colour_focal_px=600.0, infrared_focal_px=470.0,
                                     profile="sr300", disparity_share=0.8, full_well=9000.0, read_codes=0.7,
                                     blur_px=0.5, colour_gains=(0.96, 1.0, 1.06)),
                 CameraSpecification(serial="SIM-WMCA-B", colour_focal_px=604.0, infrared_focal_px=473.0,
                                     profile="sr300", disparity_share=0.9, full_well=9000.0, read_codes=0.7,
                                     blur_px=0.5, colour_gains=(0.98, 1.0, 1.04))),
        key_light=(0.10, 0.75), ambient_light=(0.25, 0.60), room_infrared=(0.0, 0.15), wall_m=(1.2, 3.0),
        infrared_exposure=(0.65, 0.85), face_scale=1.3, background_removed=False, jpeg_quality=95, frames=3,
        frame_gap_s=(0.4, 1.0), liveliness=(0.3, 0.5), live_sessions=4,
        species=(SpeciesSpecification(species="print", share=200, stand_in="print",
                                      scenes=("flat_print", "rolled_print", "glossy_print", "dye_print")),
                 SpeciesSpecification(species="replay", share=348, stand_in="screen",
                                      scenes=("phone_replay", "tablet_replay", "tablet_video_replay",
                                              "monitor_replay", "matte_display_replay")),
                 SpeciesSpecification(species="fake_head", scenes=("mannequin_head",), share=122),
                 SpeciesSpecification(species="rigid_mask", scenes=("rigid_mask", "transparent_mask"), stand_in="mask",
                                      share=137),
                 SpeciesSpecification(species="flexible_mask", scenes=("silicone_mask",), share=379),
                 SpeciesSpecification(species="paper_mask", scenes=("paper_mask",), share=71),
                 SpeciesSpecification(species="glasses", scenes=("printed_eye_glasses", "paper_glasses"), share=75))),
    DomainSpecification(
        domain=Domain.PADISI, places=4, distance_m=(0.50, 0.68), aside_m=0.02,
        cameras=(CameraSpecification(serial="SIM-PADISI-A", colour_focal_px=690.0, infrared_focal_px=430.0,
                                     distorted=True, disparity_share=1.1, full_well=12000.0, read_codes=0.5,
                                     blur_px=0.5, colour_gains=(1.0, 0.97, 0.97)),
                 CameraSpecification(serial="SIM-PADISI-B", colour_focal_px=684.0, infrared_focal_px=434.0,
                                     distorted=True, disparity_share=1.25, full_well=12000.0, read_codes=0.5,
                                     blur_px=0.5, colour_gains=(0.97, 0.97, 1.0))),
        key_light=(0.50, 0.60), ambient_light=(0.50, 0.62), room_infrared=(0.0, 0.04), wall_m=(1.5, 2.0),
        infrared_exposure=(0.75, 1.0), face_scale=1.5, background_removed=False, jpeg_quality=None, frames=1,
        frame_gap_s=(0.5, 1.0), liveliness=(0.3, 0.5), live_sessions=3,
        species=(SpeciesSpecification(species="funny_eyes", scenes=("printed_eye_glasses",), share=140),
                 SpeciesSpecification(species="paper", scenes=("face_cut_print", "flat_print_eyes_cut"),
                                      stand_in="print", share=56),
                 SpeciesSpecification(species="mannequin", scenes=("mannequin_head",), share=71),
                 SpeciesSpecification(species="half_mask", scenes=("half_mask",), stand_in="mask", share=27),
                 SpeciesSpecification(species="transparent_mask", scenes=("transparent_mask",), share=232),
                 SpeciesSpecification(species="makeup", scenes=("heavy_make_up",), share=206),
                 SpeciesSpecification(species="silicone_mask", scenes=("silicone_mask",), share=33),
                 SpeciesSpecification(species="paper_glasses", scenes=("paper_glasses",), share=66),
                 SpeciesSpecification(species="tattoo", scenes=("face_tattoo",), share=93))),
    DomainSpecification(
        domain=Domain.LIVE, places=24, distance_m=(0.33, 1.0), aside_m=0.06,
        cameras=tuple(CameraSpecification(
            serial=f"SIM-D435-{letter}", profile=profile, colour_focal_px=focal, infrared_focal_px=focal - 230.0,
            disparity_share=share, colour_gains=gains)
            for (profile, letter), focal, share, gains in zip(
                _D4XX_SERIALS, (612.0, 617.0, 614.0, 619.0), (0.9, 1.1, 1.0, 1.2),
                ((1.0, 1.0, 1.0), (1.03, 1.0, 0.96), (0.97, 1.0, 1.02), (1.02, 1.0, 1.0)), strict=True)),
        key_light=(0.10, 0.80), ambient_light=(0.20, 0.60), room_infrared=(0.0, 0.15), sunlit=0.12, wall_m=(1.3, 3.0),
        infrared_exposure=(0.70, 1.0), face_scale=1.3, background_removed=False, jpeg_quality=None, frames=3,
        frame_gap_s=(0.3, 1.0), liveliness=(0.4, 1.0), live_sessions=2, surroundings=True, too_near=0.04,
        even_tones=True,
        species=tuple(SpeciesSpecification(species=name, scenes=(name,)) for name in LIVE_SPECIES)),
)}


def rendered_species(specification: DomainSpecification, split: Split,
                     scenes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Species -> the scenes that show it, of those that the split has and that `scenes` allow.

    Raises:
        SimulationError: no species is left.
    """
    found = {}
    for each in specification.species:
        shown = tuple(scene for scene in each.scenes if scene in scenes)
        if not shown and each.stand_in in scenes and each.stand_in is not None:
            shown = (each.stand_in,)
        if shown and split in each.splits:
            found[each.species] = shown
    if not found:
        raise SimulationError(f"{specification.domain}-{split}: none of its attacks can be rendered with the scenes "
                              f"{', '.join(scenes)}; add a scene to `pipeline.simulated_trees.domains`")
    return found


#: Samples of `L`'s lists as shares of those of all others together.
LIVE_SHARES = {Split.TRAIN: 0.8, Split.VALIDATION: 0.08, Split.TEST: 0.12}

#: Samples of the public lists' domains together, by the name of a size. `large`: as many as the public lists.
SIZES = {"tiny": 120, "small": 2_000, "medium": 10_000, "large": sum(each.lines for each in COUNTS.values())}


def list_sizes(size: str) -> dict[tuple[Domain, Split], int]:
    """Samples of each list to aim at: with the square root of the public lists' sizes, so that a small benchmark's
    short lists still say something; never more than the public list has. `tiny` is even: 12 of each, 4 of P's.

    Args:
        size: a name of `SIZES`, or a number of samples in all.

    `L`, which has no public list, comes on top: `LIVE_SHARES` of that number.

    Raises:
        SimulationError: neither, or fewer than 120.
    """
    if size == "tiny":
        return {(domain, split): 4 if domain is Domain.PADISI else 12 for domain in Domain for split in Split}
    if not size.isdecimal() and size not in SIZES:
        raise SimulationError(f"size is {size!r}, expected {', '.join(SIZES)} or a number of samples in all")
    total = int(size) if size.isdecimal() else SIZES[size]
    if total < SIZES["tiny"]:
        raise SimulationError(f"size is {total} samples, expected at least {SIZES['tiny']} over the twelve lists")
    sizes = dict.fromkeys(COUNTS, 0)
    rest, open_lists = min(total, SIZES["large"]), set(COUNTS)
    while open_lists:
        weight = sum(math.sqrt(COUNTS[key].lines) for key in open_lists)
        wanted = {key: rest * math.sqrt(COUNTS[key].lines) / weight for key in open_lists}
        full = {key for key in open_lists if wanted[key] >= COUNTS[key].lines - 0.5}
        for key in full or open_lists:
            sizes[key] = COUNTS[key].lines if key in full else round(wanted[key])
        rest -= sum(sizes[key] for key in full)
        open_lists = open_lists - full if full else set()
    for split, share in LIVE_SHARES.items():
        sizes[Domain.LIVE, split] = max(12, round(min(total, SIZES["large"]) * share))
    return sizes


def fingerprint(**what: object) -> str:
    """SHA-256 of the domain specifications and of whatever else decides the pixels, as canonical JSON."""
    specifications = {str(domain): asdict(each) for domain, each in DOMAINS.items()}
    text = json.dumps({"format": FORMAT, "domains": specifications, **what}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
