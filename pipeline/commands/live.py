"""`mmdg-live`: run the whole pipeline."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.config import InferenceConfig

#: Shown by --help; `pipeline.supervisor.ExitCode` is the list itself.
EPILOG = ("Exit codes: 0 finished; 1 a process could not be kept running; 2 wrong usage or configuration; 3 no such "
          "camera; 4 recording damaged or foreign; 5 checkpoint refused; 6 not the signed release.")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class PaceOption(StrEnum):
    """`capture.camera.Pace`, spelled for the command line."""

    REALTIME = "realtime"
    LOCKSTEP = "lockstep"


def _fail(message: str, exit_code: int) -> typer.Exit:
    print(f"mmdg-live: {message}", file=sys.stderr)
    return typer.Exit(exit_code)


@app.command(epilog=EPILOG)
def live(
    camera: Annotated[str | None, typer.Option(
        help="realsense[:SERIAL] | replay:FILE | simulated[:SCENE] | webcam[:INDEX|FILE]. Scenes: bona_fide, print, "
             "screen, mask, nobody, two_people.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML configuration (docs/configuration.md).")] = None,
    model: Annotated[Path | None, typer.Option(
        help="Checkpoint (.safetensors), or folder of `mmdg export`. Default: the one that comes with the program "
             "(mmdg weights show), which decides on simulated cameras alone.")] = None,
    calibration: Annotated[Path | None, typer.Option(
        help="Operating-point file of `mmdg calibrate score` for this model: what scores are worth as evidence, by "
             "kind of camera and modalities. Default: the checkpoint's own operating point.")] = None,
    kiosk: Annotated[str | None, typer.Option(
        help="Serve kiosks at ipc://PATH (docs/kiosk-protocol.md). Without it a local session is opened for each "
             "person who appears; such a decision can never open anything.")] = None,
    pace: Annotated[PaceOption, typer.Option(
        help="For recorded and simulated cameras. lockstep: each frame set is scored exactly once, in recorded time, "
             "with the same result on each run.")] = PaceOption.REALTIME,
    seed: Annotated[int, typer.Option(min=0, help="Of a simulated camera: another person in another room.")] = 1,
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after this long.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Stop after the first decision.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout, every event and score.")] = False,
    scores: Annotated[bool, typer.Option("--scores", help="Show the score of each frame, too.")] = False,
) -> None:
    """Watch an RGB-D-IR camera and decide whether the face in front of it is bona fide or a presentation attack.

    Answers on stdout, logs on stderr (MMDG_LOG=info shows more). Stop with Ctrl-C.

    Try it without a camera:  mmdg-live --camera simulated:print --once
    """
    from msgspec import to_builtins
    from msgspec.structs import replace

    from calibration.operating_point_file import OperatingPointFileError
    from capture.camera import CameraError, NoDeviceError
    from mmdg_model.operating_point import OperatingPointError
    from pipeline.camera_probe import is_simulated, probe
    from pipeline.channels import ChannelError
    from pipeline.config import ConfigError, Settings, load_settings, settings_from
    from pipeline.ed25519_files import load_public_key
    from pipeline.policy import SIMULATED_POLICY, PolicyError
    from pipeline.release_manifest import ManifestError, pinned_settings
    from pipeline.report_lines import render
    from pipeline.supervisor import ExitCode, Supervisor

    logging.basicConfig(stream=sys.stderr, level=os.environ.get("MMDG_LOG", "WARNING").upper(),
                        format="%(asctime)s %(name)s %(levelname)s %(message)s")
    overrides: dict[str, Any] = {}
    if camera is not None:
        overrides["cameras"] = [{"spec": camera, "pace": pace.value, "seed": seed}]
    if calibration is not None:
        overrides["calibration"] = str(calibration)
    if kiosk is not None:
        overrides["kiosk"] = {"endpoint": kiosk}
    try:
        if config is not None:
            settings: Settings = load_settings(config, overrides)
        elif camera is not None:
            # Local sessions only: what a kiosk may ask for stands in a configuration file.
            if kiosk is None and is_simulated(camera):
                overrides["policy"] = to_builtins(SIMULATED_POLICY)
            settings = settings_from(overrides, "command line")
        else:
            raise _fail("which camera? Give --camera (mmdg-live --help lists them) or --config", ExitCode.USAGE)
        for one in settings.cameras:
            probe(one.spec)
        checkpoint, sha256 = checkpoint_of(model, settings.inference)
        settings = replace(settings, inference=replace(settings.inference, sha256=sha256))
        if settings.manifest.public_key is not None:
            settings = pinned_settings(settings, checkpoint, load_public_key(Path(settings.manifest.public_key)))
        if (note := purpose_note(checkpoint, [one.spec for one in settings.cameras])) is not None:
            print(f"mmdg-live: {note}", file=sys.stderr)
    except NoDeviceError as error:
        raise _fail(str(error), ExitCode.NO_DEVICE) from None
    except ManifestError as error:
        raise _fail(str(error), ExitCode.RELEASE_REFUSED) from None
    except (CameraError, ConfigError, ValueError) as error:
        raise _fail(str(error), ExitCode.USAGE) from None

    stop = {"asked": False}
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.update(asked=True))
    ends_s = None if seconds is None else time.monotonic() + seconds

    def tell(text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            # Whoever read has gone (`| head`). Stop in order: an error here would leave the cameras running.
            stop.update(asked=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def on_report(line: str) -> None:
        if as_json:
            tell(line)
        elif (text := render(json.loads(line), scores=scores)) is not None:
            tell(text)
        if once and json.loads(line).get("type") == "decision":
            stop["asked"] = True

    try:
        supervisor = Supervisor(settings, checkpoint, on_report=on_report, report_scores=as_json or scores,
                                should_stop=lambda: stop["asked"] or (ends_s is not None
                                                                      and time.monotonic() >= ends_s))
        outcome = supervisor.run()
    except (ChannelError, OperatingPointError, OperatingPointFileError, PolicyError) as error:
        raise _fail(str(error), ExitCode.USAGE) from None
    if as_json:
        print(json.dumps({"type": "summary", "exit_code": int(outcome.exit_code), "error": outcome.error,
                          "restarts": outcome.restarts, "counters": outcome.counters,
                          "sequences": outcome.sequences}), flush=True)
    if outcome.error is not None:
        raise _fail(outcome.error, outcome.exit_code)


def checkpoint_of(option: Path | None, inference: InferenceConfig) -> tuple[Path, str | None]:
    """The checkpoint to run and the SHA-256 it must have, if one is known: the named one, the shipped one, and in a
    tree without shipped weights the test checkpoint, which is made here when it is not there yet (a few seconds)."""
    if option is not None or inference.model is not None:
        path = option or Path(inference.model or "")
        if not path.exists():
            raise ValueError(f"no checkpoint at {path}; check --model (or inference.model in the configuration)")
        return path, inference.sha256
    from mmdg_model.shipped_weights import shipped_checkpoint

    if (shipped := shipped_checkpoint()) is not None:
        return shipped[0], inference.sha256 or shipped[1]
    from mmdg_model.asset_directory import test_checkpoint_path

    path = test_checkpoint_path()
    if not path.is_file():
        print(f"making the test checkpoint {path} (untrained: it can decide nothing)", file=sys.stderr)
        # In a process of its own, so that this one never loads torch.
        subprocess.run([sys.executable, "-m", "mmdg_model.test_checkpoint"], check=True, stdout=sys.stderr)
    return path, inference.sha256


def purpose_note(checkpoint: Path, cameras: list[str]) -> str | None:
    """What to say before the start of weights that were trained on simulated data; None for any other file.

    An unreadable file is not judged here: the inference process refuses it with the reason.
    """
    from mmdg_model.safetensors_header import METADATA_KEY, read_header_metadata
    from pipeline.camera_probe import is_simulated

    try:
        about = json.loads(read_header_metadata(checkpoint)[METADATA_KEY])
        if about["purpose"] != "simulated":
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    real = [camera for camera in cameras if not is_simulated(camera)]
    if real:
        return (f"these weights were trained on simulated data only and decide nothing on {', '.join(real)}: every "
                "session there ends undecided (model_unverified). Name a checkpoint trained on real data: --model FILE")
    return "weights trained on simulated data only: verdicts are marked [simulated] and say nothing about real people"


def main() -> None:
    """Entry point of `mmdg-live`."""
    app()


if __name__ == "__main__":
    main()
