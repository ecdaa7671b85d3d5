"""`mmdg record`: a camera into a session file."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from capture.camera import Camera, CameraError, EndOfStreamError, FrameTimeoutError, MonotonicNs, Pace
from capture.sources import CameraSpecificationError, make_camera

#: Longest wait for one set before the camera counts as silent, and how many such waits end the recording.
READ_TIMEOUT_S = 1.0
MAX_SILENT_READS = 10


@dataclass(frozen=True, kw_only=True)
class RecordingSummary:
    """What was recorded. `ended`: `frames`, `seconds`, `end_of_stream`, `stopped`, or `error`."""

    path: str
    sets: int
    seconds: float
    megabytes: float
    streams: list[str]
    serial: str
    simulated: bool
    dropped: dict[str, int]
    ended: str
    error: str = ""


def record_camera(camera: Camera, path: Path, *, frames: int | None = None, seconds: float | None = None,
                  label: str = "", notes: str = "", should_stop: Callable[[], bool] = lambda: False,
                  on_set: Callable[[int], None] = lambda sets: None,
                  monotonic_ns: MonotonicNs = time.monotonic_ns) -> RecordingSummary:
    """Record until a limit, the end of the stream, `should_stop`, or an error; keep what was recorded until then.

    `seconds` are the host's for a live camera, and recorded time for a file or scene.

    Raises:
        CameraError: it cannot be opened. RecordingError: the file cannot be begun or finished.
    """
    from capture.recording import RecordingError, RecordingWriter
    from capture.write_ahead import WriteAhead

    ended, problem, span_s, accepted = "stopped", "", 0.0, 0
    with contextlib.ExitStack() as stack:
        stack.callback(camera.close)
        description = camera.open()
        writer = stack.enter_context(RecordingWriter(path, description, label=label, notes=notes))
        ahead = stack.enter_context(WriteAhead(writer, may_drop=description.live))
        started_ns, first_ns, silent = monotonic_ns(), None, 0
        while not should_stop():
            if frames is not None and accepted >= frames:
                ended = "frames"
                break
            try:
                frame_set = camera.read(READ_TIMEOUT_S)
                silent = 0
                first_ns = frame_set.arrival_ns if first_ns is None else first_ns
                elapsed_s = (monotonic_ns() - started_ns if description.live else frame_set.arrival_ns - first_ns) / 1e9
                if seconds is not None and elapsed_s >= seconds:
                    ended = "seconds"
                    break
                if ahead.put(frame_set):
                    accepted += 1
                    span_s = (frame_set.arrival_ns - first_ns) / 1e9
                    on_set(accepted)
                else:
                    camera.counters["disk_late"] += 1
            except FrameTimeoutError as error:
                silent += 1
                if silent >= MAX_SILENT_READS:
                    ended, problem = "error", f"no set for {silent * READ_TIMEOUT_S:g} s: {error}"
                    break
            except EndOfStreamError:
                ended = "end_of_stream"
                break
            except (CameraError, RecordingError) as error:
                ended, problem = "error", str(error)
                break
        try:
            ahead.finish()
        except RecordingError as error:
            ended, problem = "error", problem or str(error)
        writer.close(camera.counters)
    size = path.stat().st_size if writer.sets else 0
    return RecordingSummary(path=str(path), sets=writer.sets, seconds=round(span_s, 3), megabytes=round(size / 1e6, 3),
                            streams=[kind.value for kind in description.streams], serial=description.serial,
                            simulated=description.simulated,
                            dropped={cause: count for cause, count in sorted(camera.counters.items()) if count},
                            ended=ended, error=problem)


def register(app: typer.Typer) -> None:
    @app.command("record")
    def record(
        path: Annotated[Path, typer.Argument(metavar="OUT.mcap", help="session file to write; never overwritten")],
        camera: Annotated[str, typer.Option(help="realsense[:SERIAL], webcam[:INDEX|FILE], simulated[:SCENE] or "
                                                 "replay:FILE")],
        seconds: Annotated[float | None, typer.Option(min=0.1, help="stop after this time")] = None,
        frames: Annotated[int | None, typer.Option(min=1, help="stop after this many frame sets")] = None,
        label: Annotated[str, typer.Option(help="what is presented, such as bona_fide or print")] = "",
        notes: Annotated[str, typer.Option(help="free text kept in the file")] = "",
        lockstep: Annotated[bool, typer.Option("--lockstep", help="files and scenes: every set, as fast as "
                                                                  "possible")] = False,
        seed: Annotated[int, typer.Option(help="seed of a simulated scene")] = 0,
        as_json: Annotated[bool, typer.Option("--json", help="print the summary as one JSON line")] = False,
    ) -> None:
        """Record a camera into a lossless session file.

        Ctrl-C ends the recording cleanly. Exit codes: 0 recorded, 1 ended by an error (what came before is kept) or
        nothing recorded, 2 wrong arguments.
        """
        from capture.recording import RecordingError

        console = Console(stderr=True)
        if path.suffix != ".mcap":
            raise typer.BadParameter(f"{path}: the name of a session ends in .mcap", param_hint="OUT.mcap")
        try:
            source = make_camera(camera, pace=Pace.LOCKSTEP if lockstep else Pace.REALTIME, seed=seed)
        except CameraSpecificationError as error:
            raise typer.BadParameter(str(error), param_hint="--camera") from None
        except CameraError as error:
            console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
        try:
            with _stop_on_signals() as stopped, _progress(console, frames) as on_set:
                summary = record_camera(source, path, frames=frames, seconds=seconds, label=label, notes=notes,
                                        should_stop=stopped, on_set=on_set)
        except (CameraError, RecordingError) as error:
            console.print(f"error: {error}", style="red", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from None
        _print_summary(summary, as_json)
        if summary.error or not summary.sets:
            message = summary.error or "no frame set was recorded, no file was left"
            console.print(f"error: {message}", style="red", highlight=False, soft_wrap=True)
            raise typer.Exit(1)


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """True once SIGINT or SIGTERM came; the handlers that were there come back."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before: dict[signal.Signals, Any] = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress(console: Console, frames: int | None) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("recording"), BarColumn(), TextColumn("{task.completed} sets"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("recording", total=frames)
        yield lambda sets: progress.update(task, completed=sets)


def _print_summary(summary: RecordingSummary, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(summary)) + "\n")
    elif summary.sets:
        simulated = ", SIMULATED" if summary.simulated else ""
        dropped = ", ".join(f"{cause} {count}" for cause, count in summary.dropped.items()) or "none"
        sys.stdout.write(f"{summary.path}: {summary.sets} sets of {', '.join(summary.streams)} in "
                         f"{summary.seconds:.1f} s, {summary.megabytes:.1f} MB, camera {summary.serial}{simulated}\n"
                         f"dropped: {dropped}; ended: {summary.ended}\n")
