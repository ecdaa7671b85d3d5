"""`RunData`: what a training run and its scoring read, whatever the tree it comes from.

Everything drawn is keyed by (seed, epoch, place in the epoch), never by what was drawn before: an epoch can be entered
at any update, by any number of workers and processes, and gives the same samples with the same pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mmdg_model.inputs import InputSpecification, PreparedInputs
from mmdg_model.training.decoding import FileTrouble
from mmdg_model.training.methods.contract import TrainingBatch
from mmdg_model.training.protocols import Scenario
from mmdg_model.training.samples import Sample
from mmdg_model.training.ssp_loss import DomainClasses


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoringBatch:
    """Samples to score, on the host.

    Attributes:
        inputs: of the samples, as `inputs.prepare` makes them, with what the scenario withholds withheld.
        samples: in the same order.
        rows: `int64 [b]`, their places in the list of `RunData.selection_samples` or `test_samples`.
    """

    inputs: PreparedInputs
    samples: Sequence[Sample]
    rows: NDArray[np.int64]


class RunData(Protocol):
    """The samples of one `RunConfig`. One object a process; `rank` and `world_size` are its own."""

    @property
    def classes(self) -> DomainClasses: ...

    @property
    def inputs(self) -> InputSpecification: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the samples: the lists' bytes, the metadata, and the sizes of the files named."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether the tree says that it is simulated (a `simulated.json` at its root)."""
        ...

    @property
    def updates_per_epoch(self) -> int: ...

    @property
    def troubles(self) -> Sequence[FileTrouble]:
        """Files that this process or its workers could not use so far, each once."""
        ...

    def epoch(self, epoch: int, *, first_update: int = 0) -> Iterable[Sequence[TrainingBatch]]:
        """Of each update from `first_update` on, this process's parts, augmented, on the host (pinned for a GPU).

        All processes see the same number of updates; an empty sequence where a process has no sample.
        """
        ...

    def clean_batches(self) -> Iterable[TrainingBatch]:
        """This process's part of the training samples, each once, not augmented, nothing dropped."""
        ...

    def selection(self) -> Iterable[ScoringBatch]:
        """The sources' validation lists, this process's part; no target is touched."""
        ...

    def test(self, scenario: Scenario) -> Iterable[ScoringBatch]:
        """The targets' test lists, pooled, this process's part, as the scenario has them."""
        ...

    def take_waiting_share(self) -> float:
        """Share of the time since the last call that the consumer of `epoch` spent waiting for samples, 0..1."""
        ...

    def close(self) -> None:
        """Ends what loads samples. Nothing is read afterwards."""
        ...
