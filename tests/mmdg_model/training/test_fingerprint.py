"""Whatever decides the samples changes the fingerprint; where the tree lies does not."""


import pytest

from mmdg_model.scorer import Modality
from mmdg_model.training.fingerprint import MISSING, file_sizes, fingerprint, require_tree
from mmdg_model.training.manifests import list_path, read_list
from mmdg_model.training.samples import Domain, ManifestError, Presentation, Split


def print_of(root, metadata=None):
    path = list_path(root / "lists", Domain.PADISI, Split.TRAIN)
    samples = read_list(path, root, Domain.PADISI, Split.TRAIN, metadata=metadata)
    return fingerprint([path], samples, file_sizes(samples))


def test_it_is_the_same_elsewhere(whole_tree, tree):
    assert print_of(tree) == print_of(whole_tree)


def test_metadata_counts_as_far_as_it_tells_of_these_samples(tree):
    name = (tree / "lists" / "P-train.txt").read_text().split()[0]
    assert print_of(tree, {"another.npz": Presentation(subject="7")}) == print_of(tree)
    assert print_of(tree, {name: Presentation(subject="7")}) != print_of(tree)


@pytest.mark.parametrize("change", [
    lambda root: (root / "lists" / "P-train.txt").write_bytes((root / "lists" / "P-train.txt").read_bytes() + b"\n"),
    lambda root: next(root.glob("t*.npz")).write_bytes(b"PK"),
    lambda root: next(root.glob("t*.npz")).unlink(),
])
def test_lists_and_files_count(tree, change):
    before = print_of(tree)
    change(tree)
    assert print_of(tree) != before


def test_a_list_without_one_file_is_a_wrong_root_and_a_missing_file_is_not(tree):
    samples = read_list(tree / "lists" / "W-val.txt", tree, Domain.WMCA, Split.VALIDATION)
    first = samples[0].files[Modality.RGB]
    first.unlink()
    sizes = file_sizes(samples)
    assert sizes[first] == MISSING
    assert len(sizes) == 15
    require_tree(samples, sizes, tree)
    with pytest.raises(ManifestError, match="list W-val: not one of its colour images exists below"):
        require_tree(samples, dict.fromkeys(sizes, MISSING), tree)
