import pytest

from pipeline.simulator_audit.balance import check_balance
from pipeline.simulator_audit.findings import Findings, Status
from pipeline.simulator_audit.frames import AuditedTree, Recorded


def recorded(number, **changes):
    """Twenty people, live and depicted on both cameras and at four places."""
    live = number % 2 == 0
    values = {"key": f"W-train-{number:05d}", "domain": "W", "scene": "bona_fide" if live else "flat_print",
              "species": "bona_fide" if live else "print", "person": number // 2 % 20, "subject": str(number // 2 % 20),
              "camera": f"CAMERA-{number // 2 % 2}", "place": number // 4 % 4, "instants": 3, "missed": 0}
    return Recorded(**{**values, **changes})


def tree(recordings, counts=None, identities=None):
    return AuditedTree(root=None, seed=0, size="tiny", physics=True, specification_sha256="0" * 64,
                       counts=counts or {}, identities=identities or {}, recordings=tuple(recordings), frames=None)


def status(audited, what):
    findings = Findings()
    check_balance(audited, findings)
    (line,) = [line for line in findings.lines if what in line.what]
    return line.status


@pytest.mark.parametrize(("what", "spoilt"), [
    ("with cameras", lambda n: {"camera": f"CAMERA-{(n % 2 if n % 8 else (n + 1) % 2)}"}),
    ("with places", lambda n: {"place": n % 2 if n % 8 else 2}),
    ("places with one label only", lambda n: {"place": n % 2}),
    ("filmed both labels", lambda n: {"camera": "CAMERA-0"}),
    ("live and depicted", lambda n: {"person": n}),
    ("without a single found face", lambda n: {"missed": int(n % 4 == 0)}),
])
def test_each_imbalance_is_seen_where_it_is_and_only_there(what, spoilt):
    assert status(tree([recorded(number) for number in range(160)]), what) is Status.PASSED
    assert status(tree([recorded(number, **spoilt(number)) for number in range(160)]), what) is Status.FAILED


@pytest.mark.parametrize(("identities", "expected"), [
    ({("W", "train"): (1, 2), ("W", "test"): (3, 4), ("S", "train"): (5,)}, Status.PASSED),
    ({("W", "train"): (1, 2), ("W", "test"): (2, 4)}, Status.FAILED),
    ({("W", "train"): (1, 2), ("S", "test"): (2,)}, Status.FAILED),
])
def test_an_identity_in_two_lists_is_seen(identities, expected):
    audited = tree([recorded(number) for number in range(40)], identities=identities)
    assert status(audited, "more than one list") is expected


def test_the_label_prior_is_that_of_the_public_list():
    # W-test of the public lists has far fewer live faces than half.
    even = tree([recorded(number) for number in range(40)], counts={("W", "test"): (2000, 1000)})
    assert status(even, "share of live samples") is Status.FAILED
