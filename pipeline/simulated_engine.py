"""An engine for integrators: the real decision process and kiosk socket, before a camera that is made up.

It starts within a second and needs neither a camera nor torch. Sessions, verdicts, guidance, signatures and limits are
those of the product; observations and scores come from `pipeline.synthetic_scene`, and every decision says `simulated`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mmdg_model.scorer import Purpose
from pipeline import messages
from pipeline.channels import DEALER, PULL, PUSH, ChannelError, Endpoints, Sockets, drain, make_runtime_dir, send_now
from pipeline.decision_stage import DecisionStage, DecisionStageSettings
from pipeline.kiosk_sockets import TransportSettings
from pipeline.messages import MessageError, Observation, Progress, Report, Score
from pipeline.policy import Policy
from pipeline.security import Role, RoleMap
from pipeline.stage_context import StageContext
from pipeline.synthetic_scene import SYNTHETIC_MODEL, SyntheticFaults, SyntheticScene

#: For synthetic scores: the default, but for a purpose that decides on simulated cameras alone.
SYNTHETIC_POLICY = Policy(allowed_purposes=(Purpose.RELEASE, Purpose.SIMULATED))
_STARTS_WITHIN_S = 10.0


@dataclass(frozen=True, kw_only=True)
class SimulatedEngineSettings:
    """endpoint: `ipc://PATH`, or `tcp://HOST:PORT` with keys. cameras: scene by name.

    role: of programs of our own user, on ipc. transport: keys and limits; the keys' folder signs the decisions.
    approach_ms: how long a person is too far away when a session begins.
    """

    endpoint: str
    cameras: Mapping[str, str] = field(default_factory=lambda: {"front": "bona_fide"})
    faults: SyntheticFaults = field(default_factory=SyntheticFaults)
    policies: Mapping[str, Policy] = field(default_factory=lambda: {"default": SYNTHETIC_POLICY})
    role: Role = Role.KIOSK
    transport: TransportSettings = field(default_factory=TransportSettings)
    approach_ms: float = 500.0
    seed: int = 0


class SimulatedEngine:
    """Runs between `with`; `serve` feeds it. Ends every open session `undecided` when it is left."""

    def __init__(self, settings: SimulatedEngineSettings, on_report: Callable[[str], None] = lambda _: None) -> None:
        self.settings = settings
        self.on_report = on_report
        self.error: BaseException | None = None
        self._runtime_dir = make_runtime_dir()
        self._endpoints = Endpoints(str(self._runtime_dir))
        self._sockets = Sockets()
        self._running = threading.Event()
        self._context: StageContext | None = None
        self._scenes: dict[str, SyntheticScene] = {}

    def __enter__(self) -> SimulatedEngine:
        self._supervisor = self._sockets.open(PULL, self._endpoints.progress, bind=True)
        self._thread = threading.Thread(target=self._run, name="decision")
        self._thread.start()
        self._observations = self._sockets.open(DEALER, self._endpoints.observations, bind=False)
        self._scores = self._sockets.open(PUSH, self._endpoints.scores, bind=False)
        self._control = self._sockets.open(PUSH, self._endpoints.control, bind=False)
        end = time.monotonic() + _STARTS_WITHIN_S
        while not self._running.is_set() and self.error is None and time.monotonic() < end:
            self._listen(20)
        if not self._running.is_set():
            self._close()
            raise self.error or TimeoutError(f"the decision process did not start within {_STARTS_WITHIN_S:g} s")
        now_ns = time.monotonic_ns()
        self._scenes = {camera: SyntheticScene(camera, scene, faults=self.settings.faults, seed=self.settings.seed + i,
                                               now_ns=now_ns, approach_ms=self.settings.approach_ms)
                        for i, (camera, scene) in enumerate(self.settings.cameras.items())}
        return self

    def _run(self) -> None:
        context = self._context = StageContext("decision", self._endpoints, install_signals=False)
        try:
            DecisionStage(context, DecisionStageSettings(
                policies=self.settings.policies, local_policy=next(iter(self.settings.policies)),
                cameras=tuple(self.settings.cameras), model=SYNTHETIC_MODEL, kiosk_endpoint=self.settings.endpoint,
                roles=RoleMap(uids={os.getuid(): self.settings.role}),
                transport=self.settings.transport, synthetic=True)).serve()
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
            self.error = error
        finally:
            context.close(300)

    def serve(self, should_stop: Callable[[], bool]) -> None:
        """Feed the scenes in real time until `should_stop`.

        Raises:
            ChannelError: the decision process has ended; or what it ended with.
        """
        while not should_stop():
            if self.error is not None:
                raise self.error
            if not self._thread.is_alive():
                raise ChannelError("the decision process has ended; nothing is served any more")
            now_ns = time.monotonic_ns()
            for scene in self._scenes.values():
                for message in scene.step(now_ns):
                    self._send(message)
            due_ns = min(scene.next_due_ns() for scene in self._scenes.values())
            self._listen(max(0.0, min(50.0, (due_ns - time.monotonic_ns()) / 1e6)))

    def _send(self, message: messages.Message) -> None:
        socket = self._observations if isinstance(message, Observation) else (
            self._scores if isinstance(message, Score) else self._control)
        send_now(socket, [messages.encode(message)])  # never wait for a decision process that has ended

    def _listen(self, wait_ms: float) -> None:
        """Take what a supervisor would hear."""
        self._supervisor.poll(round(wait_ms))
        for frames in drain(self._supervisor):
            try:
                message = messages.decode(frames[0], messages.Message)
            except MessageError:
                continue
            if isinstance(message, Progress) and message.state == "running":
                self._running.set()
            elif isinstance(message, Report):
                event = json.loads(message.line)
                if event.get("type") == "session.started" and event.get("camera") in self._scenes:
                    self._scenes[event["camera"]].session_began(time.monotonic_ns())
                self.on_report(message.line)

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._context is not None:
            self._context.request_stop()
        self._thread.join()
        self._listen(0)
        self._sockets.close()
        for path in self._runtime_dir.iterdir():
            path.unlink()
        self._runtime_dir.rmdir()
