"""Pairing as tables of stamps, and as properties over arbitrary deliveries."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.frames import ClockDomain, Frame, StreamKind
from capture.pairing import Pairer, PairingLimits

COLOUR, DEPTH, INFRARED = StreamKind.COLOUR, StreamKind.DEPTH, StreamKind.INFRARED
MS = 1_000_000
PERIOD_NS = 33_333_333
PLANES = {COLOUR: np.zeros((2, 2, 3), np.uint8), DEPTH: np.zeros((2, 2), np.uint16),
          INFRARED: np.zeros((2, 2), np.uint8)}


def frame(kind, number, stamp_ms, domain=ClockDomain.HARDWARE, arrival_ms=None):
    return Frame(kind=kind, pixels=PLANES[kind], frame_number=number, sensor_timestamp_ns=round(stamp_ms * MS),
                 clock_domain=domain, arrival_ns=round((stamp_ms if arrival_ms is None else arrival_ms) * MS))


def ticks(kind, numbers, offset_ms=0.0, domain=ClockDomain.HARDWARE):
    """Frames of an ideal 30 Hz stream: number n at n periods + offset."""
    return [frame(kind, n, n * PERIOD_NS / MS + offset_ms, domain) for n in numbers]


def by_arrival(*streams):
    return sorted((f for stream in streams for f in stream), key=lambda f: (f.arrival_ns, f.kind))


def numbers(groups):
    return [tuple(group[kind].frame_number for kind in sorted(group)) for group in groups]


def counted(pairer):
    return {cause: count for cause, count in pairer.counters.items() if count}


D435 = (COLOUR, DEPTH, INFRARED)


@pytest.mark.parametrize(("name", "streams", "delivered", "expected", "counters"), [
    ("in step", D435, by_arrival(ticks(COLOUR, range(3)), ticks(DEPTH, range(3)), ticks(INFRARED, range(3))),
     [(0, 0, 0), (1, 1, 1), (2, 2, 2)], {}),
    ("one stream pairs with itself", (COLOUR,), ticks(COLOUR, range(3)), [(0,), (1,), (2,)], {}),
    ("colour delivered two periods late", (COLOUR, DEPTH),
     [*ticks(DEPTH, [0, 1]), *ticks(COLOUR, [0]), *ticks(DEPTH, [2]), *ticks(COLOUR, [1]), *ticks(DEPTH, [3])],
     [(0, 0), (1, 1)], {}),
    ("colour stalls, then comes back", (COLOUR, DEPTH),
     by_arrival(ticks(COLOUR, [0, 1, 12, 13]), ticks(DEPTH, range(14))),
     [(0, 0), (1, 1), (12, 12), (13, 13)], {"incomplete": 10, "gap_colour": 10}),
    ("colour at half the rate", (COLOUR, DEPTH),
     by_arrival([frame(COLOUR, n, 2 * n * PERIOD_NS / MS) for n in range(3)], ticks(DEPTH, range(5))),
     [(0, 0), (1, 2), (2, 4)], {"incomplete": 2}),
    ("colour half a period off: within the default limit", (COLOUR, DEPTH),
     by_arrival(ticks(COLOUR, range(3), offset_ms=16), ticks(DEPTH, range(3))), [(0, 0), (1, 1), (2, 2)], {}),
    ("17 ms skew: the nearer exposure is the next one", (COLOUR, DEPTH),
     by_arrival(ticks(COLOUR, range(3), offset_ms=17), ticks(DEPTH, range(3))), [(0, 1), (1, 2)], {"skew": 1}),
    ("a depth frame is missing", D435,
     by_arrival(ticks(COLOUR, range(3)), ticks(DEPTH, [0, 2]), ticks(INFRARED, range(3))),
     [(0, 0, 0), (2, 2, 2)], {"gap_depth": 1, "incomplete": 2}),
    ("every colour frame is repeated", (COLOUR, DEPTH),
     by_arrival(ticks(COLOUR, [0, 0, 1, 1]), ticks(DEPTH, [0, 1])), [(0, 0), (1, 1)], {"stale_colour": 2}),
    ("an old colour frame cannot complete a new set", (COLOUR, DEPTH),
     [*ticks(COLOUR, [0]), *ticks(DEPTH, [0]), *ticks(DEPTH, [1]), *ticks(COLOUR, [0])],
     [(0, 0)], {"stale_colour": 1}),
    ("a repeated frame under a new number has an old stamp", (COLOUR, DEPTH),
     [*ticks(COLOUR, [0]), *ticks(DEPTH, [0, 1]), frame(COLOUR, 1, 0.0)], [(0, 0)], {"stale_colour": 1}),
    ("number repeated on a slightly later stamp", (COLOUR, DEPTH),
     [*ticks(COLOUR, [5]), *ticks(DEPTH, [5, 6]), frame(COLOUR, 5, 6 * PERIOD_NS / MS)], [(5, 5)],
     {"stale_colour": 1}),
    ("the clock goes back with the numbers: a new timeline", (COLOUR, DEPTH),
     [*by_arrival(ticks(COLOUR, [100, 101]), ticks(DEPTH, [100, 101, 102])), *ticks(COLOUR, [0]), *ticks(DEPTH, [0])],
     [(100, 100), (101, 101), (0, 0)], {"clock_back": 1, "incomplete": 1}),
    ("the clock goes back though the numbers go on", (COLOUR,),
     [frame(COLOUR, 7, 500), frame(COLOUR, 8, 490), frame(COLOUR, 9, 523)], [(7,), (8,), (9,)], {"clock_back": 1}),
    ("no frame numbers: stamps decide freshness", (COLOUR,),
     [frame(COLOUR, None, 0), frame(COLOUR, None, 0), frame(COLOUR, None, 33)], [(None,), (None,)],
     {"stale_colour": 1}),
    ("an unexpected stream is not let in", (COLOUR,), [*ticks(COLOUR, [0]), *ticks(DEPTH, [0])], [(0,)],
     {"unexpected_depth": 1}),
    ("different clocks are never compared", (COLOUR, DEPTH),
     by_arrival(ticks(COLOUR, range(3), domain=ClockDomain.HOST), ticks(DEPTH, range(3))),
     [], {"clock_domain": 5}),
    ("one frame with another clock, then all is well again", (COLOUR, DEPTH),
     by_arrival([*ticks(COLOUR, [0]), *ticks(COLOUR, [1], domain=ClockDomain.HOST), *ticks(COLOUR, [2])],
                ticks(DEPTH, range(3))),
     [(0, 0), (2, 2)], {"clock_domain": 1, "incomplete": 1}),
])
def test_pairs(name, streams, delivered, expected, counters):
    pairer = Pairer(streams, PERIOD_NS)
    assert numbers(pairer.step(delivered)) == expected
    assert counted(pairer) == counters


def test_a_tighter_skew_limit_refuses_what_the_default_takes():
    delivered = by_arrival(ticks(COLOUR, range(4), offset_ms=16), ticks(DEPTH, range(4)))
    pairer = Pairer((COLOUR, DEPTH), PERIOD_NS, max_skew_ns=8 * MS)
    assert pairer.step(delivered) == []
    assert counted(pairer) == {"skew": 7}


def test_the_skew_histogram_counts_emitted_groups_by_millisecond():
    pairer = Pairer((COLOUR, DEPTH), PERIOD_NS)
    pairer.step(by_arrival(ticks(COLOUR, range(3), offset_ms=2.5), ticks(DEPTH, range(3))))
    pairer.step(by_arrival(ticks(COLOUR, range(3, 5)), ticks(DEPTH, range(3, 5))))
    assert pairer.skew_ms == {2: 3, 0: 2}


@pytest.mark.parametrize("stamp_ms", [lambda n: n * 33.3, lambda n: n * 1e-6])
def test_memory_is_bounded_while_a_stream_is_silent(stamp_ms):
    pairer = Pairer((COLOUR, DEPTH), PERIOD_NS, limits=PairingLimits(max_pending=3))
    for n in range(1000):
        assert pairer.step([frame(DEPTH, n, stamp_ms(n))]) == []
        assert pairer.pending <= 3
    assert pairer.counters["incomplete"] == 1000 - pairer.pending


def test_memory_is_bounded_when_every_frame_has_another_clock():
    domains = [ClockDomain.HARDWARE, ClockDomain.HOST]
    pairer = Pairer((COLOUR, DEPTH), PERIOD_NS)
    for n in range(100):
        pairer.step([frame(DEPTH, n, n * 33.3, domains[n % 2])])
    assert pairer.pending <= pairer.limits.max_pending


@pytest.mark.parametrize(("arguments", "message"), [
    ({"streams": (), "frame_period_ns": 1}, "at least one stream"),
    ({"streams": (COLOUR,), "frame_period_ns": 0}, "frame_period_ns is 0"),
    ({"streams": (COLOUR,), "frame_period_ns": 1, "max_skew_ns": -1}, "max_skew_ns is -1"),
])
def test_refuses_impossible_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pairer(**arguments)


def test_refuses_impossible_limits():
    with pytest.raises(ValueError, match="max_pending=0"):
        PairingLimits(max_pending=0)


any_frame = st.builds(
    frame, st.sampled_from(D435), st.none() | st.integers(0, 30),
    st.integers(0, 40).map(lambda half_ticks: half_ticks * PERIOD_NS / MS / 2) | st.floats(0, 700),
    st.sampled_from([ClockDomain.HARDWARE] * 5 + [ClockDomain.HOST]), st.floats(0, 700))


@settings(max_examples=150, deadline=None)
@given(deliveries=st.lists(st.lists(any_frame, max_size=6), max_size=25))
def test_no_frame_is_used_twice_and_every_group_is_matched(deliveries):
    pairer = Pairer(D435, PERIOD_NS)
    groups = [group for delivery in deliveries for group in pairer.step(delivery)]
    used = Counter(id(f) for group in groups for f in group.values())
    assert all(count == 1 for count in used.values())
    for group in groups:
        stamps = [f.sensor_timestamp_ns for f in group.values()]
        assert set(group) == set(D435)
        assert max(stamps) - min(stamps) <= pairer.max_skew_ns
        assert len({f.clock_domain for f in group.values()}) == 1
    delivered = sum(map(len, deliveries))
    dropped = sum(n for cause, n in pairer.counters.items() if not cause.startswith("gap_") and cause != "clock_back")
    assert delivered == 3 * len(groups) + dropped + pairer.pending  # every frame is accounted for


@settings(max_examples=100, deadline=None)
@given(deliveries=st.lists(st.lists(any_frame, max_size=6), max_size=15))
def test_batching_does_not_change_what_comes_out(deliveries):
    batched, single = Pairer(D435, PERIOD_NS), Pairer(D435, PERIOD_NS)
    a = [group for delivery in deliveries for group in batched.step(delivery)]
    b = [group for delivery in deliveries for f in delivery for group in single.step([f])]
    assert [[id(f) for f in g.values()] for g in a] == [[id(f) for f in g.values()] for g in b]
    assert batched.counters == single.counters


@settings(max_examples=80, deadline=None)
@given(lost=st.lists(st.tuples(st.sampled_from(D435), st.integers(0, 19)), max_size=20),
       repeated=st.lists(st.tuples(st.sampled_from(D435), st.integers(0, 19)), max_size=20),
       jitter_ms=st.lists(st.floats(-3, 3), min_size=60, max_size=60))
def test_without_restarts_no_exposure_appears_twice_and_exactly_the_complete_ticks_come_out(lost, repeated, jitter_ms):
    delivered = []
    for i, kind in enumerate(D435):
        for n in range(20):
            if (kind, n) not in lost:
                one = frame(kind, n, n * PERIOD_NS / MS + jitter_ms[20 * i + n])
                delivered += [one] * (1 + repeated.count((kind, n)))
    groups = Pairer(D435, PERIOD_NS).step(sorted(delivered, key=lambda f: f.arrival_ns))
    assert numbers(groups) == [(n, n, n) for n in range(20) if not any((kind, n) in lost for kind in D435)]
