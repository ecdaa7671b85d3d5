"""Which training samples an epoch draws, in which order, and which process gets which: functions of (seed, epoch).

Nothing depends on what was drawn before, so an epoch can be entered at any update, and every process can work out its
own part without asking the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Draw(NamedTuple):
    """One appearance of a sample: its place in the training list, and how often the epoch drew it before."""

    place: int
    copy: int


class EpochOrder:
    """Draws of every epoch, cut into updates.

    Samples stand in one cell, or in one for each (source, label) when draws are balanced. Cells take turns, so that
    every update holds equally many of each, give or take one. Each cell deals its samples in one shuffled round after
    another, across epochs: no sample is drawn twice before its cell's others were drawn once. With one cell and epochs
    as long as the list, an epoch is a permutation of the list.

    Args:
        cells: of each training sample, what it is balanced by; all equal for a plain shuffle.
        seed: of the run.
        samples_per_epoch: how many are drawn; 0 for as many as there are samples.
        batch_size: samples of an update, over all processes; the last update takes what is left.

    Raises:
        ValueError: no samples, or a number out of range.
    """

    def __init__(self, cells: Sequence[Hashable], *, seed: int, samples_per_epoch: int = 0, batch_size: int) -> None:
        if not cells:
            raise ValueError("no training samples to draw from")
        if samples_per_epoch < 0 or batch_size < 1:
            raise ValueError(f"samples_per_epoch is {samples_per_epoch} and batch_size {batch_size}, expected at "
                             "least 0 and 1")
        by_cell: dict[Hashable, list[int]] = {}
        for place, cell in enumerate(cells):
            by_cell.setdefault(cell, []).append(place)
        self._cells = tuple(np.array(places, dtype=np.int64) for places in by_cell.values())
        self._seed = seed
        self._batch_size = batch_size
        self.samples_per_epoch = samples_per_epoch or len(cells)

    @property
    def updates_per_epoch(self) -> int:
        """The last one counts, however short."""
        return -(-self.samples_per_epoch // self._batch_size)

    def draws(self, epoch: int) -> tuple[Draw, ...]:
        """All draws of an epoch, in order.

        Raises:
            ValueError: a negative epoch.
        """
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}, expected at least 0")
        turns = epoch * self.samples_per_epoch + np.arange(self.samples_per_epoch, dtype=np.int64)
        places = np.empty(self.samples_per_epoch, dtype=np.int64)
        for number, members in enumerate(self._cells):
            own = turns % len(self._cells) == number
            places[own] = self._dealt(number, members, turns[own] // len(self._cells))
        return tuple(Draw(int(place), int(copy)) for place, copy in zip(places, _copies(places), strict=True))

    def _dealt(self, number: int, members: NDArray[np.int64], positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The members at those positions of the cell's endless row of shuffled rounds."""
        rounds = positions // len(members)
        dealt = np.empty(len(positions), dtype=np.int64)
        for each in np.unique(rounds):
            shuffled = np.random.default_rng([self._seed, int(each), number + 1]).permutation(members)
            within = rounds == each
            dealt[within] = shuffled[positions[within] % len(members)]
        return dealt

    def updates(self, epoch: int, *, first_update: int = 0, rank: int = 0, world_size: int = 1,
                parts: int = 1) -> Iterator[tuple[tuple[Draw, ...], ...]]:
        """Of each update from `first_update` on, the non-empty parts of one process; empty where it has no sample.

        Raises:
            ValueError: a first update outside the epoch (its end is allowed), or an impossible rank.
        """
        if not 0 <= first_update <= self.updates_per_epoch:
            raise ValueError(f"first_update is {first_update}, expected 0 to {self.updates_per_epoch}")
        check_rank(rank, world_size)
        draws = self.draws(epoch)
        for update in range(first_update, self.updates_per_epoch):
            batch = draws[update * self._batch_size:(update + 1) * self._batch_size]
            own = share(len(batch), rank, world_size)
            cuts = (share(len(own), part, parts) for part in range(parts))
            yield tuple(batch[own.start + cut.start:own.start + cut.stop] for cut in cuts if cut)


def check_rank(rank: int, world_size: int) -> None:
    """Raises `ValueError` where no such process can be."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank} of {world_size} processes, expected 0 to {world_size - 1}")


def share(number: int, rank: int, world_size: int) -> range:
    """The consecutive places, of `number`, that one of several processes has; sizes differ by one at most."""
    return range(number * rank // world_size, number * (rank + 1) // world_size)


def _copies(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each place, how often it occurred before."""
    by_place = np.argsort(places, kind="stable")
    ordered = places[by_place]
    first = np.searchsorted(ordered, ordered, side="left")
    copies = np.empty(len(places), dtype=np.int64)
    copies[by_place] = np.arange(len(places)) - first
    return copies
