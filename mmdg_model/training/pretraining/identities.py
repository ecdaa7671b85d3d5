"""Are the people of two simulated trees others? From what their `simulated.json` say, and never by default.

A tree states its identities under the key `identities`: a list of numbers or names; a range `{"first": 0, "last": 99}`
(both included); or a mapping of such, by data set and split (`{"C": {"train": [...]}}` or `{"C-train": [...]}`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mmdg_model.training.pretraining.config import PretrainingError

MARKER = "simulated.json"

#: More identities than any tree has; a stranger's range must not fill the memory.
_LARGEST_RANGE = 10_000_000


def is_simulated(root: Path) -> bool:
    """Whether the tree says so."""
    return (root / MARKER).is_file()


def stated_identities(root: Path) -> frozenset[str]:
    """All identities of a simulated tree, as text.

    Raises:
        PretrainingError: no marker, no readable JSON, or no identities in a known form. Unknown is not disjoint.
    """
    path = root / MARKER
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PretrainingError(f"{path} is missing, so nobody knows who is in {root}; identities can be compared "
                               "between simulated trees only") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PretrainingError(f"{path} is not readable JSON ({error})") from error
    stated = about.get("identities") if isinstance(about, dict) else None
    found = frozenset(_collected(stated, str(path)))
    if not found:
        raise PretrainingError(f"{path} states no identities (key \"identities\"), so nobody knows who is in {root}; "
                               "simulate it again")
    return found


def require_disjoint(root: Path, benchmark: Path) -> str:
    """SHA-256 of the benchmark's `simulated.json`, when none of its identities is in the tree.

    Raises:
        PretrainingError: shared identities, or identities unknown.
    """
    shared = stated_identities(root) & stated_identities(benchmark)
    if shared:
        some = ", ".join(sorted(shared)[:5]) + (", ..." if len(shared) > 5 else "")
        raise PretrainingError(f"{root} and {benchmark} share {len(shared)} identities ({some}); "
                               "a backbone must not have met the people that it is tested on: simulate another tree "
                               "with another seed")
    return hashlib.sha256((benchmark / MARKER).read_bytes()).hexdigest()


def _collected(stated: Any, place: str) -> set[str]:
    if stated is None:
        return set()
    if isinstance(stated, dict):
        if set(stated) == {"first", "last"}:
            first, last = stated["first"], stated["last"]
            if not all(type(end) is int for end in (first, last)) or not 0 <= last - first < _LARGEST_RANGE:
                raise PretrainingError(f"{place}: identities {stated!r}, expected first and last as whole numbers, "
                                       "first at most last")
            return {str(identity) for identity in range(first, last + 1)}
        return {identity for part in stated.values() for identity in _collected(part, place)}
    if isinstance(stated, list) and all(type(identity) in (int, str) for identity in stated):
        return {str(identity) for identity in stated}
    raise PretrainingError(f"{place}: identities hold {stated!r:.80}, expected a list of numbers or names, a range "
                           "with first and last, or a mapping of such")
