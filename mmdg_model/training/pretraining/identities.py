"""Are the people of two simulated trees others? From what their marks say, and never by default."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mmdg_model.training.pretraining.config import PretrainingError
from mmdg_model.training.simulated_tree import MARK, read_simulated_tree


def stated_identities(root: Path) -> frozenset[int]:
    """All identities of a simulated tree, over its data sets and lists.

    Raises:
        PretrainingError: no mark, or one without a single identity. Unknown is not disjoint.
        ManifestError: a mark that cannot be read.
    """
    tree = read_simulated_tree(root)
    if tree is None:
        raise PretrainingError(f"{root / MARK} is missing, so nobody knows who is in {root}; identities can be "
                               "compared between simulated trees only")
    found = frozenset(identity for numbers in tree.identities.values() for identity in numbers)
    if not found:
        raise PretrainingError(f"{root / MARK} states no identities, so nobody knows who is in {root}; simulate it "
                               "again")
    return found


def require_disjoint(root: Path, benchmark: Path) -> str:
    """SHA-256 of the benchmark's mark, when none of its identities is in the tree.

    Raises:
        PretrainingError: shared identities, or identities unknown.
        ManifestError: a mark that cannot be read.
    """
    shared = stated_identities(root) & stated_identities(benchmark)
    if shared:
        some = ", ".join(map(str, sorted(shared)[:5])) + (", ..." if len(shared) > 5 else "")
        raise PretrainingError(f"{root} and {benchmark} share {len(shared)} identities ({some}); "
                               "a backbone must not have met the people that it is tested on: simulate another tree "
                               "with another seed")
    return hashlib.sha256((benchmark / MARK).read_bytes()).hexdigest()
