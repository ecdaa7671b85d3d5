"""Files to crops: the same pixels give the same tensors on the way of training and of live crops; nothing is hidden."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdg_model.inputs import DepthEncoding, InputError, InputSpecification, prepare
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.decoding import (
    SampleError,
    TroubleKind,
    TroubleLog,
    load_sample,
    read_image,
    try_load_sample,
)
from mmdg_model.training.manifests import read_list
from mmdg_model.training.samples import PUBLIC_DOMAINS, Domain, Split
from tests.mmdg_model.training.trees import channels, lines_of, picture, small_tree, write_list

SIZE = 32
SPECIFICATION = InputSpecification(image_size=SIZE, depth_encoding=DepthEncoding.IDENTITY_8BIT)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    return root


def first_sample(root, domain):
    return read_list(root / "lists" / f"{domain}-train.txt", root, domain, Split.TRAIN)[0]


def live_crop(colour, depth, infrared):
    """As `align` fills one whose sensors saw every pixel."""
    seen = np.ones(depth.shape, dtype=np.bool_)
    return CropPlanes(colour=colour, colour_valid=seen, depth=depth.astype(np.uint16), depth_valid=seen,
                      infrared=infrared, infrared_valid=seen, infrared_bit_depth=8)


def resized(levels):
    return cv2.resize(levels, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def same(first, second, specification=SPECIFICATION):
    one, other = prepare([first], specification), prepare([second], specification)
    return np.array_equal(one.planes, other.planes) and np.array_equal(one.present, other.present)


@pytest.mark.parametrize("domain", [Domain.CASIA_SURF, Domain.CEFA, Domain.WMCA])
def test_equal_pixels_give_equal_tensors_from_jpegs(tree, domain):
    sample = first_sample(tree, domain)
    colour = cv2.cvtColor(cv2.imread(str(sample.files[Modality.RGB])), cv2.COLOR_BGR2RGB)
    depth, infrared = (cv2.imread(str(sample.files[modality]), cv2.IMREAD_GRAYSCALE)
                       for modality in (Modality.DEPTH, Modality.INFRARED))
    live = live_crop(resized(colour), resized(depth), resized(infrared))
    assert same(load_sample(sample, image_size=SIZE), live)
    assert not same(load_sample(sample, image_size=SIZE), replace(live, infrared=live.infrared ^ 1))


def test_equal_pixels_give_equal_tensors_from_channels(tree):
    sample = first_sample(tree, Domain.PADISI)
    stored = np.rint(np.load(sample.files[Modality.RGB])["data"][0] * 255).astype(np.uint8)
    live = live_crop(resized(np.ascontiguousarray(stored[[2, 1, 0]].transpose(1, 2, 0))), resized(stored[4]),
                     resized(stored[3]))
    assert same(load_sample(sample, image_size=SIZE), live)


def test_colour_is_red_green_blue(tmp_path):
    path = tmp_path / "red.jpg"
    cv2.imwrite(str(path), np.full((8, 8, 3), (10, 20, 250), dtype=np.uint8))
    red, green, blue = read_image(path, Modality.RGB)[4, 4]
    assert red > 240
    assert green < 30
    assert blue < 30


def test_a_cut_out_face_keeps_its_black_and_an_all_black_plane_is_absent(tree):
    sample = first_sample(tree, Domain.CASIA_SURF)
    whole = load_sample(sample, image_size=SIZE)
    colour, depth, infrared = (plane.copy() for plane in (whole.colour, whole.depth, whole.infrared))
    for plane in (colour, depth, infrared):
        plane[:10] = 0
    black = np.zeros_like(infrared)
    with_border = live_crop(colour, depth.astype(np.uint8), infrared)
    masked = replace(with_border, colour_valid=colour.any(axis=2), depth_valid=depth > 0, infrared_valid=infrared > 0)
    assert same(with_border, masked)
    assert prepare([replace(masked, infrared=black, infrared_valid=black > 0)], SPECIFICATION).present.tolist() == [
        [True, True, False]]


def test_levels_are_not_mistaken_for_metres(tree):
    crop = load_sample(first_sample(tree, Domain.WMCA), image_size=SIZE)
    with pytest.raises(InputError, match="depth_unit_m nan, expected a positive number of metres"):
        prepare([crop], InputSpecification(image_size=SIZE))


@pytest.fixture
def sample(tmp_path):
    small_tree(tmp_path)
    return first_sample(tmp_path, Domain.WMCA)


def test_a_missing_depth_file_leaves_depth_absent_and_is_told_once(sample):
    sample.files[Modality.DEPTH].unlink()
    log = TroubleLog()
    for _ in range(3):
        crop = load_sample(sample, image_size=SIZE, on_trouble=log)
    assert crop.modalities == (Modality.RGB, Modality.INFRARED)
    (trouble,) = log.troubles
    assert (trouble.path, trouble.kind) == (sample.files[Modality.DEPTH], TroubleKind.MISSING)


def truncated(data):
    return data[:len(data) // 2]


def never_written_tail(data):
    return data[:len(data) // 2] + bytes(len(data) - len(data) // 2)


@pytest.mark.parametrize(("damage", "reason"), [
    (lambda data: b"", "the file is empty"),
    (truncated, "the JPEG ends before its end marker"),
    (never_written_tail, "the JPEG ends before its end marker"),
    (lambda data: data[:-2], "the JPEG ends before its end marker"),
    (lambda data: b"<html>" + data, "not an image that OpenCV can decode"),
])
@pytest.mark.parametrize("modality", list(Modality))
def test_unreadable_files_are_told_by_path(sample, modality, damage, reason):
    path = sample.files[modality]
    path.write_bytes(damage(path.read_bytes()))
    log = TroubleLog()
    crop = try_load_sample(sample, log, image_size=SIZE)
    (trouble,) = log.troubles
    assert (trouble.path, trouble.modality, trouble.kind) == (path, modality, TroubleKind.UNREADABLE)
    assert reason in str(trouble)
    assert (crop is None) == (modality is Modality.RGB)


def test_a_folder_in_place_of_a_file(sample):
    path = sample.files[Modality.INFRARED]
    path.unlink()
    path.mkdir()
    log = TroubleLog()
    load_sample(sample, image_size=SIZE, on_trouble=log)
    assert "Is a directory" in str(log.troubles[0])


def test_no_colour_no_sample(sample):
    sample.files[Modality.RGB].unlink()
    with pytest.raises(SampleError, match=r"0000\.jpg: rgb missing: No such file"):
        load_sample(sample, image_size=SIZE)


def test_a_black_colour_image_is_no_sample(sample):
    cv2.imwrite(str(sample.files[Modality.RGB]), np.zeros((8, 8, 3), dtype=np.uint8))
    with pytest.raises(SampleError, match="black all over"):
        load_sample(sample, image_size=SIZE)


def test_one_bad_file_ends_no_epoch(tmp_path):
    lists = small_tree(tmp_path)
    samples = read_list(lists / "P-train.txt", tmp_path, Domain.PADISI, Split.TRAIN)
    samples[1].files[Modality.RGB].write_bytes(b"PK")
    log = TroubleLog()
    crops = [try_load_sample(sample, log, image_size=SIZE) for _ in range(2) for sample in samples]
    assert [crop is None for crop in crops] == [False, True, False, False, False] * 2
    assert {trouble.path for trouble in log.troubles} == {samples[1].files[Modality.RGB]}


def test_a_png_under_a_jpegs_name_is_taken(tmp_path: Path):
    pixels = picture(5)
    (tmp_path / "a.jpg").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    assert np.array_equal(read_image(tmp_path / "a.jpg", Modality.DEPTH), pixels)


def test_the_small_tree_of_these_tests_is_sound(tree):
    """Otherwise the tests above could pass for want of files."""
    for domain in PUBLIC_DOMAINS:
        crop = load_sample(first_sample(tree, domain), image_size=SIZE)
        assert crop.modalities == tuple(Modality)
    assert channels(picture(1)).shape == (1, 22, 40, 32)
    assert len(lines_of(Domain.PADISI, Split.TEST, 2, 3)) == 5
    assert write_list(tree / "more", Domain.WMCA, Split.TEST, ["a b", "c d"]).read_bytes() == b"a b\r\nc d"
