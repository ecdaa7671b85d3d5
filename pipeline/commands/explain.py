"""`mmdg explain`: which patches were uncertain and what the adapters attended to, over the crop that was scored."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mmdg_model.checkpoint import Checkpoint
    from mmdg_model.scorer import CropPlanes


#: Frames looked at after the wanted one before giving up: a live camera may wait for a face for ever.
MAX_FRAMES_WITHOUT_FACE = 900


class NoCropError(RuntimeError):
    """A session has no face crop where one was asked for."""


def session_crop(specification: str, seed: int, frame: int, size: int = 224) -> tuple[CropPlanes, str]:
    """The crop of the first frame from number `frame` on that has one, and words that say what it shows.

    The frames go through the same camera step as in a running pipeline, in this process.

    Raises:
        CameraError, DetectorError: it cannot be opened. NoCropError: it ends before such a frame, or shows no face for
            `MAX_FRAMES_WITHOUT_FACE` frames.
    """
    from align.face_crop import CROP_DEPTH_UNIT_M
    from capture.camera import EndOfStreamError
    from mmdg_model.scorer import CropPlanes
    from pipeline.camera_stage import CameraStageSettings, open_step
    from pipeline.config import CameraConfig, CropConfig, DetectionConfig

    settings = CameraStageSettings(camera=CameraConfig(spec=specification, seed=seed, pace="lockstep"),
                                   detection=DetectionConfig(), crop=CropConfig(), crop_size=size)
    camera, step, detector = open_step("explain", settings)
    seen = 0
    try:
        while seen < frame + MAX_FRAMES_WITHOUT_FACE:
            crop = step.step(camera.read(1.0), {}).crop
            if seen >= frame and crop is not None:
                simulated = "SIMULATED data: " if step.description.simulated else ""
                return CropPlanes(
                    colour=crop.colour, colour_valid=crop.colour_valid, depth=crop.depth, depth_valid=crop.depth_valid,
                    depth_unit_m=CROP_DEPTH_UNIT_M, infrared=crop.infrared, infrared_valid=crop.infrared_valid,
                    infrared_bit_depth=crop.infrared_bit_depth), f"{simulated}{specification}, frame {seen}"
            seen += 1
    except EndOfStreamError:
        pass
    finally:
        camera.close()
        detector.close()
    raise NoCropError(f"{specification}: {seen} frames, no face crop from frame {frame} on; choose an earlier --frame, "
                      "or look at the session with mmdg sessions")


def explain_to(out: Path, checkpoint: Checkpoint, crop: CropPlanes, *, shown: str, block: int | None,
               arrays: Path | None) -> dict[str, object]:
    """Draws one crop's explanation, optionally keeps its arrays, and returns what to print. Blocks count from 1.

    Raises:
        ValueError: a crop that does not fit the checkpoint, or no such block.
    """
    import numpy as np

    from mmdg_model.explain import explain_crops
    from mmdg_model.explanation_figure import draw_explanation
    from mmdg_model.network import LIVE_COLUMN, MODALITIES
    from mmdg_model.scorer import Purpose

    chosen = checkpoint.config.depth if block is None else block
    if chosen > checkpoint.config.depth:
        raise ValueError(f"block {chosen} of a network of {checkpoint.config.depth} blocks; choose 1 to "
                         f"{checkpoint.config.depth}")
    explanation, inputs = explain_crops(checkpoint, [crop])
    logits = explanation.output.logits[0]
    logit = float(logits[LIVE_COLUMN] - logits[1 - LIVE_COLUMN])
    untrained = checkpoint.purpose is Purpose.TEST
    note = "UNTRAINED weights: the maps mean nothing" if untrained else f"purpose {checkpoint.purpose}"
    draw_explanation(out, explanation, inputs, checkpoint.input_spec, block=chosen - 1,
                     title=f"{shown}; logit {logit:.2f}; model {checkpoint.hash[:12]}, {note}")
    if arrays is not None:
        arrays.parent.mkdir(parents=True, exist_ok=True)
        with arrays.open("wb") as file:
            entries: dict[str, Any] = explanation.arrays(0)
            np.savez_compressed(file, **entries)
    used = [index for index in range(len(MODALITIES)) if inputs.present[0, index]]
    return {"figure": str(out), "arrays": str(arrays) if arrays else None, "shown": shown, "block": chosen,
            "logit": round(logit, 4), "model_hash": checkpoint.hash, "purpose": str(checkpoint.purpose),
            "class_token_uncertainty": {str(MODALITIES[index]):
                                        round(1.0 - float(explanation.output.class_certainty[0, index]), 4)
                                        for index in used}}


def explain_command(
    source: Annotated[str, typer.Argument(metavar="CROP|SESSION",
                                          help="CROP.npz, SESSION.mcap, or a camera such as simulated:print")],
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="picture to write")],
    model: Annotated[Path | None, typer.Option(help="checkpoint; default: an untrained test checkpoint")] = None,
    block: Annotated[int | None, typer.Option(min=1, help="block to show, counted from 1; default: the last")] = None,
    frame: Annotated[int, typer.Option(min=0, help="of a session: the first frame to consider")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="of a simulated scene")] = 0,
    arrays: Annotated[Path | None, typer.Option(metavar="OUT.npz", help="also keep the numbers")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the summary as one JSON line")] = False,
) -> None:
    """Show which patches were uncertain and what the adapters attended to.

    The picture shows the face it explains: treat it like the recording. Exit codes: 0 drawn, 1 the crop, session or
    checkpoint cannot be used, 2 wrong arguments.
    """
    from capture.camera import CameraError
    from capture.sources import CameraSpecificationError
    from detect.faces import DetectorError
    from mmdg_model.checkpoint import load_checkpoint
    from mmdg_model.crop_file import load_crop
    from mmdg_model.shipped_weights import shipped_checkpoint
    from mmdg_model.test_checkpoint import ensure_test_checkpoint

    if out.suffix != ".png":
        raise typer.BadParameter(f"{out}: the name of the picture ends in .png", param_hint="OUT.png")
    try:
        shipped = shipped_checkpoint() if model is None else None
        checkpoint = (load_checkpoint(shipped[0], expected_hash=shipped[1]) if shipped
                      else load_checkpoint(model or ensure_test_checkpoint()))
        if source.endswith(".npz"):
            crop, shown = load_crop(Path(source)), Path(source).name
        else:
            specification = f"replay:{source}" if source.endswith(".mcap") and ":" not in source else source
            crop, shown = session_crop(specification, seed, frame, checkpoint.input_spec.image_size)
        summary = explain_to(out, checkpoint, crop, shown=shown, block=block, arrays=arrays)
    except CameraSpecificationError as error:
        raise typer.BadParameter(str(error), param_hint="CROP|SESSION") from None
    except (ValueError, NoCropError, CameraError, DetectorError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    _print(summary, as_json)


def _print(summary: dict[str, object], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(summary) + "\n")
        return
    if summary["purpose"] == "test":
        typer.echo("The checkpoint is untrained (purpose `test`): the maps show that the drawing works, nothing more.",
                   err=True)
    uncertainty = summary["class_token_uncertainty"]
    assert isinstance(uncertainty, dict)
    sys.stdout.write(f"{summary['figure']}: {summary['shown']}, logit {summary['logit']}, class-token uncertainty "
                     f"{', '.join(f'{name} {value}' for name, value in uncertainty.items())}\n")


def register(app: typer.Typer) -> None:
    """Add the command to `mmdg`."""
    app.command("explain")(explain_command)
