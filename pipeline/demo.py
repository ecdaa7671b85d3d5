"""The demonstration: simulated scenes through the real processes, and a contact sheet of what the network was shown."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from align.face_crop import CROP_DEPTH_UNIT_M, FaceCrop
from pipeline.policy import SIMULATED_POLICY
from pipeline.telemetry import StageLatencies

#: Each scene with its true verdict.
EXPECTED = {"bona_fide": "bona_fide", "print": "attack", "screen": "attack", "mask": "attack"}
SCENES = tuple(EXPECTED)
#: As for any simulated camera.
POLICY = msgspec.structs.replace(SIMULATED_POLICY, name="demo")
#: A scene that has said nothing for this long is reported as failed.
SCENE_WITHIN_S = 240.0
#: The frame of each scene that the contact sheet shows.
SHOWN_FRAME = 12

NO_WEIGHTS = ("This checkpoint is untrained (purpose `test`), so policy lets it decide nothing. Every verdict below is "
              "`undecided` and every score is noise; what you see is the pipeline, not a liveness result. All scenes "
              "are simulated.")
SIMULATED_WEIGHTS = ("All scenes are simulated, and so is everything that these weights were trained on: each verdict "
                     "is marked [simulated] and says nothing about real people.")


@dataclass
class SceneOutcome:
    """What one scene gave. `scores`: (milliseconds since the first score, logit)."""

    scene: str
    decision: dict[str, Any] | None
    scores: list[tuple[float, float]]
    latencies_ms: dict[str, dict[str, float]]
    drops: dict[str, int]
    error: str | None = None
    crop: FaceCrop | None = field(default=None, repr=False)

    @property
    def expected(self) -> str | None:
        """The true verdict; None for a scene that has none."""
        return EXPECTED.get(self.scene)

    @property
    def may_decide(self) -> bool:
        """Whether the checkpoint is one that was trained; an untrained one is `undecided` by policy, never wrong."""
        return self.decision is not None and self.decision.get("model_purpose") in ("simulated", "release")

    @property
    def judgement(self) -> str:
        """`right`; `wrong`: a person refused or an attack accepted; `open`: an attack left undecided, or no verdict
        that could be judged. An undecided person is refused: nothing opens."""
        if not self.may_decide or self.expected is None or self.decision is None:
            return "open"
        verdict = self.decision["verdict"]
        if verdict == self.expected:
            return "right"
        return "wrong" if "bona_fide" in (verdict, self.expected) else "open"


def run_scene(scene: str, seed: int, model: Path | None) -> SceneOutcome:
    """Run `mmdg-live` on one simulated scene until its first decision."""
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "demo.yaml"
        configuration.write_text(yaml.safe_dump({
            # Lock-step: each frame is scored once, and time is the camera's, so that a verdict does not depend on what
            # else this machine is busy with.
            "cameras": [{"spec": f"simulated:{scene}", "seed": seed, "pace": "lockstep"}],
            "policy": msgspec.to_builtins(POLICY)}))
        command = [sys.executable, "-m", "pipeline.commands.live", "--config", str(configuration), "--once", "--json",
                   *(["--model", str(model)] if model else [])]
        try:
            finished = subprocess.run(command, capture_output=True, text=True, timeout=SCENE_WITHIN_S, check=False)
        except subprocess.TimeoutExpired:
            return SceneOutcome(scene, None, [], {}, {}, error=f"no decision within {SCENE_WITHIN_S:g} s")
    events = [json.loads(line) for line in finished.stdout.splitlines()]
    return outcome_of(scene, events, None if finished.returncode == 0 else finished.stderr.strip() or "no message")


def outcome_of(scene: str, events: Sequence[dict[str, Any]], error: str | None = None) -> SceneOutcome:
    """Sum up the JSON lines of one run."""
    decision = next((event for event in events if event.get("type") == "decision"), None)
    latencies = StageLatencies()
    scores: list[tuple[float, float]] = []
    for event in events:
        if event.get("type") != "score" or event.get("failed"):
            continue
        stamps = event["stamps_ns"]
        latencies.add(stamps)
        scores.append((stamps["arrival"] / 1e6, event["logit"]))
    summary: dict[str, Any] = next((e for e in events if e.get("type") == "summary"), {"counters": {}})
    drops = {f"{process}.{cause}": count for process, counters in summary["counters"].items()
             for cause, count in counters.items() if cause not in ("received", "handed_out", "scored")}
    if decision is None and error is None:
        error = "the run ended without a decision"
    began = scores[0][0] if scores else 0.0
    return SceneOutcome(scene, decision, [(t - began, logit) for t, logit in scores], latencies.percentiles_ms(),
                        drops, error)


def shown_crop(scene: str, seed: int, frame: int = SHOWN_FRAME) -> FaceCrop | None:
    """The crop that the network is given in about the middle of the scene.

    No crop leaves a running pipeline (that is a promise), so the same simulated camera is run once more here, through
    the same camera step, in this process.
    """
    from capture.camera import EndOfStreamError
    from pipeline.camera_stage import CameraStageSettings, open_step
    from pipeline.config import CameraConfig, CropConfig, DetectionConfig

    settings = CameraStageSettings(
        camera=CameraConfig(spec=f"simulated:{scene}", seed=seed, pace="lockstep"), detection=DetectionConfig(),
        crop=CropConfig())
    camera, step, detector = open_step("camera", settings)
    crop = None
    try:
        for _ in range(frame + 1):
            crop = step.step(camera.read(1.0), {}).crop or crop
    except EndOfStreamError:
        pass
    finally:
        camera.close()
        detector.close()
    return crop


def demonstrate(seed: int, model: Path | None, scenes: Sequence[str] = SCENES) -> Iterator[SceneOutcome]:
    """Run the scenes one after the other, each with its crop for the contact sheet."""
    for scene in scenes:
        outcome = run_scene(scene, seed, model)
        if outcome.error is None:
            outcome.crop = shown_crop(scene, seed)
        yield outcome


def draw_contact_sheet(outcomes: Sequence[SceneOutcome], path: Path) -> None:
    """One row a scene: colour, depth and infrared as the network gets them, and its scores over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(outcomes), 4, figsize=(13, 3.1 * len(outcomes)), squeeze=False,
                                gridspec_kw={"width_ratios": [1, 1.18, 1, 1.7]}, layout="constrained")
    longest_s = max([t / 1e3 for outcome in outcomes for t, _ in outcome.scores] + [1.0])
    logits = [logit for outcome in outcomes for _, logit in outcome.scores] or [0.0]
    margin = 0.1 * (max(logits) - min(logits) + 1.0)
    for row, outcome in zip(axes, outcomes, strict=True):
        _draw_planes(figure, row[:3], outcome)
        chart = row[3]
        chart.axhline(0, color="0.7", linewidth=0.8)
        chart.plot([t / 1e3 for t, _ in outcome.scores], [logit for _, logit in outcome.scores], marker=".",
                   color="tab:green" if outcome.expected == "bona_fide" else "tab:red")
        chart.set(xlim=(0, longest_s * 1.02), ylim=(min(logits) - margin, max(logits) + margin),
                  xlabel="seconds of the camera since the first score",
                  ylabel="logit" if outcome.may_decide else "logit (untrained)")
        verdict = "no decision" if outcome.decision is None else \
            f"{outcome.decision['verdict']} [simulated] ({outcome.decision['reason']})"
        expected = f", expected {outcome.expected}: {outcome.judgement}" if outcome.may_decide else ""
        chart.set_title(f"{len(outcome.scores)} scores, {verdict}{expected}", fontsize=9,
                        color="tab:red" if outcome.judgement == "wrong" else "black")
    trained = "weights trained on simulated data only" if any(outcome.may_decide for outcome in outcomes) else \
        "UNTRAINED network"
    figure.suptitle(f"mmdg-live demonstration: SIMULATED scenes, {trained} — no result about real people", fontsize=13)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_planes(figure: Any, row: Sequence[Any], outcome: SceneOutcome) -> None:
    for axis in row:
        axis.set(xticks=[], yticks=[])
    row[0].set_ylabel(outcome.scene, fontsize=13)
    crop = outcome.crop
    if crop is None:
        row[0].set_title(outcome.error or "no face crop", fontsize=9)
        return
    row[0].imshow(crop.colour)
    row[0].set_title("colour", fontsize=10)
    if crop.depth is not None and crop.depth_valid is not None and crop.depth_valid.any():
        depth_m = np.where(crop.depth_valid, crop.depth * CROP_DEPTH_UNIT_M, np.nan)
        centre_m = float(np.nanmedian(depth_m[depth_m.shape[0] // 4: -depth_m.shape[0] // 4]))
        picture = row[1].imshow(depth_m * 1e3, cmap="turbo_r", vmin=centre_m * 1e3 - 60, vmax=centre_m * 1e3 + 120)
        row[1].set_facecolor("black")
        figure.colorbar(picture, ax=row[1], fraction=0.046, label="mm")
    row[1].set_title("depth (black: none)", fontsize=10)
    if crop.infrared is not None:
        row[2].imshow(crop.infrared, cmap="gray", vmin=0, vmax=2 ** crop.infrared_bit_depth - 1)
    row[2].set_title("infrared", fontsize=10)
