"""Starts the processes, watches their progress, restarts them within a budget, stops them in order.

Order of a breach: the decision process is told first, so that an open session ends `undecided` at once; only then is
the process ended (SIGTERM, SIGKILL) and started again. Cameras start when the first inference worker is ready.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgspec

from mmdg_model.stored_inputs import stored_image_size
from pipeline import messages
from pipeline.camera_stage import CameraStageSettings
from pipeline.camera_stage import run as run_camera
from pipeline.channels import PULL, PUSH, Endpoints, Poller, Sockets, drain, make_runtime_dir, send_now
from pipeline.config import Settings, load_calibration, worker_threads
from pipeline.decision_stage import DecisionStageSettings
from pipeline.decision_stage import run as run_decision
from pipeline.hub_stage import run as run_hub
from pipeline.inference_stage import InferenceSettings
from pipeline.inference_stage import run as run_inference
from pipeline.messages import MessageError, ProcessEvent, Progress, Report
from pipeline.process_watch import Health, ProcessWatch
from pipeline.restart_budget import RestartBudget

LOG = logging.getLogger("supervisor")
TERMINATE_WITHIN_S = 2.0


class ExitCode(IntEnum):
    """Exit codes of `mmdg-live` (documented in its --help)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_DEVICE = 3
    CORRUPT_RECORDING = 4
    MODEL_REFUSED = 5
    RELEASE_REFUSED = 6


#: What a process said it cannot run with -> exit code.
FATAL_EXIT_CODES = {"no_device": ExitCode.NO_DEVICE, "corrupt_stream": ExitCode.CORRUPT_RECORDING,
                    "model_refused": ExitCode.MODEL_REFUSED, "sockets_refused": ExitCode.USAGE,
                    "no_face_model": ExitCode.USAGE, "audit_refused": ExitCode.USAGE,
                    "release_refused": ExitCode.RELEASE_REFUSED}


def release_facts(settings: Settings) -> dict[str, str]:
    """What the audit log tells of a start: hashes of the whole configuration and of the manifest that covers it."""
    facts = {"configuration_sha256": hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()}
    if settings.manifest.path is not None:
        facts["manifest_sha256"] = hashlib.sha256(Path(settings.manifest.path).read_bytes()).hexdigest()
    return facts


@dataclass
class Child:
    """One process that is kept running."""

    name: str
    role: str
    target: Callable[..., None]
    arguments: tuple[Any, ...]
    budget: RestartBudget
    process: multiprocessing.process.BaseProcess | None = None
    watch: ProcessWatch | None = None
    start_at_s: float | None = None  # None: not to be started
    announced: bool = False
    ever_ready: bool = False
    last: Progress | None = None


@dataclass
class Outcome:
    """How a run ended: restarts, last counters and last sequence by process."""

    exit_code: ExitCode = ExitCode.OK
    error: str | None = None
    restarts: dict[str, int] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)


class Supervisor:
    """Runs one pipeline. `on_report` receives each JSON line of the decision process; `should_stop` is polled.

    Raises:
        OperatingPointFileError, PolicyError: the configured calibration cannot be used with this model or policy.
    """

    def __init__(self, settings: Settings, model: Path, *, on_report: Callable[[str], None],
                 should_stop: Callable[[], bool], report_scores: bool = False) -> None:
        self.settings = settings
        self.calibration = load_calibration(settings, model)
        self.on_report = on_report
        self.should_stop = should_stop
        self.report_scores = report_scores
        self.outcome = Outcome()
        self._own_runtime_dir = settings.runtime_dir is None
        self.runtime_dir = make_runtime_dir(settings.runtime_dir)
        self.endpoints = Endpoints(str(self.runtime_dir))
        self._spawn = multiprocessing.get_context("spawn")
        self._stopping = False
        self._model = model
        self.children = {child.name: child for child in self._plan()}

    def _plan(self) -> list[Child]:
        settings = self.settings
        limits = settings.supervisor

        def child(name: str, role: str, target: Callable[..., None], *arguments: Any) -> Child:
            return Child(name, role, target, (name, self.endpoints, *arguments),
                         RestartBudget(limits.max_restarts, limits.restart_window_s))

        decision = DecisionStageSettings(
            policies={settings.policy.name: settings.policy}, local_policy=settings.policy.name,
            kiosk_endpoint=settings.kiosk.endpoint, roles=settings.kiosk.roles,
            transport=settings.kiosk.transport,
            cameras=tuple(camera.name for camera in settings.cameras), report_scores=self.report_scores,
            calibration=self.calibration,
            audit=settings.audit.settings, lockout=settings.lockout.limits,
            lockout_path=None if settings.lockout.path is None else Path(settings.lockout.path),
            release=release_facts(settings))
        inference = InferenceSettings(model=self._model, expected_sha256=settings.inference.sha256,
                                      threads=worker_threads(settings), backend=settings.inference.backend,
                                      precision=settings.inference.precision)
        plan = [child("decision", "decision", run_decision, decision),
                child("hub", "hub", run_hub, settings.hub.max_age_ms)]
        plan += [child(f"inference-{i}", "inference", run_inference, inference)
                 for i in range(settings.inference.workers)]
        plan += [child(f"camera-{camera.name}", "camera", run_camera, CameraStageSettings(
            camera=camera, detection=settings.detection, crop=settings.crop, crop_size=stored_image_size(self._model)))
            for camera in settings.cameras]
        return plan

    # --- the run ----------------------------------------------------------------------------------------------------
    def run(self) -> Outcome:
        """Until `should_stop`, until every camera has ended, or until something cannot be kept running."""
        # libgomp's idle threads spin by default and starve the cameras (measured: 16 times slower on two cores).
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        with Sockets() as opened:
            self._progress = opened.open(PULL, self.endpoints.progress, bind=True)
            self._control = opened.open(PUSH, self.endpoints.control, bind=False)
            poller = Poller(self._progress)
            now_s = time.monotonic()
            for child in self.children.values():
                if child.role != "camera":
                    child.start_at_s = now_s
            try:
                while not self.should_stop() and self.outcome.error is None and not self._all_cameras_ended():
                    self._start_due(time.monotonic())
                    poller.wait(50)
                    self._read_progress()
                    self._judge(time.monotonic())
            finally:
                self._stop_all(poller)
        self._remove_runtime_dir()
        return self.outcome

    def _all_cameras_ended(self) -> bool:
        cameras = [child for child in self.children.values() if child.role == "camera"]
        return all(child.last is not None and child.last.state == "ended" and child.start_at_s is None
                   and child.last.detail.get("reason") != "device_lost" for child in cameras)

    def _start_due(self, now_s: float) -> None:
        # Cameras come last: the first frame must find everyone who has to know of it.
        ready = {child.role for child in self.children.values() if child.announced}
        for child in self.children.values():
            if child.role == "camera" and child.process is None and child.start_at_s is None and child.last is None \
                    and ready >= {"decision", "hub", "inference"}:
                child.start_at_s = now_s
            if child.start_at_s is not None and now_s >= child.start_at_s:
                child.start_at_s = None
                self._start(child, now_s)

    def _start(self, child: Child, now_s: float) -> None:
        child.process = self._spawn.Process(target=child.target, args=child.arguments, name=child.name)
        child.process.start()
        child.watch = ProcessWatch(now_s, self.settings.supervisor.silent_after_s,
                                   self.settings.supervisor.start_within_s)
        child.announced, child.last = False, None
        LOG.info("started %s as process %s", child.name, child.process.pid)

    def _read_progress(self) -> None:
        for frames in drain(self._progress):
            try:
                message: Progress | Report = self._decode(frames[-1])
            except MessageError as error:
                LOG.warning("dropped: %s", error)
                continue
            if isinstance(message, Report):
                self.on_report(message.line)
                continue
            child = self.children.get(message.process)
            if child is None or child.process is None or child.watch is None or child.process.pid != message.pid:
                continue  # the last words of a process that was replaced
            child.watch.heard(message.state, time.monotonic())
            child.last = message
            self.outcome.counters[child.name] = message.counters
            self.outcome.sequences[child.name] = message.sequence
            if message.state == "ready" and not child.announced:
                child.announced = child.ever_ready = True
                LOG.info("%s is ready", child.name)
                self._tell_decision(child, "ready", message.detail)

    @staticmethod
    def _decode(data: bytes) -> Progress | Report:
        try:
            return messages.decode(data, Progress)
        except MessageError:
            return messages.decode(data, Report)

    def _tell_decision(self, child: Child, event: str, detail: dict[str, str]) -> None:
        if child.role == "decision":
            # A (re)started decision process has to hear who is there and which cameras are not.
            if event == "ready":
                for other in self.children.values():
                    if other.role != "decision" and other.announced and other.last is not None:
                        self._tell_decision(other, "ready", other.last.detail)
                    elif other.role == "camera":
                        self._tell_decision(other, "lost", {"health": "starting"})
            return
        if child.role == "camera":
            detail = {**detail, "camera": child.name.removeprefix("camera-")}
        send_now(self._control, [messages.encode(ProcessEvent(
            process=child.name, role=child.role, event=event, stamp_ns=time.monotonic_ns(), detail=detail))])

    def _judge(self, now_s: float) -> None:
        for child in self.children.values():
            if child.process is None or child.watch is None:
                continue
            health = child.watch.health(now_s, alive=child.process.is_alive())
            if health in (Health.STARTING, Health.SERVING):
                continue
            detail = child.last.detail if child.last is not None else {}
            if health is Health.ENDED and detail.get("reason") != "device_lost":
                self._reap(child)
                if detail.get("reason") == "corrupt_stream":
                    self._fail(detail["detail"], ExitCode.CORRUPT_RECORDING)
                continue
            self._tell_decision(child, "lost", {"health": health.value, **detail})
            exit_code = self._reap(child)
            if health is Health.FAILED and not child.ever_ready:
                # It cannot run with what it was given; trying again would only hide that. (A camera that worked
                # before and is not found now was unplugged: it is tried again within the budget.)
                self._fail(detail.get("error", "unknown"), FATAL_EXIT_CODES.get(detail.get("fatal", ""),
                                                                                ExitCode.FAILED))
                continue
            self.outcome.restarts[child.name] = self.outcome.restarts.get(child.name, 0) + 1
            child.start_at_s = child.budget.next_start_s(now_s)
            LOG.warning("%s is %s (exit code %s)%s", child.name, health.value, exit_code,
                        "" if child.start_at_s is None else f", starting again in {child.start_at_s - now_s:.1f} s")
            if child.start_at_s is None:
                last_words = detail.get("detail") or detail.get("error") or health.value
                self._fail(f"{child.name} ended {child.budget.max_restarts + 1} times within "
                           f"{child.budget.window_s:g} s; last: {last_words}. Run `mmdg doctor`; MMDG_LOG=info shows "
                           "more", ExitCode.FAILED)

    def _fail(self, error: str, exit_code: ExitCode) -> None:
        """End the run; the first reason is the one that is told."""
        if self.outcome.error is None:
            self.outcome.error, self.outcome.exit_code = error, exit_code

    def _reap(self, child: Child) -> int | None:
        """End the process for certain: wait for one that says it ended, else SIGTERM, then SIGKILL."""
        process, child.process = child.process, None
        assert process is not None
        said_end = child.last is not None and child.last.state in ("ended", "failed")
        if said_end:
            process.join(TERMINATE_WITHIN_S)
        if process.is_alive():
            process.terminate()
            process.join(TERMINATE_WITHIN_S)
        if process.is_alive():
            LOG.warning("%s ignores SIGTERM, killing it", child.name)
            process.kill()
            process.join()
        return process.exitcode

    # --- the stop ---------------------------------------------------------------------------------------------------
    def _stop_all(self, poller: Poller) -> None:
        """Cameras first, the decision process last, so that its final words are heard."""
        for role in ("camera", "inference", "hub", "decision"):
            running = [child for child in self.children.values() if child.role == role and child.process is not None]
            for child in running:
                assert child.process is not None
                child.process.terminate()
            deadline_s = time.monotonic() + TERMINATE_WITHIN_S
            while any(c.process is not None and c.process.is_alive() for c in running) \
                    and time.monotonic() < deadline_s:
                poller.wait(20)
                self._read_progress()
            for child in running:
                if child.process is not None:
                    if child.process.is_alive():
                        LOG.warning("%s ignores SIGTERM, killing it", child.name)
                        child.process.kill()
                    child.process.join()
                    child.process = None
        poller.wait(20)
        self._read_progress()

    def _remove_runtime_dir(self) -> None:
        if not self._own_runtime_dir:
            return
        for path in self.runtime_dir.iterdir():
            path.unlink()
        self.runtime_dir.rmdir()
