"""The mark of a simulated tree: what it states, and that a mark which cannot be read never passes for none."""

import json

import pytest

from mmdg_model.inputs import InputSpecification
from mmdg_model.training.samples import PUBLIC_DOMAINS, Domain, ListCounts, ManifestError, Split
from mmdg_model.training.simulated_tree import MARK, is_simulated, read_simulated_tree
from mmdg_model.training.verification import verify
from tests.mmdg_model.training.trees import small_tree


def mark(**changes):
    content = {"simulated": True, "program": "mmdg-live 0.1.0", "seed": 3, "specification_sha256": "ab",
               "inputs": InputSpecification(image_size=128, depth_near_m=0.2).to_dict(),
               "counts": {"C-train": {"lines": 5, "live": 2, "spoof": 3, "duplicates": 0}},
               "identities": {"C": {"train": [4, 5]}}}
    return {**content, **changes}


def write(root, content):
    (root / MARK).write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def test_no_mark_is_no_simulated_tree(tmp_path):
    assert read_simulated_tree(tmp_path) is None
    assert not is_simulated(tmp_path)


def test_a_mark_says_how_depth_was_written_and_who_is_shown(tmp_path):
    tree = read_simulated_tree(write(tmp_path, mark()))
    assert tree.inputs == InputSpecification(image_size=128, depth_near_m=0.2)
    assert tree.counts == {(Domain.CEFA, Split.TRAIN): ListCounts(lines=5, live=2, spoof=3)}
    assert tree.identities == {(Domain.CEFA, Split.TRAIN): (4, 5)}
    assert (tree.seed, tree.specification_sha256) == (3, "ab")


@pytest.mark.parametrize("content", [
    "", "[]", "{}", mark(simulated=False), mark(simulated="yes"), mark(seed="x"), mark(inputs={}),
    mark(counts={"X-train": {}}), mark(counts={"C-train": {"lines": 5}}), mark(identities={"C": {"train": ["a"]}}),
    mark(identities=3)])
def test_an_unreadable_mark_is_an_error_and_still_a_mark(tmp_path, content):
    write(tmp_path, content)
    assert is_simulated(tmp_path)
    with pytest.raises(ManifestError, match=MARK):
        read_simulated_tree(tmp_path)


def test_verification_expects_what_the_mark_states(tmp_path):
    lists = small_tree(tmp_path)
    counts = {f"{domain}-{split}": {"lines": 5, "live": 2, "spoof": 3, "duplicates": 0}
              for domain in PUBLIC_DOMAINS for split in Split}
    assert verify(tmp_path, write(tmp_path, mark(counts=counts)) / "lists").passed
    assert json.loads(json.dumps(verify(tmp_path, lists).to_dict()))["simulated"] is True
    del counts["W-val"]  # a list that the tree does not state is not as it should be
    counts["P-test"]["lines"] = 6
    report = verify(tmp_path, write(tmp_path, mark(counts=counts)) / "lists")
    assert [each.list_name for each in report.lists if not each.agrees] == ["W-val", "P-test"]
    assert not report.passed
