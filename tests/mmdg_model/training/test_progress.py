"""What is told of a run's progress."""

import io
import itertools

import pytest
from rich.console import Console

from mmdg_model.training.progress import LINE_EVERY_S, ConsoleReporter, Report, described, duration


def report(updates=3, **changes):
    values = {"updates": updates, "total": 40, "epoch": 0, "epochs": 2, "loss": 0.69314, "samples_per_s": 12.34,
              "waiting_share": 0.125, "seconds_left": 3725.0}
    return Report(**(values | changes))


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (250, "4 min 10 s"),
                                               (3600, "1 h 00 min"), (11100, "3 h 05 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_line_has_loss_speed_waiting_and_time_left():
    assert described(report()) == "epoch 1/2, loss 0.6931, 12.3 samples/s, waiting 12%, 1 h 02 min left"
    assert "left" not in described(report(seconds_left=None))


def test_without_a_terminal_a_line_comes_when_it_is_time():
    written = io.StringIO()
    clock = itertools.count(0.0, LINE_EVERY_S / 4)  # read twice where a line is printed
    with ConsoleReporter(Console(file=written), clock=clock.__next__) as reporter:
        for updates in range(1, 8):
            reporter.updated(report(updates))
        reporter.note("a note [with brackets]")
    lines = written.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["update 1 of 40", "update 5 of 40", "a note [with brackets]"]


def test_a_terminal_has_a_bar():
    written = io.StringIO()
    with ConsoleReporter(Console(file=written, force_terminal=True, width=120)) as reporter:
        reporter.updated(report())
    assert "3/40" in written.getvalue()
    assert "loss 0.6931" in written.getvalue()
