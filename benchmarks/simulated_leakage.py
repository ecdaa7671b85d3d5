"""What tells live from attack in a simulated benchmark without looking at the face: a first probe for leaks.

    python -m benchmarks.simulated_leakage ROOT

`ROOT` was made by `mmdg simulate benchmark`. Per domain, linear classifiers on features that should say nothing are
fitted to the train list and tested on the test list, whose subjects are others. Printed: area under the ROC curve over
recordings (mean of their frames), for all attacks and for each species; 0.5 is chance, above 0.6 is a leak.

- names: digits of the frame's file name, its place in the recording. P's names are hashes.
- file sizes: bytes of each file.
- box: position and size of the detector's face box, and how far the face was away as measured.
- pose: yaw and pitch from the detector's key points, and their squares.
- mask: where colour is exactly black (S and C: cut out; W and P: outside the sensor's view), as 8 x 8 shares.
- background: colour of W and P outside a generous oval around the face, 8 x 8 means.

A learned model sees neither names, sizes, box nor pose; it sees mask and background. What a sheet shows around the
printed face is part of the attack, so a background that gives it away is physics as well as a leak.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from calibration.error_rates import auc, roc
from mmdg_model.scorer import Modality
from mmdg_model.training.decoding import FileTrouble, read_sample_levels
from mmdg_model.training.manifests import list_path, read_list, read_metadata
from mmdg_model.training.samples import BONA_FIDE, Domain, Sample, Split
from mmdg_model.training.simulated_tree import read_simulated_tree

Features = dict[str, NDArray[np.float64]]
SIDE = 8


def instants(root: Path) -> dict[str, dict[str, Any]]:
    """First listed name -> what the record of its recording says of that instant."""
    found = {}
    for path in sorted((root / "recordings").glob("*.json")):
        for index, instant in enumerate(json.loads(path.read_text())["instants"]):
            if instant["names"]:
                found[instant["names"][0]] = {**instant, "index": index}
    return found


def thumbnail(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.resize(plane, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float64).ravel()


def features(sample: Sample, instant: dict[str, Any]) -> Features:
    levels = read_sample_levels(sample)
    colour = levels[Modality.RGB]
    assert not isinstance(colour, FileTrouble), colour
    height, width = colour.shape[:2]
    left, top, box_width, box_height, _ = instant["boxes"][0]
    quality = instant["quality"]
    digits = "".join(each for each in Path(sample.name).stem if each.isdigit())
    number = 0.0 if sample.domain is Domain.PADISI else float(digits)
    found = {
        "names": np.array([number, instant["index"]]),
        "file sizes": np.array([path.stat().st_size for path in dict.fromkeys(sample.files.values())], float),
        "box": np.array([left, top, box_width, box_height, box_width / box_height, quality["distance_m"] or 0.0]),
        "pose": np.array([quality["yaw_deg"], quality["pitch_deg"], quality["yaw_deg"] ** 2,
                          quality["pitch_deg"] ** 2]),
        "mask": thumbnail((colour.max(axis=2) == 0).astype(np.float64)),
    }
    if sample.domain in (Domain.WMCA, Domain.PADISI):
        outside = np.ones((height, width), np.uint8)
        cv2.ellipse(outside, (width // 2, height // 2), (round(0.42 * height), round(0.48 * height)), 0, 0, 360, 0, -1)
        weight = thumbnail(outside.astype(np.float64))
        seen = [thumbnail(colour[..., channel] * outside.astype(np.float64)) for channel in range(3)]
        found["background"] = np.concatenate([each / np.maximum(weight, 0.05) * (weight > 0.05) for each in seen])
    return found


def fitted(rows: NDArray[np.float64], live: NDArray[np.bool_], penalty: float = 1.0) -> NDArray[np.float64]:
    """Weights (and offset) of a logistic regression with classes of equal weight."""
    weight = np.where(live, 0.5 / max(live.sum(), 1), 0.5 / max((~live).sum(), 1)) * len(live)
    sign = np.where(live, 1.0, -1.0)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (rows @ parameters[:-1] + parameters[-1])
        pull = -weight * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        gradient = np.append(rows.T @ pull + penalty * parameters[:-1], pull.sum())
        return float(weight @ np.logaddexp(0, -margin) + penalty / 2 * parameters[:-1] @ parameters[:-1]), gradient

    return np.asarray(minimize(loss, np.zeros(rows.shape[1] + 1), jac=True, method="L-BFGS-B").x)


def area(scores: NDArray[np.float64], samples: tuple[Sample, ...], species: str | None) -> float:
    """AUC over recordings, live against all attacks or one species."""
    means: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for score, sample in zip(scores, samples, strict=True):
        if species is None or sample.species in (BONA_FIDE, species):
            means[sample.recording, sample.bona_fide].append(float(score))
    return auc(roc(np.array([np.mean(each) for each in means.values()]), np.array([live for _, live in means])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    root = parser.parse_args().root
    tree = read_simulated_tree(root)
    if tree is None:
        raise SystemExit(f"{root} bears no simulated.json; make it with `mmdg simulate benchmark`")
    table = root / "lists" / "P-metadata.csv"
    metadata = read_metadata(table) if table.exists() else {}
    known = instants(root)
    print(f"simulated tree {root}, seed {tree.seed}, {tree.program}: AUC of what should say nothing (test recordings)")
    for domain in Domain:
        if not list_path(root / "lists", domain, Split.TEST).exists():
            continue
        lists = {split: read_list(list_path(root / "lists", domain, split), root, domain, split, metadata=metadata)
                 for split in (Split.TRAIN, Split.TEST)}
        seen = {split: [features(sample, known[sample.name]) for sample in samples]
                for split, samples in lists.items()}
        live = np.array([sample.bona_fide for sample in lists[Split.TRAIN]])
        kinds = sorted({sample.species for sample in lists[Split.TEST]} - {BONA_FIDE})
        print(f"  {domain}: {len({sample.recording for sample in lists[Split.TEST]})} test recordings; columns: all, "
              f"{', '.join(kinds)}")
        for name in seen[Split.TRAIN][0]:
            train, test = (np.array([each[name] for each in seen[split]]) for split in (Split.TRAIN, Split.TEST))
            mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-9
            varies = train.std(axis=0) > 1e-9
            if not varies.any():
                print(f"    {name:11s} constant")
                continue
            scaled = [((rows - mean) / spread)[:, varies] for rows in (train, test)]
            weights = fitted(scaled[0], live)
            scores = scaled[1] @ weights[:-1] + weights[-1]
            print(f"    {name:11s} " + "  ".join(f"{area(scores, lists[Split.TEST], kind):.2f}"
                                                 for kind in (None, *kinds)))


if __name__ == "__main__":
    main()
