import json

import pytest

from mmdg_model.training.pretraining.config import PretrainingError
from mmdg_model.training.pretraining.identities import is_simulated, require_disjoint, stated_identities


def tree(root, about):
    root.mkdir()
    (root / "simulated.json").write_text(about if isinstance(about, str) else json.dumps(about))
    return root


@pytest.mark.parametrize(("stated", "expected"), [
    ([1, 2], {"1", "2"}),
    (["C-001", 7], {"C-001", "7"}),
    ({"first": 3, "last": 5}, {"3", "4", "5"}),
    ({"C": {"train": [1], "val": [2]}, "W": {"train": {"first": 8, "last": 9}}}, {"1", "2", "8", "9"}),
    ({"C-train": [1], "C-val": []}, {"1"}),
])
def test_known_forms(tmp_path, stated, expected):
    assert stated_identities(tree(tmp_path / "t", {"identities": stated, "seed": 1})) == expected


@pytest.mark.parametrize(("about", "message"), [
    ({}, "states no identities"), ({"identities": []}, "states no identities"), ({"identities": {}}, "states no"),
    ("no json", "not readable JSON"), ("[1]", "states no identities"), ({"identities": 5}, "identities hold 5"),
    ({"identities": [True]}, "identities hold"), ({"identities": [1.5]}, "identities hold"),
    ({"identities": {"first": 5, "last": 3}}, "first at most last"),
    ({"identities": {"first": 0, "last": 10**12}}, "first at most last"),
    ({"identities": {"first": "a", "last": 3}}, "whole numbers"),
])
def test_unknown_is_not_disjoint(tmp_path, about, message):
    benchmark = tree(tmp_path / "b", {"identities": [1]})
    with pytest.raises(PretrainingError, match=message):
        require_disjoint(tree(tmp_path / "t", about), benchmark)


def test_a_tree_without_the_marker_cannot_be_compared(tmp_path):
    (tmp_path / "real").mkdir()
    assert not is_simulated(tmp_path / "real")
    with pytest.raises(PretrainingError, match="nobody knows who is in"):
        require_disjoint(tmp_path / "real", tree(tmp_path / "b", {"identities": [1]}))


def test_shared_people_are_refused_by_name(tmp_path):
    ours = tree(tmp_path / "t", {"identities": {"C": {"train": [1, 2]}, "S": {"val": [3]}}})
    with pytest.raises(PretrainingError, match=r"share 1 identities \(3\).*another seed"):
        require_disjoint(ours, tree(tmp_path / "b", {"identities": {"first": 3, "last": 9}}))


def test_other_people_are_recorded_by_the_benchmarks_hash(tmp_path):
    ours = tree(tmp_path / "t", {"identities": [1, 2]})
    one, two = (require_disjoint(ours, tree(tmp_path / name, {"identities": [8], "name": name})) for name in "ab")
    assert len(one) == 64
    assert one != two
