"""Times the way from image files to training batches: worker processes, augmentation and cache, as ratios of one run.

    python benchmarks/loading.py [--samples 600] [--image-size 224] [--rounds 3] [--quick]

Makes a tree of JPEG triples (smooth noise, 256 pixels a side; simulated, no face) in the lists' form, and reads whole
epochs of it. Rounds take turns, so that other work on the machine hits all alike; the best round counts. The first
epoch of each row, in which workers start and a cache fills, is not timed. The table goes to stderr, one JSON object to
stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from mmdg_model.training.loading import ListedData
from mmdg_model.training.run_config import AugmentationConfig, MachineConfig, ModelChoice, RecipeConfig, RunConfig

FILE_PIXELS = 256
OFF = AugmentationConfig(offset=0.0, gamma_low=1.0, gamma_high=1.0, flip=0.0)
RECIPE = AugmentationConfig()
EVERYTHING = AugmentationConfig(crop_share=0.7, rotation_degrees=15.0, noise=10.0, drop_depth=0.2, drop_infrared=0.2)

#: name: workers, augmentation, whether everything is cached. The first is what the others are compared with.
ROWS = {
    "in the process, none": (0, OFF, False),
    "in the process, recipe": (0, RECIPE, False),
    "in the process, everything": (0, EVERYTHING, False),
    "1 worker, recipe": (1, RECIPE, False),
    "2 workers, none": (2, OFF, False),
    "2 workers, recipe": (2, RECIPE, False),
    "2 workers, everything": (2, EVERYTHING, False),
    "in the process, recipe, cached": (0, RECIPE, True),
    "2 workers, recipe, cached": (2, RECIPE, True),
}


def make_tree(root: Path, num_samples: int) -> None:
    """Train and validation lists of C and W, half each, in the data sets' own layouts."""
    generator = np.random.default_rng(0)
    folders = {"C": ("CeFA/CeFA-Race/AF/AF-{0:03d}/1_{0:03d}_1_1_{1}", "profile"),
               "W": ("WMCA-Image/R_CDIT/{0:03d}_01_000_{1}", "color")}
    for domain, (folder, colour) in folders.items():
        lines = []
        for number in range(num_samples // 2):
            is_live = number % 2 == 0
            ending = {"C": ("2", "1"), "W": ("3_01", "0_00")}[domain][is_live]
            names = [f"{folder.format(number, ending)}/{sensor}/0001.jpg" for sensor in (colour, "depth", "ir")]
            for name in names:
                shape = (32, 32, 3) if colour in name.split("/") else (32, 32)
                small = generator.integers(20, 256, shape, dtype=np.uint8)
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / name), cv2.resize(small, (FILE_PIXELS, FILE_PIXELS)))
            lines.append(f"{' '.join(names)} {is_live:d}")
        (root / "lists").mkdir(exist_ok=True)
        (root / "lists" / f"{domain}-train.txt").write_text("\n".join(lines))
        (root / "lists" / f"{domain}-val.txt").write_text("\n".join(lines[:2]))


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="200 samples, one round")
    arguments = parser.parse_args()
    num_samples, rounds = (200, 1) if arguments.quick else (arguments.samples, arguments.rounds)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_tree(root, num_samples)
        loaders = {}
        for name, (workers, augmentation, is_cached) in ROWS.items():
            config = RunConfig(protocol="CW_PS", augmentation=augmentation, recipe=RecipeConfig(batch_size=32),
                               model=ModelChoice(changes={"image_size": arguments.image_size}))
            loaders[name] = ListedData.open(config, MachineConfig(
                root=root, lists=root / "lists", accelerator="cpu", workers=workers,
                cache_mib=2048 if is_cached else 0))
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for epoch in range(rounds + 1):
            for name, data in loaders.items():
                began = time.perf_counter()
                count = sum(len(part.label) for update in data.epoch(epoch) for part in update)
                if epoch > 0:
                    rates[name].append(count / (time.perf_counter() - began))
        for data in loaders.values():
            data.close()
    plain = max(rates[next(iter(ROWS))])
    rows = {name: {"samples_per_s": round(max(values), 1), "ratio": round(max(values) / plain, 2)}
            for name, values in rates.items()}
    for name, row in rows.items():
        print(f"{name:<32} {row['samples_per_s']:>8} samples/s {row['ratio']:>6} of the first", file=sys.stderr)
    print(json.dumps({"benchmark": "loading", "samples": num_samples, "file_pixels": FILE_PIXELS,
                      "image_size": arguments.image_size, "rounds": rounds, "cores": os.cpu_count(),
                      "load_average": round(os.getloadavg()[0], 2), "rows": rows}))


if __name__ == "__main__":
    main()
