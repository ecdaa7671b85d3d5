"""An operating point is stored exactly and refused when it says anything that cannot be."""

import dataclasses
import json
import math

import pytest

from mmdg_model.operating_point import (
    OperatingPoint,
    OperatingPointError,
    read_operating_point,
    write_operating_point,
)

POINT = OperatingPoint(logit_scale=0.37, logit_offset=-0.81, frame_correlation=0.83, threshold=4.6, apcer=0.02,
                       bpcer=0.03, sessions=120, data="simulated", command="mmdg evaluate sessions out/validation")


def test_a_written_point_reads_back_equal(tmp_path):
    write_operating_point(POINT, tmp_path / "deep" / "operating_point.json")
    assert read_operating_point(tmp_path / "deep" / "operating_point.json") == POINT


def test_whole_numbers_are_numbers(tmp_path):
    path = tmp_path / "operating_point.json"
    path.write_text(json.dumps(POINT.to_dict() | {"logit_scale": 1, "apcer": 0}))
    point = read_operating_point(path)
    assert isinstance(point.logit_scale, float)
    assert point.apcer == 0.0


def test_the_llr_is_the_scaled_and_shifted_logit():
    assert POINT.llr(0.0) == pytest.approx(-0.81)
    assert POINT.llr(10.0) == pytest.approx(2.89)


@pytest.mark.parametrize(("key", "value"), [
    ("logit_scale", 0.0), ("logit_scale", -1.0), ("logit_scale", math.nan), ("logit_scale", math.inf),
    ("logit_scale", "1"), ("logit_scale", True), ("logit_offset", -101.0), ("logit_offset", None),
    ("frame_correlation", 1.0), ("frame_correlation", -0.1), ("threshold", math.nan), ("apcer", 1.01),
    ("bpcer", -0.01), ("sessions", 0), ("sessions", 2.0), ("sessions", True), ("data", "live"), ("data", 3),
    ("command", " "), ("command", None),
])
def test_an_impossible_value_is_refused_by_name(key, value):
    with pytest.raises(OperatingPointError, match=f"^{key} is "):
        dataclasses.replace(POINT, **{key: value})
    with pytest.raises(OperatingPointError, match=f"^there: {key} is "):
        OperatingPoint.from_dict(POINT.to_dict() | {key: value}, place="there")


@pytest.mark.parametrize(("text", "message"), [
    ("[1]", "expected an object"), ("{", "no readable JSON"), ("\x00", "no readable JSON"), ("[" * 100_000, "JSON"),
    ("{}", "'logit_scale' is missing"), (json.dumps(POINT.to_dict() | {"more": 1}), "unknown key 'more'"),
    (json.dumps(POINT.to_dict()).replace("0.37", "NaN"), "no readable JSON"),
    (json.dumps(POINT.to_dict()).replace("0.37", "1" + "0" * 400), "operating_point.json"),
])
def test_a_damaged_file_is_refused_by_its_path(tmp_path, text, message):
    path = tmp_path / "operating_point.json"
    path.write_text(text)
    with pytest.raises(OperatingPointError, match=message) as refused:
        read_operating_point(path)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(OperatingPointError, match=r"none\.json"):
        read_operating_point(tmp_path / "none.json")
