"""Attack species: the table, and the physics of each in the three sensors. All data is simulated."""

from functools import lru_cache

import numpy as np
import pytest

from capture.simulated.catalogue import SCENES, make_scene
from capture.simulated.profiles import SensorNoise
from capture.simulated.scene import Segment
from capture.simulated.sensors import Sensors, simulated_rig
from capture.simulated.species import ALIASES, DATA_SET_SPECIES, SPECIES
from mmdg_model.training import casia_surf, cefa, padisi, wmca

SIZE = (320, 240)
SEED = 2


@lru_cache
def seen(name, *, physics=True, seed=SEED, ideal=False):
    """Planes, true depth and who owns each pixel of the depth image, at 0.5 m."""
    noise = SensorNoise.none() if ideal else SensorNoise()
    sensors = Sensors(make_scene(name, seed=seed, distance_m=0.5, physics=physics), simulated_rig(SIZE), noise, seed)
    planes = sensors.planes(2, 0.2, 0.2)
    visible = sensors.stage.visible(sensors.depth_view, sensors.stage.states(0.2))
    return planes, visible, sensors.stage.scene


def on(name, part, *, ideal=False):
    """Infrared codes, measured and true depth of the pixels that show the body `part` (the start of its name)."""
    planes, visible, scene = seen(name, ideal=ideal)
    numbers = [i for i, body in enumerate(scene.bodies) if body.name.startswith(part)]
    mask = np.isin(visible.owner, numbers)
    inner = mask & np.roll(mask, 3, 0) & np.roll(mask, -3, 0) & np.roll(mask, 3, 1) & np.roll(mask, -3, 1)
    assert inner.sum() > 30, f"{part} hardly shows in {name}"
    return planes.infrared[inner].astype(float), planes.depth[inner], visible.depth_m[inner]


def reflectance(name, part):
    """Median reflectance at 850 nm where the body shows, of its texture alone."""
    body = next(body for body in seen(name)[2].bodies if body.name.startswith(part))
    lit = body.texture[..., 3][body.texture[..., 3] > 0.06]
    return float(np.median(lit))


def test_every_species_and_every_older_name_is_a_scene():
    assert set(SPECIES) < set(SCENES)
    assert set(ALIASES) < set(SCENES)
    assert set(ALIASES.values()) < set(SPECIES)
    assert len(SPECIES) >= 28
    for name, species in SPECIES.items():
        assert (species.name, bool(species.summary)) == (name, True)


@pytest.mark.parametrize(("data_set", "tokens"), [
    ("casia_surf", set(casia_surf.SPECIES.values())),
    ("cefa", (set(cefa.INSTRUMENTS.values()) | set(cefa.MASKS.values())) - {"bona_fide"}),
    ("wmca", set(wmca.SPECIES.values())), ("padisi", set(padisi.SPECIES.values()))])
def test_every_species_of_a_real_data_set_has_ours(data_set, tokens):
    mapping = DATA_SET_SPECIES[data_set]
    assert set(mapping) == tokens
    assert {ours for row in mapping.values() for ours in row} <= set(SPECIES)


@pytest.mark.parametrize("name", ["flat_print", "bent_print_eyes_nose_cut", "tablet_replay", "monitor_replay",
                                  "silicone_mask", "mannequin_head", "printed_eye_glasses", "face_tattoo",
                                  "formed_infrared_print", "two_layer_print"])
def test_the_null_attack_is_the_live_scene_bit_for_bit(name):
    null, live = seen(name, physics=False)[0], seen("bona_fide")[0]
    for plane in ("colour", "depth", "infrared"):
        assert np.array_equal(getattr(null, plane), getattr(live, plane)), plane
        if plane == "colour":
            assert not np.array_equal(getattr(seen(name)[0], plane), getattr(live, plane))


@pytest.mark.parametrize("name", SPECIES)
def test_every_species_presents_one_face_where_a_live_one_would_be(name):
    scene = make_scene(name, seed=SEED, distance_m=0.5)
    live = make_scene("bona_fide", seed=SEED, distance_m=0.5)
    (bearer,) = [body for body in scene.bodies if body.face_points is not None]
    assert bearer.segment is Segment.FACE
    assert bearer.motion == live.bodies[0].motion
    assert (scene.label, scene.species) == ("attack", name)
    assert (scene.wall, scene.light, scene.nominal_distance_m) == (live.wall, live.light, live.nominal_distance_m)
    assert np.abs(bearer.face_points[:, :2].mean(axis=0)).max() < 0.05


def test_toner_shows_the_portrait_at_850_nm_and_dye_shows_bare_paper():
    toner, dye = (seen(name)[2].bodies[0].texture[40:-40, 40:-40, 3] for name in ("flat_print", "dye_print"))
    assert toner.std() / toner.mean() > 3 * dye.std() / dye.mean()
    assert toner.min() < 0.7 * dye.min()
    level = [np.median(on(name, "sheet", ideal=True)[0]) for name in ("flat_print", "dye_print")]
    assert level[1] > level[0]


def grey_share(name, part):
    """How little colour a body's lit texture has: the mean of least over greatest band."""
    texture = next(body for body in seen(name)[2].bodies if body.name.startswith(part)).texture[40:-140, 40:-40, :3]
    return float((texture.min(axis=2) / np.maximum(texture.max(axis=2), 1e-3)).mean())


def contrast(name, band):
    """Spread over mean of the middle of a print, in the visible (1) or at 850 nm (3)."""
    texture = seen(name)[2].bodies[0].texture
    rows, columns = (slice(int(0.30 * n), int(0.62 * n)) for n in texture.shape[:2])
    middle = texture[rows, columns, band]
    return float(middle.std() / middle.mean())


def test_an_infrared_print_is_grey_and_shows_its_face_at_850_nm():
    for name, part in (("infrared_print", "sheet"), ("formed_infrared_print", "mask")):
        assert grey_share(name, part) > 0.9
    assert grey_share("flat_print", "sheet") < 0.85
    assert contrast("infrared_print", 3) > 2.0 * contrast("flat_print", 3)
    live, shown = (np.median(on(name, part, ideal=True)[0]) for name, part in (("bona_fide", "head"),
                                                                               ("formed_infrared_print", "mask")))
    assert 0.75 < shown / live < 1.3


def test_two_layers_show_one_picture_in_colour_and_another_at_850_nm():
    assert grey_share("two_layer_print", "sheet") < 0.85
    assert contrast("two_layer_print", 3) > 2.5 * contrast("dye_print", 3)
    assert contrast("two_layer_print", 1) == pytest.approx(contrast("dye_print", 1), rel=0.5)
    lit, _, _ = on("two_layer_print", "sheet", ideal=True)
    assert 0.5 < np.median(lit) / np.median(on("bona_fide", "head", ideal=True)[0]) < 2.0


def test_colour_alone_tells_a_formed_infrared_print_and_depth_alone_one_of_two_layers():
    assert relief_mm("formed_infrared_print", "mask") == pytest.approx(relief_mm("rigid_mask", "mask"), rel=0.35)
    assert relief_mm("two_layer_print", "sheet") < 1.5


@pytest.mark.parametrize(("name", "part", "low", "high"), [
    ("bona_fide", "head", 0.45, 0.66), ("silicone_mask", "mask", 0.45, 0.66), ("rigid_mask", "mask", 0.26, 0.70),
    ("paper_mask", "mask", 0.25, 0.88), ("mannequin_head", "mannequin", 0.30, 0.74),
    ("dye_print", "sheet", 0.58, 0.88), ("formed_infrared_print", "mask", 0.40, 0.68),
    ("two_layer_print", "sheet", 0.10, 0.85)])
def test_reflectance_at_850_nm_lies_where_its_material_puts_it(name, part, low, high):
    assert low < reflectance(name, part) < high


def test_skin_of_every_tone_is_bright_at_850_nm_though_not_in_colour():
    bands = []
    for seed in range(8):
        head = make_scene("bona_fide", seed=seed).bodies[0]
        bands.append(np.median(head.texture[200:300, 700:840].reshape(-1, 4), axis=0))
    red, infrared = np.array(bands)[:, 0], np.array(bands)[:, 3]
    assert red.max() / red.min() > 2
    assert infrared.max() / infrared.min() < 1.35


def test_a_display_is_dark_glass_with_holes_and_a_matte_one_flat_and_whole():
    glass, matte, skin = (on(name, part) for name, part in (("tablet_replay", "display"),
                                                            ("matte_display_replay", "display"), ("bona_fide", "head")))
    assert np.median(glass[0]) < 0.2 * np.median(skin[0])
    assert np.median(matte[0]) < 0.5 * np.median(skin[0])
    assert np.mean(glass[1] == 0) > 0.15
    assert np.mean(matte[1] == 0) < 0.03


def relief_mm(name, part):
    """What is left of true depth after the best plane, over the pixels of a body."""
    _, visible, scene = seen(name)
    numbers = [i for i, body in enumerate(scene.bodies) if body.name.startswith(part)]
    rows, columns = np.nonzero(np.isin(visible.owner, numbers))
    z = visible.depth_m[rows, columns]
    plane = np.stack([rows, columns, np.ones_like(rows)], 1).astype(float)
    return 1e3 * np.std(z - plane @ np.linalg.lstsq(plane, z, rcond=None)[0])


@pytest.mark.parametrize(("name", "part", "low", "high"), [
    ("flat_print", "sheet", 0, 1.5), ("monitor_replay", "display", 0, 0.5), ("rolled_print", "sheet", 0.5, 8),
    ("bent_print", "sheet", 9, 40), ("formed_print", "sheet", 6, 30), ("rigid_mask", "mask", 8, 40),
    ("paper_mask", "mask", 6, 40), ("cloth_print", "sheet", 1, 12)])
def test_relief_by_species(name, part, low, high):
    assert low <= relief_mm(name, part) <= high


@pytest.mark.parametrize("bend", ["flat", "bent"])
def test_each_further_cut_lets_more_of_the_wearer_through(bend):
    shown = []
    for cut in ("eyes", "eyes_nose", "eyes_nose_mouth"):
        _, visible, scene = seen(f"{bend}_print_{cut}_cut")
        wearer = next(i for i, body in enumerate(scene.bodies) if body.name.startswith("head"))
        sheet = visible.owner == 0
        rows, columns = np.nonzero(sheet)
        inside = np.zeros_like(sheet)
        inside[rows.min():rows.max(), columns.min():columns.max()] = True
        shown.append(int(((visible.owner == wearer) & inside).sum()))
    assert 10 < shown[0] < shown[1] < shown[2]


def test_a_worn_flat_sheet_is_not_cut_by_its_wearer():
    """The wearer's nose and chin stay behind it: inside the sheet's outline nothing shows but through the eye holes."""
    _, visible, scene = seen("flat_print_eyes_cut")
    wearer = next(i for i, body in enumerate(scene.bodies) if body.name.startswith("head"))
    rows, columns = np.nonzero(visible.owner == 0)
    through = visible.owner[rows.min() + 3:rows.max() - 3, columns.min() + 3:columns.max() - 3] == wearer
    assert 0 < through.mean() < 0.05


def test_a_held_instrument_has_hands_and_somebody_behind_it():
    for name in ("flat_print", "tablet_replay", "phone_replay"):
        _, visible, scene = seen(name)
        names = {scene.bodies[number].name for number in np.unique(visible.owner) if number >= 0}
        assert {"hand", "torso"} <= names, name


def test_lenses_pass_light_and_cost_depth():
    seed = next(seed for seed in range(40)
                if any(body.name == "spectacle lenses" for body in make_scene("bona_fide", seed=seed).bodies))
    planes, visible, scene = seen("bona_fide", seed=seed)
    (lens,) = [layer for layer in visible.veils if scene.bodies[layer.body].name == "spectacle lenses"]
    behind = visible.owner.reshape(-1)[lens.pixel]
    assert np.isin(behind, [i for i, body in enumerate(scene.bodies) if body.name.startswith("head")]).mean() > 0.8
    assert 0.03 < np.mean(planes.depth.reshape(-1)[lens.pixel] == 0) < 0.9
