"""The operating-point file: equal content, equal bytes and id; anything else than what was written is refused."""

import hashlib
import json

import msgspec
import pytest

from calibration.operating_point_file import (
    CalibratedModel,
    CalibrationSessions,
    EvidenceMap,
    OperatingPointFile,
    OperatingPointFileError,
    canonical_bytes,
    file_bytes,
    operating_points_from,
    read_operating_point_file,
)

MAP = EvidenceMap(
    camera_kind="simulated-d4xx", modalities=["rgb", "depth", "infrared"], scale=0.5, offset=-1.0, frame_llr_clip=3.0,
    evidence_clip=3.0, frame_correlation=0.8, frame_correlation_low=0.7, frame_correlation_high=0.9, lasting_share=0.3,
    lasting_share_low=0.2, lasting_share_high=0.4, cllr_raw=1.4,
    cllr=0.5, cllr_min=0.4, cllr_held_out=None, sessions_bona_fide=21, sessions_attack=200, frames=2000)
FILE = OperatingPointFile(
    model=CalibratedModel(sha256="ab" * 32, purpose="simulated"), data="simulated", created="2026-11-23",
    command="mmdg calibrate score somewhere", species_weights="balanced",
    maps=[MAP, msgspec.structs.replace(MAP, modalities=["rgb"], scale=0.1)],
    sessions=CalibrationSessions(total=221, unscored=1, by_label={"attack": 200, "bona_fide": 21},
                                 by_species={"bona_fide": 21, "flat_print": 200}, index_sha256=["cd" * 32]))


def document(**changes):
    """The file as plain data, with the id of its changed content."""
    content = json.loads(file_bytes(FILE)) | changes
    return content | {"calibration_id": changes.get(
        "calibration_id", hashlib.sha256(canonical_bytes(content)).hexdigest()[:16])}


def with_map(**changes):
    return document(maps=[json.loads(file_bytes(FILE))["maps"][0] | changes])


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "points.json"
    path.write_bytes(file_bytes(FILE))
    found = read_operating_point_file(path, model_sha256="ab" * 32)
    assert found == FILE
    assert file_bytes(found) == path.read_bytes()


def test_the_id_is_of_the_content_alone(tmp_path):
    assert len(FILE.calibration_id) == 16
    assert json.loads(file_bytes(FILE))["calibration_id"] == FILE.calibration_id
    # Neither white space nor the order of keys is content.
    shuffled = dict(reversed(json.loads(file_bytes(FILE)).items()))
    path = tmp_path / "points.json"
    path.write_text(json.dumps(shuffled, indent=7))
    assert read_operating_point_file(path).calibration_id == FILE.calibration_id
    assert msgspec.structs.replace(FILE, command="another").calibration_id != FILE.calibration_id


def test_the_id_of_this_file_is_pinned():
    """A change of the canonical form would orphan every id that a decision or an audit log names."""
    assert canonical_bytes(json.loads(file_bytes(FILE))).startswith(
        b'{"command":"mmdg calibrate score somewhere","created":"2026-11-23","data":"simulated","format":')
    assert FILE.calibration_id == "80356b25c2dd9a62"


@pytest.mark.parametrize(("content", "says"), [
    (document(version=1), r"\$\.version is 1, this build reads 2; fit the file again with mmdg calibrate score"),
    (document(version=True), r"\$\.version is True"),
    (document(format="other"), r"\$\.format is 'other'"),
    (document(calibration_id="0" * 16), r"\$\.calibration_id is '0000000000000000', the content has"),
    (document(calibration_id=7), r"\$\.calibration_id is 7"),
    (document(surprise=1), "unknown field `surprise`"),
    ({key: value for key, value in document().items() if key != "model"}, "missing required field `model`"),
    (document(data="real"), r"'real'.*\$\.data|\$\.data.*'real'"),
    (document(maps=[]), r"\$\.maps"),
    (document(model={"sha256": "xyz", "purpose": "release"}), r"\$\.model\.sha256.*'xyz'"),
    (with_map(scale=-1.0), r"\$\.maps\[0\]\.scale.*-1\.0"),
    (with_map(scale=0.0), r"scale.*0\.0"),
    (with_map(scale=10**400), r"points"),
    (with_map(frame_correlation=1.0), r"frame_correlation.*1\.0"),
    (with_map(lasting_share=1.0), r"lasting_share.*1\.0"),
    (document(species_weights="even"), r"'even'"),
    (with_map(frame_llr_clip=0.0), r"frame_llr_clip.*0\.0"),
    (with_map(sessions_bona_fide=0), r"sessions_bona_fide.*0"),
    (with_map(scale="0.5"), r"scale.*'0\.5'"),
    (with_map(modalities=["rgb", "thermal"]), "thermal"),
    (with_map(modalities=["depth"]), r"maps\[0\]\.modalities is \['depth'\], expected one of rgb\+depth\+infrared"),
    (with_map(modalities=["infrared", "rgb"]), r"modalities is"),
    (document(maps=[json.loads(file_bytes(FILE))["maps"][0]] * 2), r"maps\[1\] is another map for rgb\+depth"),
    ([], r"\[\], expected a JSON object"),
])
def test_anything_else_is_refused_with_place_and_value(content, says):
    with pytest.raises(OperatingPointFileError, match=says) as refusal:
        operating_points_from(content, "points.json")
    assert "points.json" in str(refusal.value)


@pytest.mark.parametrize(("text", "says"), [
    ("", "Expecting value"),
    ('{"a": NaN}', "NaN is no number"),
    (file_bytes(FILE).decode().replace("0.5", "Infinity", 1), "Infinity is no number"),
    (file_bytes(FILE).decode().replace('"scale": 0.5', '"scale": 1e999', 1), "scale"),
    ('{"version": 1, "version": 1}', "'version' stands there twice"),
    ("[" * 100_000, "points.json"),
    ("\udc80".encode("utf-8", "surrogateescape").decode("latin-1"), "points.json"),
])
def test_text_that_is_no_file_of_ours_is_refused(tmp_path, text, says):
    path = tmp_path / "points.json"
    path.write_bytes(text.encode("latin-1", "replace"))
    with pytest.raises(OperatingPointFileError, match=says):
        read_operating_point_file(path)


def test_a_missing_file_and_another_model_are_refused_with_the_remedy(tmp_path):
    with pytest.raises(OperatingPointFileError, match=r"nowhere\.json: No such file.*mmdg calibrate score"):
        read_operating_point_file(tmp_path / "nowhere.json")
    path = tmp_path / "points.json"
    path.write_bytes(file_bytes(FILE))
    with pytest.raises(OperatingPointFileError, match=rf"sha256 is {'ab' * 32}, the model that runs has {'00' * 32}"):
        read_operating_point_file(path, model_sha256="00" * 32)


@pytest.mark.parametrize(("kind", "modalities", "scale"), [
    ("simulated-d4xx", ["rgb", "depth", "infrared"], 0.5),
    ("simulated-d4xx", ["infrared", "depth", "rgb"], 0.5),
    ("simulated-d4xx", ["rgb"], 0.1),
    ("simulated-d4xx", ["rgb", "depth"], None),
    ("simulated-d4xx_projector", ["rgb"], None),
    ("", ["rgb"], None),
    ("simulated-d4xx", [], None),
])
def test_a_subset_has_its_own_map_or_none(kind, modalities, scale):
    found = FILE.map_for(kind, modalities)
    assert (None if found is None else found.scale) == scale


def test_an_llr_is_clipped():
    assert [MAP.llr(logit) for logit in (4.0, 100.0, -100.0)] == [1.0, 3.0, -3.0]
