"""How small a leak the audit's linear probe finds, and how often it finds one where there is none; of simulated data.

    python -m benchmarks.audit_power NULL_TREE             # with null attacks: as it is
    python -m benchmarks.audit_power TREE --pseudo         # with physics: live recordings alone, labels drawn by lot

Leaks of several kinds are planted into one label (other places and kinds than the audit's own control), and found by
the probe with its former and its present settings: areas under the ROC curve, 1 is found, 0.5 is not. Then labels are
exchanged at random between recordings of a person, so that nothing can be found: how often the 99.5 % interval lies
above 0.5 all the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.simulator_audit.frames import Frames, read_tree
from pipeline.simulator_audit.linear_probe import SETTINGS, ProbeSettings, folds_by_both, held_out_scores
from pipeline.simulator_audit.probing import area_of

Table = NDArray[np.float32]
Leak = Callable[[Table, Table], Table]

FORMER = ProbeSettings(crossed_folds=3, squares=1.0, columns_a_penalty=50.0)


def more(columns: range, by: float) -> Leak:
    """Adds a number to some columns."""
    def leak(attacks: Table, everybody: Table) -> Table:
        leaky = attacks.copy()
        leaky[:, list(columns)] += np.float32(by)
        return leaky
    return leak


def wider(columns: range, by: float) -> Leak:
    """Draws some columns apart from the mean."""
    def leak(attacks: Table, everybody: Table) -> Table:
        leaky = attacks.copy()
        mean = np.nanmean(everybody[:, list(columns)], axis=0)
        leaky[:, list(columns)] = mean + np.float32(by) * (leaky[:, list(columns)] - mean)
        return leaky
    return leak


#: Groups that are probed with nothing planted.
UNPLANTED = ("thumbnail colour", "thumbnail depth", "thumbnail infrared", "high-pass colour", "high-pass depth",
             "high-pass infrared", "box", "file sizes", "background outside the box", "wall behind the face")

#: What is planted: group of features, what is done to the attacks' rows.
LEAKS: dict[str, tuple[str, Leak]] = {
    "as the audit's control: first cell +12": ("thumbnail colour", more(range(3), 12)),
    "colour, middle cell +12": ("thumbnail colour", more(range(84, 87), 12)),
    "colour, lower cell +12": ("thumbnail colour", more(range(135, 138), 12)),
    "colour, lower cell +6": ("thumbnail colour", more(range(135, 138), 6)),
    "colour, 12 cells 1.6 x wider": ("thumbnail colour", wider(range(60, 96), 1.6)),
    "infrared, one cell +12": ("thumbnail infrared", more(range(27, 28), 12)),
    "depth, one cell +12": ("thumbnail depth", more(range(35, 36), 12)),
    "high-pass colour +5 %": ("high-pass colour", more(range(64), 0.05)),
    "high-pass infrared, 10 cells 1.5 x wider": ("high-pass infrared", wider(range(20, 30), 1.5)),
    "box 8 px wider": ("box", more(range(2, 3), 8)),
    "wall +6": ("wall behind the face", more(range(3), 6)),
}


def scores(frames: Frames, features: Table, settings: ProbeSettings) -> NDArray[np.float64]:
    """Of each row, held out by person and place."""
    folds = folds_by_both(frames.person.astype(str), frames.place, settings.crossed_folds)
    found = held_out_scores(features, frames.live, folds, frames.domain, settings)
    return np.zeros(len(frames)) if found is None else found


def labelled(frames: Frames, live: NDArray[np.bool_]) -> Frames:
    """The same frames with other labels."""
    return Frames(**{**vars(frames), "live": live})


def pseudo_labelled(frames: Frames) -> Frames:
    """The live recordings, half of them called attacks."""
    live = frames.taken(frames.live)
    recordings, member = np.unique(live.recording, return_inverse=True)
    return labelled(live, (np.random.default_rng(11).random(len(recordings)) < 0.5)[member])


def exchanged(frames: Frames, seed: int) -> Frames:
    """Labels exchanged at random between the recordings of each person."""
    rng = np.random.default_rng(seed)
    _, first, member = np.unique(frames.recording, return_index=True, return_inverse=True)
    label, person = frames.live[first].copy(), frames.person[first]
    for one in np.unique(person):
        rows = np.flatnonzero(person == one)
        label[rows] = label[rng.permutation(rows)]
    return labelled(frames, label[member])


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--pseudo", action="store_true", help="live recordings alone, labels by lot")
    parser.add_argument("--exchanges", type=int, default=30, help="of labels, for each group of features")
    options = parser.parse_args()
    tree = read_tree(options.tree)
    if tree.physics != options.pseudo:
        parser.error(f"{options.tree} is of {'attacks' if tree.physics else 'null attacks'}: "
                     f"{'needs' if tree.physics else 'goes without'} --pseudo")
    frames = pseudo_labelled(tree.frames) if options.pseudo else tree.frames
    settings = {"former": FORMER, "present": SETTINGS}
    print(f"simulated: {len(frames)} frames of {len(set(frames.recording))} recordings")
    print(f"{'planted':42s}" + "".join(f"{name:>9s}" for name in settings))
    areas = []
    for name, (group, leak) in LEAKS.items():
        features = frames.probes[group].copy()
        features[~frames.live] = leak(features[~frames.live], features)
        found = [area_of(frames, scores(frames, features, each)) for each in settings.values()]
        areas.append([np.nan if each is None else each.value for each in found])
        print(f"{name:42s}" + "".join(f"{value:9.2f}" for value in areas[-1]))
    print(f"{'mean':42s}" + "".join(f"{value:9.2f}" for value in np.mean(areas, axis=0)))
    print("nothing planted (area, 99.5 % interval from)")
    for group in UNPLANTED:
        found = [area_of(frames, scores(frames, frames.probes[group], each)) for each in settings.values()]
        print(f"{group:42s}" + "".join("        -" if each is None else f" {each.value:.2f} {each.low_wide:.2f}"
                                      for each in found))
    if options.exchanges:
        print(f"labels exchanged {options.exchanges} times: alarms (99.5 % interval above 0.5)")
    for group in ("high-pass colour", "high-pass infrared", "box") if options.exchanges else ():
        alarms = dict.fromkeys(settings, 0)
        for seed in range(options.exchanges):
            shuffled = exchanged(frames, 100 + seed)
            for name, each in settings.items():
                area = area_of(shuffled, scores(shuffled, shuffled.probes[group], each))
                alarms[name] += area is not None and area.low_wide > 0.5
        print(f"{group:42s}" + "".join(f"{count:9d}" for count in alarms.values()))


if __name__ == "__main__":
    main()
