"""The one pixel path: levels, masks, presence, refusals."""

import subprocess
import sys

import numpy as np
import pytest

from mmdg_model.inputs import DepthEncoding, InputError, InputSpecification, SpecificationError, prepare
from tests.mmdg_model.builders import crop

SPEC = InputSpecification(image_size=64)
IDENTITY = InputSpecification(image_size=64, depth_encoding=DepthEncoding.IDENTITY_8BIT)


def levels(plane):
    """Back from normalised values to 8-bit levels."""
    restored = plane.astype(np.float64) * 128.0 + 127.5
    np.testing.assert_allclose(restored, np.rint(restored), atol=1e-3)
    return np.rint(restored).astype(int)


def full(value, dtype=np.uint16):
    return np.full((64, 64), value, dtype=dtype)


def mask(value=True):
    return np.full((64, 64), value, dtype=np.bool_)


def test_inputs_need_no_torch():
    program = ("import sys, mmdg_model, mmdg_model.inputs, mmdg_model.scorer, mmdg_model.known_answer; "
               "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_shapes_types_and_presence():
    crops = [crop(without=absent) for absent in ((), ("depth",), ("infrared",), ("depth", "infrared"))]
    planes, present = prepare(crops, SPEC)
    assert (planes.shape, planes.dtype, present.dtype) == ((4, 3, 3, 64, 64), np.float32, np.bool_)
    assert present.tolist() == [[True, True, True], [True, False, True], [True, True, False], [True, False, False]]
    assert not planes[~present].any()
    assert np.isfinite(planes).all()
    assert abs(planes).max() <= 1.0


def test_colour_is_channels_first_rgb():
    one = crop()
    np.testing.assert_array_equal(levels(prepare([one], SPEC).planes[0, 0]), one.colour.transpose(2, 0, 1))


def test_depth_and_infrared_fill_three_equal_channels():
    planes = prepare([crop()], SPEC).planes[0]
    for modality in (1, 2):
        assert np.array_equal(planes[modality, 0], planes[modality, 1])
        assert np.array_equal(planes[modality, 0], planes[modality, 2])


@pytest.mark.parametrize(("offset_m", "level"), [
    (0.0, 1 + round(254 * 0.10 / 0.25)),  # the face's median
    (-0.10, 1),
    (-0.40, 1),  # nearer than the range: clipped, yet not "no measurement"
    (0.15, 255),
    (0.50, 255),  # background
    (0.025, 1 + 127),
])
@pytest.mark.parametrize("unit_m", [1e-4, 1e-3])
@pytest.mark.parametrize("distance_m", [0.45, 0.8])
def test_metric_depth_is_relative_to_the_face(offset_m, level, unit_m, distance_m):
    depth = full(round(distance_m / unit_m))
    depth[0, 0] = max(1, round((distance_m + offset_m) / unit_m))
    result = levels(prepare([crop(depth=depth, depth_unit_m=unit_m)], SPEC).planes[0, 1, 0])
    assert result[0, 0] == pytest.approx(level, abs=0 if unit_m < 1e-3 else 1)


def test_face_median_ignores_background_around_the_face():
    """Three quarters of the crop are wall; the reference is the middle."""
    depth = full(20000)
    depth[16:48, 16:48] = 5000
    result = levels(prepare([crop(depth=depth)], SPEC).planes[0, 1, 0])
    assert result[32, 32] == 1 + round(254 * 0.4)
    assert result[0, 0] == 255


def test_face_median_falls_back_to_the_whole_crop():
    depth, valid = full(5000), mask()
    valid[16:48, 16:48] = False
    result = levels(prepare([crop(depth=depth, depth_valid=valid)], SPEC).planes[0, 1, 0])
    assert result[0, 0] == 1 + round(254 * 0.4)
    assert result[32, 32] == 0


def test_identity_depth_keeps_its_levels():
    depth = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 256
    np.testing.assert_array_equal(levels(prepare([crop(depth=depth)], IDENTITY).planes[0, 1, 0]), depth)


@pytest.mark.parametrize(("value", "bits", "dtype", "level"), [
    (0, 8, np.uint8, 0), (200, 8, np.uint8, 200), (255, 8, np.uint8, 255),
    (1023, 10, np.uint16, 255), (512, 10, np.uint16, 128), (65535, 16, np.uint16, 255), (32768, 16, np.uint16, 128),
    (15, 4, np.uint8, 255),
])
def test_infrared_is_scaled_from_its_bit_depth(value, bits, dtype, level):
    result = prepare([crop(infrared=full(value, dtype), infrared_bit_depth=bits)], SPEC).planes[0, 2]
    assert (levels(result) == level).all()


@pytest.mark.parametrize(("name", "modality"), [("colour", 0), ("depth", 1), ("infrared", 2)])
@pytest.mark.parametrize("spec", [SPEC, IDENTITY])
def test_content_of_invalid_pixels_changes_nothing(name, modality, spec):
    valid = mask()
    valid[10:20, 30:] = False
    depth = np.random.default_rng(3).integers(1, 256, (64, 64), dtype=np.uint16)
    one = crop(depth=depth, **{f"{name}_valid": valid})
    altered = getattr(one, name).copy()
    altered[~valid] = 77
    planes = [prepare([crop(**({"depth": depth, f"{name}_valid": valid} | change))], spec).planes
              for change in ({}, {name: altered})]
    assert np.array_equal(*planes)
    assert (levels(planes[0][0, modality, 0])[~valid] == 0).all()


def test_zero_depth_is_no_measurement_even_if_the_mask_says_valid():
    depth = full(5000)
    depth[:20] = 0
    result = levels(prepare([crop(depth=depth)], SPEC).planes[0, 1, 0])
    assert (result[:20] == 0).all()
    assert (result[20:] == 1 + round(254 * 0.4)).all()


@pytest.mark.parametrize(("changes", "present"), [
    ({"depth": full(0)}, [True, False, True]),
    ({"depth_valid": mask(False)}, [True, False, True]),
    ({"infrared_valid": mask(False)}, [True, True, False]),
])
def test_a_plane_without_one_valid_pixel_is_absent(changes, present):
    planes, presence = prepare([crop(**changes)], SPEC)
    assert presence[0].tolist() == present
    assert not planes[~presence].any()


@pytest.mark.parametrize(("changes", "quoted"), [
    ({"colour": np.zeros((64, 32, 3), np.uint8)}, r"crop 1: colour is uint8 \(64, 32, 3\), expected uint8 \(64, 64"),
    ({"colour": np.zeros((64, 64, 3), np.float32)}, "crop 1: colour is float32"),
    ({"colour_valid": mask(False)}, "crop 1: colour has no valid pixel"),
    ({"colour_valid": full(1, np.uint8)}, "crop 1: colour mask is uint8"),
    ({"depth": full(1, np.float32)}, "crop 1: depth is float32"),
    ({"depth": np.zeros((32, 32), np.uint16)}, r"crop 1: depth is uint16 \(32, 32\)"),
    ({"depth_valid": None}, "crop 1: depth has no validity mask"),
    ({"depth_valid": np.ones((32, 32), np.bool_)}, r"crop 1: depth mask is bool \(32, 32\)"),
    ({"depth_unit_m": 0.0}, "crop 1: depth has depth_unit_m 0.0"),
    ({"depth_unit_m": float("nan")}, "crop 1: depth has depth_unit_m nan"),
    ({"infrared": full(1, np.int32)}, "crop 1: infrared is int32"),
    ({"infrared_valid": None}, "crop 1: infrared has no validity mask"),
    ({"infrared_bit_depth": 17}, "crop 1: infrared has bit depth 17"),
    ({"infrared_bit_depth": 0}, "crop 1: infrared has bit depth 0"),
    ({"infrared": full(9, np.uint8), "infrared_bit_depth": 10}, "expected 1 to 8 for uint8"),
    ({"infrared": full(1500), "infrared_bit_depth": 10}, "crop 1: infrared holds 1500, more than 10 bits"),
])
def test_wrong_crops_are_refused_by_name(changes, quoted):
    with pytest.raises(InputError, match=quoted):
        prepare([crop(), crop(**changes)], SPEC)


def test_identity_encoding_refuses_metric_depth():
    with pytest.raises(InputError, match="crop 0: depth holds 5000"):
        prepare([crop(depth=full(5000))], IDENTITY)


def test_an_empty_list_is_refused():
    with pytest.raises(InputError, match="empty"):
        prepare([], SPEC)


def test_specification_round_trip():
    for spec in (SPEC, IDENTITY, InputSpecification(depth_near_m=0.2, infrared_scale=64.0)):
        assert InputSpecification.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(("changes", "quoted"), [
    ({"colour_scale": 0.0}, "inputs.colour_scale is 0.0"),
    ({"depth_mean": float("nan")}, "inputs.depth_mean is nan"),
    ({"depth_range_m": -1.0}, "inputs.depth_range_m is -1.0"),
    ({"depth_near_m": float("nan")}, "inputs.depth_near_m is nan"),
    ({"image_size": 0}, "inputs.image_size is 0"),
    ({"depth_encoding": "16bit"}, "inputs.depth_encoding is '16bit'"),
    ({"gamma": 2.2}, "inputs.gamma = 2.2 is an unknown key"),
    ({"image_size": 224.5}, "inputs.image_size is 224.5, expected int"),
])
def test_impossible_specifications_are_refused(changes, quoted):
    with pytest.raises(SpecificationError, match=quoted):
        InputSpecification.from_dict(SPEC.to_dict() | changes)


@pytest.mark.parametrize("choice", [{"depth_encoding": "identity_8bit"}, {"infrared_encoding": "grey"},
                                    {"absence": "flag"}])
def test_a_choice_in_plain_words_is_refused_instead_of_meaning_another(choice):
    with pytest.raises(SpecificationError, match=next(iter(choice))):
        InputSpecification(**choice)
