"""Crop files: round trip, and refusals of what is no crop."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from mmdg_model.crop_file import CropFileError, load_crop, save_crop
from tests.mmdg_model.builders import crop

FIELDS = ("colour", "colour_valid", "depth", "depth_valid", "depth_unit_m", "infrared", "infrared_valid",
          "infrared_bit_depth")


def entries(**changes):
    one = crop()
    values = {name: getattr(one, name) for name in FIELDS} | changes
    return {name: np.asarray(value) for name, value in values.items() if value is not None}


@pytest.mark.parametrize("absent", [(), ("depth",), ("infrared",), ("depth", "infrared")])
def test_round_trip(tmp_path, absent):
    one = crop(without=absent)
    save_crop(tmp_path / "crop.npz", one)
    other = load_crop(tmp_path / "crop.npz")
    for name in FIELDS:
        written, read = getattr(one, name), getattr(other, name)
        if isinstance(written, np.ndarray):
            assert read.dtype == written.dtype
            np.testing.assert_array_equal(read, written)
    assert other.modalities == one.modalities
    if "infrared" not in absent:
        assert (other.depth_unit_m, other.infrared_bit_depth) == (one.depth_unit_m, 10) or "depth" in absent


def test_plain_numpy_archives_in_any_order_are_read(tmp_path):
    values = entries(colour=np.asfortranarray(crop().colour), depth=crop().depth.astype(">u2"))
    np.savez(tmp_path / "crop.npz", **dict(reversed(values.items())))
    read = load_crop(tmp_path / "crop.npz")
    np.testing.assert_array_equal(read.colour, crop().colour)
    np.testing.assert_array_equal(read.depth, crop().depth)
    assert read.depth.dtype == np.uint16


@pytest.mark.parametrize(("changes", "quoted"), [
    ({"colour": None}, "entry 'colour' is missing"),
    ({"colour_valid": None}, "entry 'colour_valid' is missing"),
    ({"depth_unit_m": None}, "entry 'depth_unit_m' is missing; depth, depth_valid, depth_unit_m belong together"),
    ({"infrared": None}, "entry 'infrared' is missing"),
    ({"label": 1}, "unknown entry 'label.npy'"),
    ({"colour": np.zeros((64, 64, 3))}, "entry colour is float64, expected uint8"),
    ({"depth": np.zeros((64, 64), np.float32)}, "entry depth is float32, expected uint16"),
    ({"infrared_valid": np.ones((64, 64), np.uint8)}, "entry infrared_valid is uint8, expected bool"),
    ({"depth": np.zeros((32, 64), np.uint16)}, r"entry depth has shape \(32, 64\), expected \(64, 64\)"),
    ({"colour": np.zeros((64, 64), np.uint8)}, r"entry colour has shape \(64, 64\)"),
    ({"depth_unit_m": np.array([1e-4, 1e-3])}, r"entry depth_unit_m has shape \(2,\)"),
    ({"colour": np.zeros((0, 0, 3), np.uint8), "colour_valid": np.zeros((0, 0), np.bool_), "depth": None,
      "depth_valid": None, "depth_unit_m": None, "infrared": None, "infrared_valid": None,
      "infrared_bit_depth": None}, "planes are 0 pixels wide"),
    ({"colour": np.zeros((2000, 2000, 3), np.uint8)}, "entry colour has 12000128 bytes, expected at most"),
])
def test_what_is_no_crop_is_refused_by_name(tmp_path, changes, quoted):
    np.savez_compressed(tmp_path / "odd.npz", **entries(**changes))
    with pytest.raises(CropFileError, match=quoted):
        load_crop(tmp_path / "odd.npz")


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "objects.npz", colour=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CropFileError, match="entry colour is object, expected uint8"):
        load_crop(tmp_path / "objects.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 50])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    for path in (tmp_path / "x.npz", tmp_path / "nowhere.npz", tmp_path):
        with pytest.raises(CropFileError, match=r"not a readable \.npz"):
            load_crop(path)


@pytest.mark.parametrize("shape", [(10**9, 10**9), (2**62, 8), (64, 64, 64)])
def test_a_header_that_claims_more_than_it_holds_allocates_nothing(tmp_path, shape):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        archive.writestr("colour.npy", header.getvalue() + b"\0" * 100)
    tracemalloc.start()
    try:
        with pytest.raises(CropFileError, match="entry colour claims shape"):
            load_crop(tmp_path / "claim.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_stream_that_grows_beyond_its_stated_size_is_cut(tmp_path):
    """A bomb: 60 MB of zeros behind an entry that states 200 bytes."""
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("colour.npy", b"\0" * 60_000_000)
    blob = (tmp_path / "bomb.npz").read_bytes()
    (tmp_path / "bomb.npz").write_bytes(blob.replace((60_000_000).to_bytes(4, "little"), (200).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        with pytest.raises(CropFileError):
            load_crop(tmp_path / "bomb.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_other_compression_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "lzma.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("colour.npy", b"\0" * 100)
    with pytest.raises(CropFileError, match="compression method 14"):
        load_crop(tmp_path / "lzma.npz")


def test_damaged_bytes_never_surprise(tmp_path):
    """Any byte changed: a crop, or a `CropFileError`; never another error."""
    save_crop(tmp_path / "sound.npz", crop(size=16))
    blob = (tmp_path / "sound.npz").read_bytes()
    generator, refused = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(blob)
        damaged[generator.integers(0, len(blob))] = generator.integers(0, 256)
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            load_crop(tmp_path / "damaged.npz")
        except CropFileError:
            refused += 1
    assert refused > 100
