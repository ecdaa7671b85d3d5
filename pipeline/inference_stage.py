"""The inference worker: asks the hub for bundles on credit, scores them, tells the decision process."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmdg_model.scorer import KnownAnswerError, Scorer, ScoringError
from pipeline import messages
from pipeline.bundle import read_header, unpack
from pipeline.channels import DEALER, PUSH, Endpoints, Poller, drain, send_now
from pipeline.messages import BundleHeader, MessageError, Ready, Score
from pipeline.stage_context import StageContext

if TYPE_CHECKING:
    from mmdg_model.backends.engine_scorer import EngineScorer

READY_PERIOD_NS = 200_000_000


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """What a worker is started with.

    Attributes:
        model: checkpoint, or the folder of an exported model. expected_sha256: refuse any other.
        threads: of the network's arithmetic. backend, precision: see `mmdg_model.backends.make_scorer`; precision None
            is float32 for a checkpoint, and an exported model's own.
    """

    model: Path
    expected_sha256: str | None = None
    threads: int = 1
    backend: str = "auto"
    precision: str | None = None


def _failed(header: BundleHeader, scorer: Scorer, worker: str, reason: str) -> Score:
    return Score(camera=header.camera, source=header.source, epoch=header.epoch, sequence=header.sequence,
                 track_id=header.track_id, worker=worker, logit=0.0, probability=0.0, uncertainty={}, modalities=[],
                 model_hash=scorer.model_hash, purpose=scorer.purpose.value, durations_ms={},
                 stamps_ns=header.stamps_ns, quality=header.quality, failed=reason)


def score_bundle(scorer: Scorer, frames: Sequence[bytes | memoryview], worker: str, received_ns: int) -> Score:
    """Score one bundle. A bundle that cannot be scored gives a `Score` with `failed` set, which is never evidence.

    Raises:
        MessageError: the header itself cannot be read, so that nobody could be told.
    """
    header = read_header(frames)
    started_ns = time.monotonic_ns()
    try:
        _, planes = unpack(frames)
        liveness = scorer.score([planes])[0]
    except (ValueError, ScoringError) as error:  # a malformed plane, a wrong shape, a score that is not a number
        return _failed(header, scorer, worker, str(error))
    return Score(
        camera=header.camera, source=header.source, epoch=header.epoch, sequence=header.sequence,
        track_id=header.track_id, worker=worker, logit=liveness.logit, probability=liveness.probability,
        uncertainty={m.value: u for m, u in liveness.uncertainty.items()},
        modalities=[m.value for m in liveness.modalities], model_hash=liveness.model_hash,
        purpose=scorer.purpose.value, durations_ms=liveness.durations_ms,
        stamps_ns={**header.stamps_ns, "received": received_ns, "inference_start": started_ns,
                   "inference_end": time.monotonic_ns()}, quality=header.quality)


def load_scorer(settings: InferenceSettings) -> EngineScorer:
    """Load, verify, warm up and self-test the network; see `mmdg_model.backends.make_scorer`."""
    from mmdg_model.backends import make_scorer

    precision = settings.precision or ("auto" if settings.model.is_dir() else "float32")
    return make_scorer(settings.model, backend=settings.backend, precision=precision,
                       threads=settings.threads, expected_hash=settings.expected_sha256)


def run(name: str, endpoints: Endpoints, settings: InferenceSettings) -> None:
    """Serve until asked to stop. Any error of the accelerator ends the process: its state cannot be trusted after."""
    from mmdg_model.backends import BackendError
    from mmdg_model.backends.exported_model import ExportedModelError
    from mmdg_model.checkpoint import CheckpointError

    context = StageContext(name, endpoints)
    counters: Counter[str] = Counter()
    try:
        context.progress("starting", 0)
        try:
            scorer = load_scorer(settings)
        except (BackendError, CheckpointError, ExportedModelError, KnownAnswerError) as error:
            context.progress("failed", 0, detail={"error": str(error), "fatal": "model_refused"})
            return
        worker = f"{name}-{os.getpid()}"
        hub = context.sockets.open(DEALER, endpoints.credit, bind=False, identity=worker.encode(),
                                   max_message_bytes=messages.MAX_PLANE_BYTES, high_water_mark=4)
        decision = context.sockets.open(PUSH, endpoints.scores, bind=False)
        poller = Poller(hub)
        credit, asked_ns = 0, 0
        identification = {"model_hash": scorer.model_hash, "purpose": scorer.purpose.value, "worker": worker,
                          "arithmetic": str(scorer.description)}
        if scorer.operating_point is not None:
            identification["operating_point"] = json.dumps(scorer.operating_point.to_dict(), sort_keys=True)
        context.progress("ready", 0, detail=identification)
        while not context.stop_requested:
            now_ns = time.monotonic_ns()
            if now_ns - asked_ns >= READY_PERIOD_NS:
                send_now(hub, [messages.encode(Ready(worker=worker, credit=credit))])
                asked_ns = now_ns
            poller.wait(50)
            for frames in drain(hub):
                received_ns = time.monotonic_ns()
                try:
                    score = score_bundle(scorer, frames, worker, received_ns)
                except MessageError as error:
                    counters["malformed_bundle"] += 1
                    context.log.warning("bundle dropped: %s", error)
                else:
                    counters["failed" if score.failed else "scored"] += 1
                    if not send_now(decision, [messages.encode(score)]):
                        counters["decision_unreachable"] += 1
                credit, asked_ns = credit + 1, 0
            context.progress("running", credit, counters, identification)
        context.progress("stopped", credit, counters, identification)
    finally:
        context.close()
