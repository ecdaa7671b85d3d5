"""Scores of one split by one network: every sample once, in the order of its list, from all processes."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import msgspec
import numpy as np
import torch

from mmdg_model.network import MODALITIES
from mmdg_model.training import samples as nouns
from mmdg_model.training.compute import Compute, TrainingDiverged
from mmdg_model.training.methods.contract import Method
from mmdg_model.training.processes import gather_blobs
from mmdg_model.training.run_data import ScoringBatch
from mmdg_model.training.scores import BONA_FIDE, ScoreContext, ScoreTable, ScoreTableError, subset_name


class _Row(msgspec.Struct, frozen=True, array_like=True):
    place: int
    sample: str
    video: str
    subject: str
    domain: str
    species: str
    label: int
    logit: float
    present: tuple[bool, ...]


def score_split(method: Method, batches: Iterable[ScoringBatch], *, context: ScoreContext,
                compute: Compute) -> ScoreTable:
    """Scores this process's batches and joins all processes' rows; all processes get the whole table.

    The table's modality subset is what the split offers: a modality that not one sample of it has (withheld by the
    scenario, or never recorded) is none of it.

    Args:
        method: whose `score` is asked.
        batches: this process's part of the split; the parts of all processes hold each place of the list once.
        context: what the table says it is of.
        compute: device and processes.

    Raises:
        ScoreTableError: no sample at all, or a place of the list scored twice.
        TrainingDiverged: a score is not finite.
    """
    rows = [row for batch in batches for row in _scored(method, batch, compute)]
    every = [row for blob in gather_blobs(msgspec.msgpack.encode(rows), compute)
             for row in msgspec.msgpack.decode(blob, type=list[_Row])]
    every.sort(key=lambda row: row.place)
    if not every:
        raise ScoreTableError(f"{context.split} of {context.protocol} holds no sample that can be scored; check the "
                              "tree with mmdg data verify")
    for earlier, later in pairwise(every):
        if earlier.place == later.place:
            raise ScoreTableError(f"sample_id {later.sample!r}, place {later.place} of the list, was scored twice; the "
                                  "processes' parts overlap")
    bad = next((row for row in every if not np.isfinite(row.logit)), None)
    if bad is not None:
        raise TrainingDiverged(f"the score of {bad.sample} is {bad.logit}; the weights of epoch {context.epoch} are "
                               "useless: lower the learning rate, or train in bf16-mixed or 32-true")
    subset = subset_name([modality for index, modality in enumerate(MODALITIES)
                          if any(row.present[index] for row in every)])
    return ScoreTable(
        context=context, label=np.array([row.label for row in every], dtype=np.int8),
        logit=np.array([row.logit for row in every], dtype=np.float64), modalities=np.full(len(every), subset),
        **{column: np.array([getattr(row, name) for row in every], dtype=np.str_)
           for column, name in (("sample_id", "sample"), ("video_id", "video"), ("subject", "subject"),
                                ("domain", "domain"), ("species", "species"))})


def _scored(method: Method, batch: ScoringBatch, compute: Compute) -> list[_Row]:
    planes, present = (torch.from_numpy(array) for array in batch.inputs)
    logits = method.score(planes.to(compute.device), present.to(compute.device)).double().cpu().tolist()
    return [_Row(place=int(place), sample=sample.name, video=sample.recording, domain=str(sample.domain),
                 subject="" if sample.subject == nouns.UNKNOWN else sample.subject,
                 species=BONA_FIDE if sample.bona_fide else sample.species, label=int(sample.bona_fide), logit=logit,
                 present=tuple(bool(value) for value in seen))
            for place, sample, logit, seen in zip(batch.rows, batch.samples, logits, batch.inputs.present,
                                                  strict=True)]
