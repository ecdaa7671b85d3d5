"""`simulated.json`: the mark of a simulated tree of data sets, and what it says of itself.

Whatever is trained or tested on a tree that bears it is simulated, and must be reported so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdg_model.inputs import InputSpecification, SpecificationError
from mmdg_model.training.samples import Domain, ListCounts, ManifestError, Split

#: Name of the mark, at the data root.
MARK = "simulated.json"


@dataclass(frozen=True, kw_only=True)
class SimulatedTree:
    """What a simulated tree states.

    Attributes:
        program: name and version of what made it. seed: that all of it follows from.
        specification_sha256: of the domain specifications and everything else that decides the pixels.
        inputs: how metric crops became the stored levels: depth of these trees is `metric_8bit` of this specification,
            so a network trained on them takes live metric crops under the same values.
        counts: what each finished list holds.
        identities: numbers of the persons shown in each finished list. Another seed's are other numbers.
    """

    program: str
    seed: int
    specification_sha256: str
    inputs: InputSpecification
    counts: Mapping[tuple[Domain, Split], ListCounts]
    identities: Mapping[tuple[Domain, Split], tuple[int, ...]]


def is_simulated(root: Path) -> bool:
    """Whether the tree bears the mark, readable or not."""
    return (root / MARK).exists()


def read_simulated_tree(root: Path) -> SimulatedTree | None:
    """What the tree states; None where there is no mark.

    Raises:
        ManifestError: the mark is there but cannot be read. It never means "not simulated".
    """
    path = root / MARK
    if not is_simulated(root):
        return None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["simulated"] is not True:
            raise ManifestError(f"{path}: simulated is {content['simulated']!r}, expected true")
        lists = {(Domain(name[0]), Split(name[2:])): each for name, each in content["counts"].items()}
        identities = {(Domain(letter), Split(split)): tuple(int(number) for number in numbers)
                      for letter, splits in content["identities"].items() for split, numbers in splits.items()}
        return SimulatedTree(
            program=str(content["program"]), seed=int(content["seed"]),
            specification_sha256=str(content["specification_sha256"]),
            inputs=InputSpecification.from_dict(content["inputs"]),
            counts={key: ListCounts(**each) for key, each in lists.items()}, identities=identities)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, SpecificationError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(f"{path} cannot be read: {type(error).__name__}: {error}; a simulated tree is made by "
                            "`mmdg simulate benchmark`") from error
