"""Builders of filmed sessions without a camera: records and scores as values."""

import json

import msgspec

from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Modality, Purpose
from pipeline.simulated_sessions.film import Film, FilmRecord, save_film
from pipeline.simulated_sessions.presentation import Truth
from pipeline.simulated_sessions.scoring import FrameScore, score_table, score_table_path
from pipeline.simulated_sessions.studio import film_path
from pipeline.verdict import ModelInfo
from tests.pipeline.scene import observation

POINT = OperatingPoint(logit_scale=1.0, logit_offset=0.0, frame_correlation=0.0, threshold=0.0, apcer=0.0, bpcer=0.0,
                       sessions=1, data="simulated", command="by hand")
MODEL = ModelInfo(model_hash="a" * 64, purpose=Purpose.SIMULATED, operating_point=POINT)
PERIOD_NS = 100_000_000


def truth(species="bona_fide", index=0, split="val", **changes):
    values = {"key": f"{split}-{species}-{index:04d}-0", "split": split, "species": species,
              "label": "bona_fide" if species == "bona_fide" else "attack", "person": index, "instrument": "",
              "head": index, "held_out_head": False, "session": 0, "distance_m": 0.5, "serial": "SIM",
              "profile": "d4xx", "renderer": "none", "place": 0, "frames": 12, "frame_rate": 10.0, "skin_tone": "light",
              "hair": "short", "spectacles": False, "beard": False}
    return Truth(**(values | changes))


def record(species="bona_fide", index=0, *, frames=12, missed=(), **changes):
    """A film of so many frames, without a face in those of `missed`."""
    seen = [observation(number, number * PERIOD_NS, lockstep=True, simulated=True, epoch=0,
                        camera="simulated", **({"tracks": [], "bundle_sent": False} if number in missed else {}))
            for number in range(frames)]
    return FilmRecord(truth=truth(species, index, frames=frames, **changes), crop_size=112, observations=seen,
                      crop_sequences=[number for number in range(frames) if number not in missed],
                      depth_unit_m=1e-4, infrared_bit_depth=8)


def scores(film, logits, uncertainty=0.0):
    """One logit a cropped frame; a number for all."""
    values = [float(logits)] * len(film.crop_sequences) if isinstance(logits, int | float) else logits
    return [FrameScore(session=film.truth.key, sequence=sequence, logit=float(logit),
                       uncertainty=dict.fromkeys(Modality, uncertainty))
            for sequence, logit in zip(film.crop_sequences, values, strict=True)]


def write_films(root, logits_of, model_hash, **changes):
    """A folder as `mmdg simulate films` leaves it, without pixels, and the score table of one checkpoint.

    logits_of: one logit a session, by species.
    """
    films = [record(species, index, **changes) for species, logits in logits_of.items() for index in range(len(logits))]
    table = {film.truth.key: scores(film, logits_of[film.truth.species][film.truth.person]) for film in films}
    for film in films:
        save_film(film_path(root, film.truth.key), Film(record=film, crops=()))
    (root / "index.json").write_text(json.dumps({"sessions": [msgspec.to_builtins(film.truth) for film in films]}))
    (root / "simulated.json").write_text(json.dumps({"simulated": True, "specification_sha256": "e" * 64}))
    path = score_table_path(root, model_hash)
    path.parent.mkdir()
    path.write_text(score_table(table, {film.truth.key: film for film in films}))
    return root
