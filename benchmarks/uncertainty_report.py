"""What the uncertainty of one checkpoint is worth: corruption, risk-coverage, and its effect on scores.

    python benchmarks/uncertainty_report.py [--model FILE] [--crops DIR | --scenes SCENE ... --people 6]

`--crops DIR` holds crop files (`mmdg_model.crop_file`) in `bona_fide/` and `attack/`. Without it, SIMULATED scenes are
rendered and cropped by the camera step; `bona_fide` is the only bona fide one. The table goes to stderr, one JSON
object to stdout. With an untrained checkpoint every figure describes random weights, and the report says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mmdg_model.checkpoint import load_checkpoint
from mmdg_model.crop_file import load_crop
from mmdg_model.inputs import prepare
from mmdg_model.network import LIVE_COLUMN, MODALITIES
from mmdg_model.scorer import CropPlanes, Purpose
from mmdg_model.test_checkpoint import ensure_test_checkpoint
from mmdg_model.torch_scorer import build_network
from mmdg_model.uncertainty_report import Corruption, corruption_auroc, logit_shift, risk_coverage


def simulated_crops(scenes: list[str], people: int, size: int) -> Iterator[tuple[CropPlanes, bool]]:
    """One crop of each person in each scene, with whether it is bona fide."""
    from pipeline.commands.explain import session_crop

    for scene in scenes:
        for index in range(people):
            crop, _ = session_crop(f"simulated:{scene}", seed=index, frame=2, size=size)
            yield crop, scene == "bona_fide"


def crops_of(folder: Path) -> Iterator[tuple[CropPlanes, bool]]:
    for name, live in (("bona_fide", True), ("attack", False)):
        for path in sorted((folder / name).glob("*.npz")):
            yield load_crop(path), live


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--scenes", nargs="+", default=["bona_fide", "print", "screen", "mask"])
    parser.add_argument("--people", type=int, default=6, help="per simulated scene, one crop each")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    checkpoint = load_checkpoint(arguments.model or ensure_test_checkpoint())
    network = build_network(checkpoint)
    pairs = list(crops_of(arguments.crops) if arguments.crops else simulated_crops(
        arguments.scenes, arguments.people, checkpoint.input_spec.image_size))
    live = np.array([bona_fide for _, bona_fide in pairs])
    inputs = prepare([crop for crop, _ in pairs], checkpoint.input_spec)
    with torch.inference_mode():
        output = network(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))
    logit = (output.logits[:, LIVE_COLUMN] - output.logits[:, 1 - LIVE_COLUMN]).numpy()
    certainty = output.class_certainty.numpy().sum(axis=1) / inputs.present.sum(axis=1)
    wrong = (logit >= 0) != live
    untrained = checkpoint.purpose is Purpose.TEST
    report: dict[str, object] = {
        "benchmark": "uncertainty_report", "model_hash": checkpoint.hash, "purpose": str(checkpoint.purpose),
        "untrained": untrained, "simulated": arguments.crops is None, "crops": len(pairs), "bona_fide": int(live.sum()),
        "estimator": str(checkpoint.config.uncertainty_estimator),
        "logit_shift": dataclasses.asdict(logit_shift(network, inputs)),
        "risk_coverage": {"class_token_certainty": dataclasses.asdict(risk_coverage(wrong, certainty)),
                          "absolute_logit": dataclasses.asdict(risk_coverage(wrong, np.abs(logit)))},
        "corruption_auroc": {str(modality): {str(kind): corruption_auroc(network, inputs, modality, kind)
                                             for kind in Corruption}
                             for index, modality in enumerate(MODALITIES) if inputs.present[:, index].any()},
    }
    print(json.dumps(report))
    _print_table(report, untrained)


def _print_table(report: dict[str, object], untrained: bool) -> None:
    def say(line: str) -> None:
        print(line, file=sys.stderr)

    say(f"{report['crops']} crops, {report['bona_fide']} bona fide{', SIMULATED' if report['simulated'] else ''}; "
        f"checkpoint {str(report['model_hash'])[:12]}, purpose {report['purpose']}")
    if untrained:
        say("UNTRAINED weights: every figure below describes a random network and says nothing of MMDG.")
    shift = report["logit_shift"]
    assert isinstance(shift, dict)
    say(f"|logit - logit with U = 1|: mean {shift['mean']:.4f}, largest {shift['largest']:.4f}; logits spread by "
        f"{shift['spread']:.4f}; sampling moves one crop's logit by {shift['sampling']:.4f}")
    areas = report["risk_coverage"]
    assert isinstance(areas, dict)
    for name, area in areas.items():
        say(f"risk-coverage by {name}: {area['area']:.3f} (knows nothing: {area['chance']:.3f}, best possible: "
            f"{area['best']:.3f})")
    say(f"{'AUROC, uncertainty of corrupted patches':<42} {'first block':>11} {'middle':>7} {'last':>7}")
    aurocs = report["corruption_auroc"]
    assert isinstance(aurocs, dict)
    for modality, kinds in aurocs.items():
        for kind, blocks in kinds.items():
            first, middle, last = blocks[0], blocks[len(blocks) // 2], blocks[-1]
            say(f"  {modality + ', ' + kind:<40} {first:>11.3f} {middle:>7.3f} {last:>7.3f}")


if __name__ == "__main__":
    main()
