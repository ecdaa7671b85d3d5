"""Files in the data sets' own forms, whole or not there."""

import cv2
import numpy as np
import pytest

from mmdg_model.scorer import Modality
from mmdg_model.training.padisi import read_levels
from mmdg_model.training.samples import Domain
from pipeline.simulated_trees.files import channel_file, list_bytes, write_sample, write_whole
from pipeline.simulated_trees.presentation import SampleLevels


@pytest.fixture
def levels():
    rng = np.random.default_rng(3)
    return SampleLevels(colour=rng.integers(0, 256, (40, 32, 3), np.uint8),
                        depth=rng.integers(0, 256, (40, 32), np.uint8),
                        infrared=np.arange(1280, dtype=np.uint16).reshape(40, 32).astype(np.uint8))


def test_a_channel_file_gives_every_level_back(levels, tmp_path):
    (tmp_path / "0123abcd.npz").write_bytes(channel_file(levels))
    read = read_levels(tmp_path / "0123abcd.npz")
    assert np.array_equal(read[Modality.RGB], levels.colour)
    assert np.array_equal(read[Modality.DEPTH], levels.depth)
    assert np.array_equal(read[Modality.INFRARED], levels.infrared)
    assert channel_file(levels) == channel_file(levels)


def test_a_triple_is_three_jpegs_in_order(levels, tmp_path):
    size = write_sample(tmp_path, ("a/color/1.jpg", "a/depth/1.jpg", "a/ir/1.jpg"), levels, 100)
    colour = cv2.cvtColor(cv2.imread(str(tmp_path / "a/color/1.jpg")), cv2.COLOR_BGR2RGB)
    infrared = cv2.imread(str(tmp_path / "a/ir/1.jpg"), cv2.IMREAD_UNCHANGED)
    assert size == sum(path.stat().st_size for path in tmp_path.rglob("*.jpg"))
    assert infrared.shape == (40, 32)
    assert np.abs(infrared.astype(int) - levels.infrared).mean() < 1.0
    assert colour.shape == (40, 32, 3)
    assert np.corrcoef(colour[..., 0].ravel(), levels.colour[..., 0].ravel())[0, 1] > 0.5


@pytest.mark.parametrize(("domain", "expected"), [
    (Domain.WMCA, b"a b c 1\r\nd e f 0"), (Domain.CEFA, b"a b c 1\r\nd e f 0"),
    (Domain.CASIA_SURF, b"a b c 1\r\nd e f 0"), (Domain.PADISI, b"a\t1\nd\t0\n")])
def test_lists_have_the_line_ends_of_the_public_ones(domain, expected):
    assert list_bytes(domain, [(("a", "b", "c"), True), (("d", "e", "f"), False)]) == expected


def test_a_file_is_replaced_at_once(tmp_path):
    write_whole(tmp_path / "x" / "file", b"first")
    write_whole(tmp_path / "x" / "file", b"second")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["file"]
    assert (tmp_path / "x" / "file").read_bytes() == b"second"
