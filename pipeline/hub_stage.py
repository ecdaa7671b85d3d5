"""The hub's process: two ROUTER sockets around `hub.Hub`."""

from __future__ import annotations

import time

from pipeline import messages
from pipeline.channels import ROUTER, Endpoints, Poller, drain, send_now
from pipeline.hub import Hub
from pipeline.stage_context import StageContext


def run(name: str, endpoints: Endpoints, max_age_ms: float) -> None:
    """Serve until asked to stop."""
    context = StageContext(name, endpoints)
    try:
        # Every camera sends one multipart message a frame and the hub reads at once: a short queue is enough.
        cameras = context.sockets.open(ROUTER, endpoints.bundles, bind=True, high_water_mark=2,
                                       max_message_bytes=messages.MAX_PLANE_BYTES)
        workers = context.sockets.open(ROUTER, endpoints.credit, bind=True, router_mandatory=1)
        poller = Poller(cameras, workers)
        hub = Hub(max_age_ms=max_age_ms)
        handed = 0
        context.progress("ready", handed)
        while not context.stop_requested:
            poller.wait(50)
            now_ns = time.monotonic_ns()
            for _, *frames in drain(cameras):
                hub.offer(frames, now_ns)
            for identity, *frames in drain(workers):
                hub.ready(identity, frames[0] if len(frames) == 1 else b"", now_ns)
            for handout in hub.hand_out(now_ns):
                if send_now(workers, [handout.identity, *handout.frames]):
                    handed += 1
                else:
                    hub.undeliverable(handout)
            context.progress("running", handed, hub.counters)
        context.progress("stopped", handed, hub.counters)
    finally:
        context.close()
