import pytest

from mmdg_model.training.pretraining.config import PretrainingError
from mmdg_model.training.pretraining.identities import require_disjoint, stated_identities
from mmdg_model.training.samples import ManifestError
from mmdg_model.training.simulated_tree import MARK
from tests.mmdg_model.training.trees import mark_simulated


def tree(root, identities, **changes):
    root.mkdir()
    mark_simulated(root, identities=identities, **changes)
    return root


def test_identities_of_all_lists_count(tmp_path):
    stated = {"C": {"train": [1], "val": [2]}, "W": {"train": [8, 9]}}
    assert stated_identities(tree(tmp_path / "t", stated)) == {1, 2, 8, 9}


def test_unknown_is_not_disjoint(tmp_path):
    benchmark = tree(tmp_path / "b", {"C": {"train": [1]}})
    with pytest.raises(PretrainingError, match="states no identities"):
        require_disjoint(tree(tmp_path / "t", {}), benchmark)
    (tmp_path / "t" / MARK).write_text("no json")
    with pytest.raises(ManifestError, match="cannot be read"):
        require_disjoint(tmp_path / "t", benchmark)


def test_a_tree_without_the_mark_cannot_be_compared(tmp_path):
    (tmp_path / "real").mkdir()
    with pytest.raises(PretrainingError, match="nobody knows who is in"):
        require_disjoint(tmp_path / "real", tree(tmp_path / "b", {"C": {"train": [1]}}))


def test_shared_people_are_refused_by_name(tmp_path):
    ours = tree(tmp_path / "t", {"C": {"train": [1, 2]}, "S": {"val": [3]}})
    with pytest.raises(PretrainingError, match=r"share 1 identities \(3\).*another seed"):
        require_disjoint(ours, tree(tmp_path / "b", {"P": {"test": [3, 9]}}))


def test_other_people_are_recorded_by_the_benchmarks_hash(tmp_path):
    ours = tree(tmp_path / "t", {"C": {"train": [1, 2]}})
    one, two = (require_disjoint(ours, tree(tmp_path / f"{seed}", {"C": {"test": [8]}}, seed=seed)) for seed in (1, 2))
    assert len(one) == 64
    assert one != two
