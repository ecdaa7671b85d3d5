"""Logs of whole JSON lines."""

import pytest

from mmdg_model.training.metrics_log import LineLog, read_lines
from mmdg_model.training.run_directory import RunDirectoryError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "metrics.jsonl"


def test_lines_come_back_and_what_is_no_number_is_null(path):
    log = LineLog(path)
    log.write({"update": 1, "loss": 0.1, "ssp": float("nan"), "rate": float("inf")})
    log.write({"update": 2})
    log.close()
    assert read_lines(path) == [{"update": 1, "loss": 0.1, "ssp": None, "rate": None}, {"update": 2}]


def test_cut_back_to_what_a_saved_run_had_written(path):
    log = LineLog(path)
    log.write({"update": 1})
    length = log.sync()
    log.write({"update": 2})
    log.close()
    log = LineLog(path)
    log.cut_back(length)
    log.write({"update": 3})
    log.close()
    assert [line["update"] for line in read_lines(path)] == [1, 3]


def test_a_line_cut_off_by_a_kill_is_left_out_and_not_written_into(path):
    log = LineLog(path)
    log.write({"update": 1})
    log.close()
    with path.open("ab") as file:
        file.write(b'{"update": 2, "lo')
    assert [line["update"] for line in read_lines(path)] == [1]
    log = LineLog(path)
    log.cut_back_to_whole_lines()
    log.write({"update": 3})
    log.close()
    assert [line["update"] for line in read_lines(path)] == [1, 3]


def test_a_log_shorter_than_the_saved_run_says_is_refused(path):
    log = LineLog(path)
    log.write({"update": 1})
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl has 14 bytes, the saved run had written 99"):
        log.cut_back(99)
    log.close()


def test_a_whole_line_that_is_no_json_is_named(path):
    path.parent.mkdir()
    path.write_bytes(b'{"update": 1}\nnonsense\n')
    with pytest.raises(RunDirectoryError, match="line 2"):
        read_lines(path)
