"""Lists in the form of the public ones, and small trees of the data sets' own layouts, made by the tests."""

import json
import os
from pathlib import Path

import cv2
import numpy as np

from mmdg_model.inputs import InputSpecification
from mmdg_model.training.casia_surf import SPECIES as SURF_ATTACKS
from mmdg_model.training.manifests import COUNTS, list_path
from mmdg_model.training.run_config import AugmentationConfig, MachineConfig, ModelChoice, RecipeConfig, RunConfig
from mmdg_model.training.samples import PUBLIC_DOMAINS, Domain, Split
from mmdg_model.training.simulated_tree import MARK

SENSORS = {Domain.CASIA_SURF: ("color", "depth", "ir"), Domain.CEFA: ("profile", "depth", "ir"),
           Domain.WMCA: ("color", "depth", "ir")}

#: The public lists, where a machine has them. They may not be part of the project.
PUBLIC_LISTS = os.environ.get("MMDG_BENCHMARK_LISTS")
WITHOUT_PUBLIC_LISTS = "MMDG_BENCHMARK_LISTS does not name a folder of the benchmark's public lists"


def surf_folder(split, index, *, live):
    part = "real" if live else "fake"
    recording, subject = ("real", index) if live else (list(SURF_ATTACKS)[index % 6], index // 6)
    return f"CASIA-SURF-CROP/{part}_part/{part}_{split}_part/CLKJ_{split[:2].upper()}{subject:04d}/{recording}.rssdk"


def cefa_folder(split, index, *, live):
    subject = {"train": 0, "val": 2000, "test": 4000}[split] + (index if live else index // 3)
    ending = "1_1_1" if live else ("3_1_2", "3_2_2", "3_1_4")[index % 3]
    return f"CeFA/CeFA-Race/AF/AF-{subject:03d}/1_{subject:03d}_{ending}"


def wmca_folder(split, index, *, live):
    client = {"train": 100, "val": 300, "test": 500}[split] + index // 20
    return f"WMCA-Image/R_CDIT/{client}_{index % 20:02d}_000_{'0_00' if live else '3_01'}"


FOLDERS = {Domain.CASIA_SURF: surf_folder, Domain.CEFA: cefa_folder, Domain.WMCA: wmca_folder}


def triple(domain, folder, frame):
    return [f"{folder}/{sensor}/{frame:04d}.jpg" for sensor in SENSORS[domain]]


def trial(split, index):
    return f"{'tvx'[list(Split).index(split)]}{index:07x}"


def lines_of(domain, split, num_live, num_spoof):
    """Distinct lines in the form of the domain's lists."""
    if domain is Domain.PADISI:
        return [f"{trial(split, index)}.npz\t{int(index < num_live)}" for index in range(num_live + num_spoof)]
    return [" ".join([*triple(domain, FOLDERS[domain](split, index // 3, live=live), index % 3), str(int(live))])
            for live, count in ((True, num_live), (False, num_spoof)) for index in range(count)]


def write_list(lists, domain, split, lines):
    """With the line ends of the public lists: CRLF and none after the last line, for P LF."""
    lists.mkdir(exist_ok=True, parents=True)
    text = "\n".join(lines) + "\n" if domain is Domain.PADISI else "\r\n".join(lines)
    path = list_path(lists, domain, split)
    path.write_bytes(text.encode())
    return path


def write_full_lists(lists):
    """Twelve lists of the public form and counts: as many lines, labels and duplicates, and the one shared line."""
    for (domain, split), counts in COUNTS.items():
        lines = lines_of(domain, split, counts.live, counts.spoof - counts.duplicates)
        lines += lines[-counts.duplicates:] if counts.duplicates else []
        if (domain, split) == (Domain.CEFA, Split.VALIDATION):
            lines[counts.live - 1] = lines_of(domain, Split.TEST, 1, 0)[0]
        write_list(lists, domain, split, lines)
    return lists


def picture(seed, shape=(40, 32)):
    """Smooth and nowhere black, so that JPEG keeps it recognisable."""
    noise = np.random.default_rng(seed).integers(60, 256, shape, dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def write_jpeg(path: Path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def write_triple(root, names, seed):
    for offset, name in enumerate(names):
        write_jpeg(root / name, picture((seed, offset), (40, 32, 3) if offset == 0 else (40, 32)))


def channels(levels, dtype=np.float32):
    """`[1, 22, h, w]` in 0..1, all channels the same 8-bit levels but for their channel number."""
    stack = np.stack([np.roll(levels, channel, axis=1) for channel in range(22)])[None]
    return (stack / 255).astype(dtype)


def small_tree(root):
    """One list of each split of S, C, W and P with two live and three spoof lines, and all the files they name."""
    lists = root / "lists"
    for domain in PUBLIC_DOMAINS:
        for split in Split:
            lines = lines_of(domain, split, 2, 3)
            write_list(lists, domain, split, lines)
            for number, line in enumerate(lines):
                *names, _ = line.split()
                if domain is Domain.PADISI:
                    seed = (list(Split).index(split), number)
                    np.savez_compressed(root / names[0], data=channels(picture((9, *seed), (20, 16))))
                else:
                    write_triple(root, names, (list(Domain).index(domain), list(Split).index(split), number))
    return lists


#: Draws and changes nothing.
NO_AUGMENTATION = AugmentationConfig(offset=0.0, gamma_low=1.0, gamma_high=1.0, flip=0.0)

#: A network of 32 pixels, which no test of data ever builds.
TOY_MODEL = ModelChoice(preset="micro", changes={"width": 48, "heads": 3, "depth": 2, "image_size": 32,
                                                 "patch_size": 16})


def toy_run(protocol="CPS_W", *, augmentation=None, seed=0, **recipe):
    """A run over `small_tree`, whose three sources have 15 samples to train on."""
    return RunConfig(protocol=protocol, model=TOY_MODEL, seed=seed, recipe=RecipeConfig(**({"batch_size": 4} | recipe)),
                     augmentation=augmentation or AugmentationConfig())


def machine_of(root, **changes):
    """Where `small_tree` put everything, loading in the process itself."""
    return MachineConfig(**({"root": root, "lists": root / "lists", "accelerator": "cpu"} | changes))


def mark_simulated(root, *, identities=None, inputs=None, seed=0):
    """The mark that `mmdg simulate benchmark` leaves, as far as readers use it."""
    (root / MARK).write_text(json.dumps({
        "simulated": True, "program": "a test", "seed": seed, "specification_sha256": "0" * 64, "counts": {},
        "inputs": (inputs or InputSpecification()).to_dict(), "identities": identities or {}}))
