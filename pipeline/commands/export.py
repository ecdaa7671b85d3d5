"""`mmdg export`: a checkpoint into another runtime's format."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mmdg_model.backends.exported_model import ExportedModel
    from mmdg_model.scorer import CropPlanes

#: Frame sets looked through for a crop before a source counts as one without faces.
_LARGEST_SEARCH = 300

#: Every so many sets a crop is taken: neighbours look alike and would say nothing new about ranges.
_STRIDE = 5


def calibration_crops(sources: list[str], number: int, *, seed: int = 0, size: int = 224) -> list[CropPlanes]:
    """`number` crops spread over `sources`, as the running pipeline would cut them.

    Args:
        sources: cameras by name, such as `replay:FILE` or `simulated:print`.
        number: in all.
        seed: of simulated scenes.
        size: side of the crops in pixels, what the network takes.

    Raises:
        CameraError, DetectorError: a source cannot be opened. ValueError: a source shows too few faces.
    """
    crops = []
    for index, source in enumerate(sources):
        share = (index + 1) * number // len(sources) - index * number // len(sources)
        found = 0
        for planes in _crops_of(source, seed, size):
            if found == share:
                break
            found += 1
            crops.append(planes)
        if found < share:
            raise ValueError(f"calibration source {source!r} gave {found} crops, {share} were needed; give a longer "
                             "recording with a face in it, or fewer --crops")
    return crops


def _crops_of(source: str, seed: int, size: int) -> Iterator[CropPlanes]:
    from capture.camera import EndOfStreamError
    from capture.sources import parse_camera
    from pipeline.bundle import unpack
    from pipeline.camera_stage import CameraStageSettings, open_step
    from pipeline.config import CameraConfig, CropConfig, DetectionConfig

    pace: Literal["lockstep", "realtime"] = (
        "lockstep" if parse_camera(source).kind in ("replay", "simulated") else "realtime")
    camera, step, detector = open_step("calibration", CameraStageSettings(
        camera=CameraConfig(spec=source, pace=pace, seed=seed), detection=DetectionConfig(), crop=CropConfig(),
        crop_size=size))
    try:
        last = -_STRIDE
        for index in range(_LARGEST_SEARCH):
            result = step.step(camera.read(5.0), {})
            if result.bundle is not None and index - last >= _STRIDE:
                last = index
                yield unpack(result.bundle)[1]
    except EndOfStreamError:
        return
    finally:
        camera.close()
        detector.close()


def register(app: typer.Typer) -> None:
    @app.command("export")
    def export(
        checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="safetensors file")],
        out: Annotated[Path, typer.Argument(metavar="OUT", help="directory to write; must not exist")],
        backend: Annotated[str, typer.Option(help="openvino")] = "openvino",
        precision: Annotated[str, typer.Option(help="float32 (fp32), bfloat16 (bf16) or int8")] = "float32",
        calibration: Annotated[list[str] | None, typer.Option(
            help="for int8: camera to take crops from, as replay:FILE or simulated:print; may be repeated")] = None,
        crops: Annotated[int, typer.Option(min=8, help="for int8: crops to calibrate on, in all")] = 32,
        sha256: Annotated[str | None, typer.Option(help="SHA-256 that the checkpoint must have")] = None,
        threads: Annotated[int, typer.Option(min=1, help="of calibration and verification")] = 1,
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
    ) -> None:
        """Write a checkpoint as an exported model: runtime files, and a manifest that says what they are.

        The model is verified against the checkpoint's known answer before OUT appears. For int8, read the comparison
        with float32 that is printed: decide by it whether to use the model.
        Exit codes: 0 written, 1 not possible, 2 wrong arguments.
        """
        if backend != "openvino":
            raise typer.BadParameter(f"{backend!r}: the only format to export to is openvino; torch and cuda run the "
                                     "checkpoint itself", param_hint="--backend")
        precision = {"fp32": "float32", "bf16": "bfloat16"}.get(precision, precision)
        if precision not in ("float32", "bfloat16", "int8"):
            raise typer.BadParameter(f"{precision!r}: expected float32, bfloat16 or int8", param_hint="--precision")
        if (precision == "int8") != bool(calibration):
            raise typer.BadParameter("int8 needs crops to measure ranges on, the others none: give --calibration "
                                     "replay:FILE (or simulated:SCENE) with int8 only", param_hint="--calibration")
        exported = _export(checkpoint, out, precision, calibration or [], crops, sha256, threads)
        _print(exported, out, as_json)


def _export(checkpoint: Path, out: Path, precision: str, sources: list[str], crops: int, sha256: str | None,
            threads: int) -> ExportedModel:
    from capture.camera import CameraError
    from detect.faces import DetectorError

    try:
        from mmdg_model.backends.openvino_export import export_openvino
        from mmdg_model.checkpoint import load_checkpoint

        loaded = load_checkpoint(checkpoint, expected_hash=sha256)
        found = calibration_crops(sources, crops, size=loaded.input_spec.image_size) if sources else []
        return export_openvino(loaded, out, precision=precision, calibration=found, threads=threads,
                               calibration_source=", ".join(sources))
    except (ModuleNotFoundError, CameraError, DetectorError, ValueError, OSError) as error:
        _fail(str(error))


def _print(exported: ExportedModel, out: Path, as_json: bool) -> None:
    if as_json:
        about = {"path": str(out), "sha256": exported.hash, "backend": exported.backend,
                 "precision": exported.precision, "checkpoint_sha256": exported.checkpoint_hash,
                 "purpose": str(exported.purpose), "calibration": dict(exported.calibration)}
        sys.stdout.write(json.dumps(about) + "\n")
        return
    lines = [f"{out}: {exported.backend} model in {exported.precision}, purpose {exported.purpose}",
             f"sha256 of its manifest (pin this): {exported.hash}"]
    if exported.calibration:
        lines.append("against float32 on the calibration crops: "
                     + ", ".join(f"{key} {value}" for key, value in exported.calibration.items()))
    sys.stdout.write("\n".join(lines) + "\n")


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(1)
