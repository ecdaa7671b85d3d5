"""Score tables that the tests of evaluation share: simulated people, videos and scores, drawn from a seed."""

from __future__ import annotations

import numpy as np

from mmdg_model.training.scores import BONA_FIDE, ScoreContext, ScoreTable, Split


def context(split=Split.TARGET_TEST, epoch=0, **changes):
    values = {"split": split, "protocol": "CPS->W", "method": "mmdg", "seed": 0, "epoch": epoch,
              "model_hash": f"hash-{epoch}", "simulated": True}
    return ScoreContext(**(values | changes))


def table_of(rows, **changes):
    """`rows`: (sample, video, subject, species, logit); label follows from the species."""
    sample, video, subject, species, logit = zip(*rows, strict=True)
    columns = {
        "context": context(), "sample_id": np.array(sample), "video_id": np.array(video),
        "subject": np.array(subject), "domain": np.full(len(rows), "W"), "species": np.array(species),
        "label": np.array([kind == BONA_FIDE for kind in species], dtype=np.int8),
        "logit": np.array(logit, dtype=np.float64), "modalities": np.full(len(rows), "rgb+depth+infrared")}
    return ScoreTable(**(columns | changes))


def drawn_table(seed, *, separation=2.0, subjects=20, split=Split.TARGET_TEST, domain="W", epoch=0, frames=3,
                subject_spread=0.5, score_seed=None, **changes):
    """Each subject appears live once and as a print and a mask; frames of a video share most of their noise."""
    rng = np.random.default_rng([seed, 0 if score_seed is None else score_seed + 1])
    rows = []
    for subject in range(subjects):
        of_subject = subject_spread * rng.standard_normal()
        for species, mean in ((BONA_FIDE, separation / 2), ("print", -separation / 2), ("mask", -separation / 4)):
            of_video = rng.standard_normal()
            for frame in range(frames):
                video = f"{subject:03}-{species}"
                rows.append((f"{video}/{frame}", video, f"{subject:03}", species,
                             mean + of_subject + of_video + 0.2 * rng.standard_normal()))
    return table_of(rows, context=context(split, epoch, **changes), domain=np.full(len(rows), domain))
