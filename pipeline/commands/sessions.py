"""`mmdg sessions`: look into session files, and rescue damaged ones."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from capture.camera import CameraError
from capture.sources import REALSENSE_FILES


def inspect_session(path: Path) -> dict[str, Any]:
    """Read a whole session, verify every plane, and say what is in it.

    Raises:
        NoDeviceError: no such file. CorruptStreamError: no session, or its structure is damaged. A damaged set is
        reported in `damage`, not raised.
    """
    from capture.camera import CorruptStreamError
    from capture.recording import RecordingReader

    if path.suffix in REALSENSE_FILES:
        return _inspect_realsense(path)
    damage, skews_ns, sequences, epochs, verified = "", [], [], set(), 0
    with RecordingReader(path) as reader:
        try:
            for frames in reader:
                verified += 1
                skews_ns.append(frames.skew_ns)
                sequences.append(frames.sequence)
                epochs.add(frames.epoch)
        except CorruptStreamError as error:
            damage = str(error)
        manifest, arrivals_ns = reader.manifest, reader.arrivals_ns
        streams = {kind.value: f"{i.width}x{i.height}" for kind, i in sorted(manifest.rig.intrinsics.items())}
        return {
            "path": str(path), "megabytes": round(path.stat().st_size / 1e6, 3), "sets": len(reader),
            "verified_sets": verified, "hashes_ok": not damage, "damage": damage,
            "seconds": round((arrivals_ns[-1] - arrivals_ns[0]) / 1e9, 3), "frame_rate": manifest.frame_rate,
            "streams": streams, "camera": manifest.kind, "serial": manifest.serial, "details": manifest.details,
            "simulated": manifest.simulated, "rig_sha256": manifest.rig.hash,
            "depth_scale_m": manifest.rig.depth_scale_m, "label": manifest.label, "notes": manifest.notes,
            "created": manifest.created, "software": manifest.software, "recovered_from": manifest.recovered_from,
            "dropped": reader.counters, "epochs": len(epochs),
            "missing_sequences": max(sequences) - min(sequences) + 1 - len(set(sequences)) if sequences else 0,
            "max_skew_ms": round(max(skews_ns) / 1e6, 3) if skews_ns else None,
        }


def _inspect_realsense(path: Path) -> dict[str, Any]:
    """The same for a recording of the RealSense SDK, by playing it once. Its planes carry no hashes of ours."""
    from capture.camera import CorruptStreamError, EndOfStreamError, Pace
    from capture.realsense_file import RealSenseFileCamera

    damage = ""
    arrivals_ns: list[int] = []
    skews_ns: list[int] = []
    with closing(RealSenseFileCamera(path, Pace.LOCKSTEP)) as camera:
        description = camera.open()
        try:
            while True:
                frames = camera.read(10.0)
                arrivals_ns.append(frames.arrival_ns)
                skews_ns.append(frames.skew_ns)
        except EndOfStreamError:
            pass
        except CorruptStreamError as error:
            damage = str(error)
        rig = description.rig
        return {
            "path": str(path), "megabytes": round(path.stat().st_size / 1e6, 3), "sets": len(arrivals_ns),
            "verified_sets": len(arrivals_ns), "hashes_ok": not damage, "damage": damage,
            "seconds": round((arrivals_ns[-1] - arrivals_ns[0]) / 1e9, 3) if arrivals_ns else 0.0,
            "frame_rate": description.frame_rate,
            "streams": {kind.value: f"{i.width}x{i.height}" for kind, i in sorted(rig.intrinsics.items())},
            "camera": description.kind, "serial": description.serial, "details": description.details,
            "simulated": description.simulated, "rig_sha256": rig.hash, "depth_scale_m": rig.depth_scale_m,
            "label": "", "notes": "", "created": "unknown", "software": "the RealSense SDK", "recovered_from": "",
            "dropped": dict(camera.counters), "epochs": 1, "missing_sequences": 0,
            "max_skew_ms": round(max(skews_ns) / 1e6, 3) if skews_ns else None,
        }


def register(app: typer.Typer) -> None:
    sessions = typer.Typer(no_args_is_help=True, help="Look into session files, and rescue damaged ones.")
    app.add_typer(sessions, name="sessions")

    @sessions.command("info")
    def info(
        path: Annotated[Path, typer.Argument(metavar="FILE", help=".mcap of ours, .db3 or .bag of the SDK")],
        as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
    ) -> None:
        """Say what a session holds, and verify every plane of it.

        Exit codes: 0 sound, 1 damaged or not a session.
        """
        try:
            report = inspect_session(path)
        except CameraError as error:
            _fail(str(error))
        if as_json:
            sys.stdout.write(json.dumps(report) + "\n")
        else:
            _print_report(report)
        if report["damage"]:
            raise typer.Exit(1)

    @sessions.command("recover")
    def recover(
        path: Annotated[Path, typer.Argument(metavar="FILE", help="a .partial file, or a damaged session")],
        output: Annotated[Path | None, typer.Option(help="default: FILE.recovered.mcap beside it")] = None,
    ) -> None:
        """Copy the sound sets before the first damage into a new session. The damaged file stays as it is.

        Exit codes: 0 recovered, 1 nothing to recover.
        """
        from capture.recording import RecordingError, recover_recording

        try:
            recovered = recover_recording(path, output)
        except (CameraError, RecordingError) as error:
            _fail(str(error))
        sys.stdout.write(f"{recovered.path}: {recovered.sets} sets recovered; reading stopped because: "
                         f"{recovered.reason}\n")


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def _print_report(report: dict[str, Any]) -> None:
    streams = ", ".join(f"{name} {size}" for name, size in report["streams"].items())
    dropped = ", ".join(f"{cause} {count}" for cause, count in report["dropped"].items()) or "none"
    lines = {
        "sets": f"{report['sets']} in {report['seconds']:.1f} s ({report['frame_rate']:g} a second nominal), "
                f"{report['megabytes']:.1f} MB",
        "streams": streams,
        "camera": f"{report['camera']} {report['serial']}{' (SIMULATED)' if report['simulated'] else ''}",
        "rig": f"SHA-256 {report['rig_sha256']}, "
               + (f"depth unit {report['depth_scale_m']:g} m" if report["depth_scale_m"] else "no depth"),
        "label": report["label"] or "none", "notes": report["notes"] or "none",
        "recorded": f"{report['created']} by {report['software']}",
        "recovered from": report["recovered_from"] or "not recovered",
        "dropped": f"{dropped}; sequence numbers missing: {report['missing_sequences']}",
        "largest skew": "unknown" if report["max_skew_ms"] is None else f"{report['max_skew_ms']:.1f} ms",
        "planes": "every one is as recorded" if report["hashes_ok"] else
                  f"DAMAGED after {report['verified_sets']} sets: {report['damage']}",
    }
    sys.stdout.write(f"{report['path']}\n" + "".join(f"  {name:<15}{text}\n" for name, text in lines.items()))
