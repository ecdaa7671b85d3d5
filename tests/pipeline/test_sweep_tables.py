"""What sweeps write is what `mmdg sensitivity` reads: columns, parameters and their usual values."""

import pytest

from mmdg_model.training.report import sensitivity
from pipeline.simulated_sessions.plan import SessionOptions
from pipeline.simulated_sessions.scoring import COLUMNS
from pipeline.simulated_sessions.sweep import SWEEPS


def test_a_sweeps_table_has_every_column_that_is_read():
    assert set(sensitivity.COLUMNS) <= set(COLUMNS)


@pytest.mark.parametrize("parameter", SWEEPS)
def test_the_usual_value_of_every_parameter_is_among_those_swept(parameter):
    assert sensitivity.REFERENCES[parameter] in SWEEPS[parameter]


@pytest.mark.parametrize("parameter", ["yaw_deg", "pitch_deg", "light", "room_infrared", "noise"])
def test_the_usual_value_is_what_sessions_have_by_default(parameter):
    assert float(sensitivity.REFERENCES[parameter]) == getattr(SessionOptions(), parameter)
