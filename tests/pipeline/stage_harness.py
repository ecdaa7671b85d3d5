"""The real decision stage in a thread, on real ipc sockets, with this test in the place of cameras and supervisor."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from pipeline import messages
from pipeline.channels import DEALER, PULL, PUSH, Endpoints, Sockets, drain
from pipeline.decision_stage import DecisionStage, DecisionStageSettings
from pipeline.messages import Progress, Report
from pipeline.policy import Policy
from pipeline.stage_context import StageContext
from tests.pipeline.scene import CAMERA, MODEL, observation, score

#: Room for a busy machine: the default stall of 150 ms is tested with time as a value.
PATIENT = Policy(name="default", frame_correlation=0.0, min_frames=3, min_time_ms=0, uncertainty_weight=0.0,
                 stall_min_ms=1000.0)
WAIT_S = 10.0


class RunningStage:
    def __init__(self, runtime_dir: Any, *, kiosk: bool = True, **settings: Any) -> None:
        self.endpoints = Endpoints(str(runtime_dir))
        self.kiosk = f"ipc://{runtime_dir}/kiosk"
        self.settings = DecisionStageSettings(**({
            "policies": {"default": PATIENT}, "cameras": (CAMERA,), "model": MODEL,
            "kiosk_endpoint": self.kiosk if kiosk else None} | settings))
        self.sockets = Sockets()
        self.reports: list[dict[str, Any]] = []
        self.progress: list[Progress] = []
        self.sequence = 0
        self._failure: BaseException | None = None
        self._stop = threading.Event()

    def __enter__(self) -> RunningStage:
        self.supervisor = self.sockets.open(PULL, self.endpoints.progress, bind=True)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.observations = self.sockets.open(DEALER, self.endpoints.observations, bind=False)
        self.scores = self.sockets.open(PUSH, self.endpoints.scores, bind=False)
        self.control = self.sockets.open(PUSH, self.endpoints.control, bind=False)
        self.until(lambda: any(p.state == "running" for p in self.progress))
        return self

    def _run(self) -> None:
        context = StageContext("decision", self.endpoints, install_signals=False)
        self._request_stop = context.request_stop
        try:
            DecisionStage(context, self.settings).serve()
        except BaseException as error:  # told to the test, which would wait in vain otherwise
            self._failure = error
        finally:
            context.close(300)

    def stop(self) -> None:
        self._request_stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self.listen()

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self.sockets.close()
        if self._failure is not None:
            raise self._failure

    def listen(self) -> None:
        """Take what the supervisor would hear."""
        for frames in drain(self.supervisor):
            message = messages.decode(frames[0], messages.Message)
            if isinstance(message, Report):
                self.reports.append(json.loads(message.line))
            elif isinstance(message, Progress):
                self.progress.append(message)

    def until(self, condition: Any) -> None:
        end = time.monotonic() + WAIT_S
        while not condition():
            assert self._failure is None, self._failure
            assert time.monotonic() < end, "condition not met in time"
            self.supervisor.poll(20)
            self.listen()

    def see(self, **changes: Any) -> None:
        self.sequence += 1
        self.observations.send(messages.encode(observation(self.sequence, time.monotonic_ns(), **changes)))

    def hear(self, logit: float = 6.0, **changes: Any) -> None:
        self.scores.send(messages.encode(score(changes.pop("sequence", self.sequence), logit, **changes)))

    def both(self, frames: int, logit: float = 6.0) -> None:
        for _ in range(frames):
            self.see()
            self.hear(logit)

    def tell(self, message: messages.Message) -> None:
        self.control.send(messages.encode(message))

    def counter(self, name: str) -> int:
        return self.progress[-1].counters.get(name, 0) if self.progress else 0
