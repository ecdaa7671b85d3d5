"""Is a frozen backbone worth freezing? A linear probe on its class tokens, beside the same ViT with random weights.

    python benchmarks/backbone_probe.py ROOT BACKBONE.safetensors --domain W [--lists DIR] [--draws 3]

The class tokens of a crop's modalities, as MMDG's head gets them before any adapter has trained, are joined; ridge
regression on the labels of the training lists, regularised by leave-one-out error; AUC of live against attack on the
validation lists. Labels are read here and only here: the backbone never saw one. Random weights are drawn `--draws`
times. On a simulated tree this says something of simulated crops only. JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from mmdg_model.inputs import prepare
from mmdg_model.network import MMDG, build_mmdg
from mmdg_model.training import padisi
from mmdg_model.training.decoding import TroubleLog, try_load_sample
from mmdg_model.training.manifests import list_path, read_list
from mmdg_model.training.pretraining.crops import crop_specification
from mmdg_model.training.samples import Domain, Split
from mmdg_model.weights.backbone import load_backbone, place_backbone

PENALTIES = 10.0 ** np.arange(-4.0, 5.0)


def class_tokens(networks: list[MMDG], root: Path, lists: Path, domains: list[str],
                 split: Split) -> tuple[list[NDArray[np.float64]], NDArray[np.bool_]]:
    """Of each network `[crops, 3 d]`, and the labels."""
    padisi_files = padisi.find_files(root) if Domain.PADISI in domains else {}
    samples = [sample for domain in domains for sample in read_list(
        list_path(lists, Domain(domain), split), root, Domain(domain), split, padisi_files=padisi_files)]
    specification = crop_specification(networks[0].config.image_size)
    tokens: list[list[NDArray[np.float64]]] = [[] for _ in networks]
    labels: list[bool] = []
    for start in range(0, len(samples), 32):
        loaded = [(try_load_sample(sample, TroubleLog(), image_size=specification.image_size), sample.bona_fide)
                  for sample in samples[start:start + 32]]
        kept = [(crop, label) for crop, label in loaded if crop is not None]
        inputs = prepare([crop for crop, _ in kept], specification)
        labels += [label for _, label in kept]
        with torch.inference_mode():
            for found, network in zip(tokens, networks, strict=True):
                output = network(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))
                found.append(output.class_tokens.flatten(1).double().numpy())
    return [np.concatenate(found) for found in tokens], np.array(labels)


def probe_auc(train: NDArray[np.float64], live: NDArray[np.bool_], test: NDArray[np.float64],
              test_live: NDArray[np.bool_]) -> float:
    """AUC of ridge regression; the penalty with the least leave-one-out error on the training crops."""
    mean, scale = train.mean(axis=0), train.std(axis=0) + 1e-9
    known, unknown = (train - mean) / scale, (test - mean) / scale
    left, singular, right = np.linalg.svd(known, full_matrices=False)
    wanted = live - live.mean()
    best, weights = np.inf, np.zeros(train.shape[1])
    for penalty in PENALTIES * len(train):
        shrink = singular**2 / (singular**2 + penalty)
        leverage = (left**2 * shrink).sum(axis=1) + 1.0 / len(train)
        residual = (wanted - left @ (shrink * (left.T @ wanted))) / (1.0 - leverage)
        if (error := float(np.mean(residual**2))) < best:
            best, weights = error, right.T @ ((singular / (singular**2 + penalty)) * (left.T @ wanted))
    ranks = rankdata(unknown @ weights)
    lives = int(test_live.sum())
    return float((ranks[test_live].sum() - lives * (lives + 1) / 2) / (lives * (len(test_live) - lives)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("backbone", type=Path, nargs="?")
    parser.add_argument("--lists", type=Path)
    parser.add_argument("--domain", action="append")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.root is None or arguments.backbone is None:
        print("needs a tree and a backbone file: see mmdg simulate benchmark and mmdg pretrain; nothing measured")
        return
    torch.set_num_threads(arguments.threads)
    backbone = load_backbone(arguments.backbone)
    networks = []
    for draw in range(arguments.draws + 1):
        torch.manual_seed(draw)
        networks.append(build_mmdg(backbone.config.model_config()).eval())
    place_backbone(networks[0], backbone)
    lists, domains = arguments.lists or arguments.root / "lists", arguments.domain or [str(each) for each in Domain]
    train, live = class_tokens(networks, arguments.root, lists, domains, Split.TRAIN)
    test, test_live = class_tokens(networks, arguments.root, lists, domains, Split.VALIDATION)
    aucs = [round(probe_auc(known, live, unknown, test_live), 4) for known, unknown in zip(train, test, strict=True)]
    print(json.dumps({"backbone": backbone.hash, "layout": backbone.layout, "training_crops": len(live),
                      "validation_crops": len(test_live), "auc_backbone": aucs[0], "auc_random": aucs[1:]}, indent=2))


if __name__ == "__main__":
    main()
