"""Everything a run writes while it trains: metrics, timings, troubles, TensorBoard, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from mmdg_model.training.metrics_log import LineLog, read_lines
from mmdg_model.training.progress import Report, Reporter, duration
from mmdg_model.training.resume import Position
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.tensorboard_log import TensorBoardLog

if TYPE_CHECKING:
    from mmdg_model.training.decoding import FileTrouble
    from mmdg_model.training.run_data import RunData

#: Updates between two lines of `timing.jsonl` and two points of TensorBoard's curves.
TIMING_EVERY = 10

#: After so many updates of a start, what is left of the run is estimated and told.
ESTIMATE_AFTER = 20


class RunLog:
    """Logs of one start of a run. Processes other than the first write nothing.

    Args:
        directory: of the run.
        position: where this start begins; `metrics.jsonl` is cut back to it.
        updates, epochs: of the whole run.
        leads: whether this is the first process.
        data: asked for waiting times and troubles.
        reporter: told of each update.
        clock: seconds.
        tensorboard: whether to write event files.

    Raises:
        RunDirectoryError: `metrics.jsonl` is shorter than the position says.
        ImportError: TensorBoard is asked for and tensorboardX is not installed.
    """

    def __init__(self, directory: RunDirectory, position: Position, *, updates: int, epochs: int, leads: bool,
                 data: RunData, reporter: Reporter, clock: Callable[[], float], tensorboard: bool) -> None:
        self._directory, self._leads, self._data, self._reporter = directory, leads, data, reporter
        self._updates, self._epochs, self._clock = updates, epochs, clock
        self._first = position
        self._started_s = self._interval_s = clock()
        self._interval_samples = 0
        self._waiting_share = self._samples_per_s = 0.0
        data.take_waiting_share()  # what came before this start is not its waiting
        if not leads:
            return
        self._metrics = LineLog(directory.metrics_file)
        self._metrics.cut_back(position.metrics_bytes)
        self._timing = LineLog(directory.timing_file)
        self._troubles = LineLog(directory.troubles_file)
        # A line that a kill cut off is of no use, and the next one must not be appended to it.
        self._troubles.cut_back_to_whole_lines()
        self._timing.cut_back_to_whole_lines()
        self._told_troubles = {(line["path"], line["modality"]) for line in read_lines(directory.troubles_file)}
        self._curves = (TensorBoardLog(directory.tensorboard, first_update=position.updates + 1) if tensorboard
                        else None)

    def seconds(self) -> float:
        """Of training so far, earlier starts included."""
        return self._first.seconds + self._clock() - self._started_s

    def stamped(self, position: Position) -> Position:
        """The position with the log's length, which has reached the disk, and the seconds."""
        return msgspec.structs.replace(position, metrics_bytes=self._metrics.sync() if self._leads else 0,
                                       seconds=self.seconds())

    def update(self, position: Position, scalars: Mapping[str, float], samples: int) -> None:
        """After an update.

        Args:
            position: with the update counted.
            scalars: of the update.
            samples: of all processes.
        """
        if not self._leads:
            return
        self._metrics.write({"kind": "update", "epoch": position.epoch, "update": position.updates, **scalars})
        self._interval_samples += samples
        if position.updates % TIMING_EVERY == 0 or position.updates == self._first.updates + 1:
            self._close_interval(position, scalars)
        done = position.updates - self._first.updates
        left_s = (self._clock() - self._started_s) / done * (self._updates - position.updates)
        if done == ESTIMATE_AFTER:
            self._reporter.note(f"about {duration(left_s)} left at the pace of the first {done} updates, source "
                                f"validation not counted")
        self._reporter.updated(Report(
            updates=position.updates, total=self._updates, epoch=position.epoch, epochs=self._epochs,
            loss=scalars["loss/total"], samples_per_s=self._samples_per_s, waiting_share=self._waiting_share,
            seconds_left=left_s))

    def epoch(self, kind: str, epoch: int, updates: int, scalars: Mapping[str, float]) -> None:
        """At an epoch's beginning (`epoch_start`) and end (`epoch_end`)."""
        if not self._leads:
            return
        self._metrics.write({"kind": kind, "epoch": epoch, "update": updates, **scalars})
        if self._curves is not None:
            self._curves.write(scalars, updates)

    def troubles(self, met: Iterable[FileTrouble]) -> None:
        """Writes and tells those that are new to the run."""
        if not self._leads:
            return
        for trouble in met:
            if (key := (str(trouble.path), str(trouble.modality))) not in self._told_troubles:
                self._told_troubles.add(key)
                self._troubles.write({"path": key[0], "modality": key[1], "kind": str(trouble.kind),
                                      "reason": trouble.reason})
                self._reporter.note(f"trouble: {trouble}")

    def close(self) -> None:
        """Closes all files; this process's troubles that are not written yet are."""
        if not self._leads:
            return
        self.troubles(self._data.troubles)
        for log in (self._metrics, self._timing, self._troubles, self._curves):
            if log is not None:
                log.close()

    def _close_interval(self, position: Position, scalars: Mapping[str, float]) -> None:
        now_s = self._clock()
        self._waiting_share = self._data.take_waiting_share()
        self._samples_per_s = self._interval_samples / max(now_s - self._interval_s, 1e-9)
        timing = {"samples_per_s": self._samples_per_s, "waiting_share": self._waiting_share}
        self._timing.write({"update": position.updates, "seconds": round(self.seconds(), 3), **timing})
        if self._curves is not None:
            self._curves.write({**scalars, **{f"time/{name}": value for name, value in timing.items()}},
                               position.updates)
        self._interval_s, self._interval_samples = now_s, 0
