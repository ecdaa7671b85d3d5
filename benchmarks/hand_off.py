"""Age of a bundle when a slow worker starts on it: credit hand-off against ZeroMQ's usual patterns, in one run.

A camera process sends crops (224 x 224, colour + depth + infrared with masks, 320 kB) at 30 a second; a worker takes
100 ms for each. Printed for each pattern: p50 and p95 of the age (arrival stamp to worker), and for the credit
hand-off also the one-way time of an unhurried bundle. Same machine, same bundles, one pattern after the other.

    python benchmarks/hand_off.py [--quick] [--seconds 8] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.synchronize
import os
import shutil
import time

import numpy as np
import zmq

from align.face_crop import CropQuality, FaceCrop
from capture.frames import ClockDomain, Frame, FrameSet, StreamKind
from pipeline import messages
from pipeline.bundle import pack, read_header
from pipeline.channels import DEALER, Endpoints, Poller, Sockets, drain, make_runtime_dir, send_now
from pipeline.hub_stage import run as run_hub
from pipeline.messages import Ready

FRAME_RATE = 30.0
WORK_S = 0.100
SIDE = 224
GOAL_P95_MS = 1e3 / FRAME_RATE + 5.0


def crop() -> FaceCrop:
    rng = np.random.default_rng(0)
    mask = np.ones((SIDE, SIDE), bool)
    return FaceCrop(
        view=StreamKind.COLOUR, track_id=0, sequence=0, colour=rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8),
        colour_valid=mask, depth=rng.integers(4000, 9000, (SIDE, SIDE)).astype(np.uint16), depth_valid=mask,
        infrared=rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8), infrared_valid=mask,
        quality=CropQuality(face_width_px=150, distance_m=0.6, sharpness=80, brightness=120, depth_fill=1,
                            infrared_brightness=0.4, infrared_saturation=0, yaw_deg=0, pitch_deg=0, roll_deg=0))


def produce(kind: int, endpoint: str, seconds: float, high_water_mark: int | None,
            started: multiprocessing.synchronize.Event) -> None:
    """A camera: one packed bundle each frame period, stamped when it arrives and when it is sent."""
    face = crop()
    colour = Frame(kind=StreamKind.COLOUR, pixels=np.zeros((4, 4, 3), np.uint8), frame_number=0, sensor_timestamp_ns=0,
                   clock_domain=ClockDomain.SIMULATED, arrival_ns=0)
    with Sockets() as opened:
        bind = kind in (zmq.PUB, zmq.PUSH)
        socket = opened.open(kind, endpoint, bind=bind, high_water_mark=high_water_mark or 1000,
                             **({} if bind else {"immediate": 1}))
        started.wait()
        begin_s = time.monotonic()
        for sequence in range(int(seconds * FRAME_RATE)):
            time.sleep(max(0.0, begin_s + sequence / FRAME_RATE - time.monotonic()))
            frame_set = FrameSet(source="SYNTHETIC", epoch=1, sequence=sequence, colour=colour)
            now_ns = time.monotonic_ns()
            send_now(socket, pack(face, frame_set, camera="camera", rig_hash="", lockstep=False,
                                  stamps_ns={"arrival": now_ns, "sent": time.monotonic_ns()}))


def summary(ages_ms: list[float]) -> dict[str, float]:
    # The first second fills the queues and warms the caches.
    settled = ages_ms[int(1.0 / WORK_S):] or ages_ms
    p50, p95 = np.percentile(settled, [50, 95])
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2), "bundles": len(settled)}


def age_ms(frames: list[bytes], now_ns: int, stamp: str = "arrival") -> float:
    return (now_ns - read_header(frames).stamps_ns[stamp]) / 1e6


def measure_credit(seconds: float, work_s: float) -> tuple[list[float], list[float]]:
    """Ages at the worker, and one-way times (sent to received) through the real hub process."""
    spawn = multiprocessing.get_context("spawn")
    folder = make_runtime_dir()
    endpoints = Endpoints(str(folder))
    started = spawn.Event()
    hub = spawn.Process(target=run_hub, args=("hub", endpoints, 250.0), daemon=True)
    camera = spawn.Process(target=produce, args=(DEALER, endpoints.bundles, seconds, 2, started), daemon=True)
    ages, one_way = [], []
    with Sockets() as opened:
        hub.start()
        camera.start()
        socket = opened.open(DEALER, endpoints.credit, bind=False, identity=b"worker",
                             max_message_bytes=messages.MAX_PLANE_BYTES)
        poller, credit, asked_s = Poller(socket), 0, 0.0
        started.set()
        while camera.is_alive():
            if time.monotonic() - asked_s > 0.2:
                send_now(socket, [messages.encode(Ready(worker="worker", credit=credit))])
                asked_s = time.monotonic()
            poller.wait(50)
            for frames in drain(socket):
                now_ns = time.monotonic_ns()
                ages.append(age_ms(frames, now_ns))
                one_way.append(age_ms(frames, now_ns, "sent"))
                time.sleep(work_s)
                credit, asked_s = credit + 1, 0.0
        hub.terminate()
        hub.join()
    shutil.rmtree(folder)
    return ages, one_way


def measure_queue(kind: int, seconds: float, high_water_mark: int | None) -> list[float]:
    """The same camera and worker over PUB/SUB or PUSH/PULL."""
    spawn = multiprocessing.get_context("spawn")
    folder = make_runtime_dir()
    endpoint = f"ipc://{folder}/queue"
    started = spawn.Event()
    camera = spawn.Process(target=produce, args=(kind, endpoint, seconds, high_water_mark, started), daemon=True)
    ages = []
    with Sockets() as opened:
        receiving = {zmq.PUB: zmq.SUB, zmq.PUSH: zmq.PULL}[kind]
        options = {"subscribe": b""} if receiving == zmq.SUB else {}
        socket = opened.open(receiving, endpoint, bind=False, high_water_mark=high_water_mark or 1000,
                             max_message_bytes=messages.MAX_PLANE_BYTES, **options)
        camera.start()
        started.set()
        poller = Poller(socket)
        while camera.is_alive():
            poller.wait(50)
            for frames in drain(socket, limit=1):
                ages.append(age_ms(frames, time.monotonic_ns()))
                time.sleep(WORK_S)
    camera.join()
    shutil.rmtree(folder)
    return ages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each pattern's run")
    parser.add_argument("--quick", action="store_true", help="a shorter run")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds = min(arguments.seconds, 4.0)
    credit, _ = measure_credit(arguments.seconds, WORK_S)
    _, one_way = measure_credit(min(arguments.seconds, 4.0), 0.0)
    results = {
        "credit (ours)": summary(credit),
        "PUSH/PULL, HWM 1": summary(measure_queue(zmq.PUSH, arguments.seconds, 1)),
        "PUB/SUB, HWM 1": summary(measure_queue(zmq.PUB, arguments.seconds, 1)),
        "PUB/SUB, default HWM": summary(measure_queue(zmq.PUB, arguments.seconds, None)),
    }
    ours = results["credit (ours)"]["p95_ms"]
    report = {"age_at_inference": results, "one_way_hand_off": summary(one_way), "goal_p95_ms": round(GOAL_P95_MS, 1),
              "ratio_p95_to_ours": {name: round(r["p95_ms"] / ours, 1) for name, r in results.items()},
              "cores": os.cpu_count()}
    if arguments.json:
        print(json.dumps(report))
        return
    print(f"age of a bundle at inference: {FRAME_RATE:g} fps camera, {1 / WORK_S:g} fps worker, {os.cpu_count()} cores "
          f"(goal p95 <= {GOAL_P95_MS:.1f} ms)")
    for name, result in results.items():
        print(f"  {name:22} p50 {result['p50_ms']:8.1f} ms   p95 {result['p95_ms']:8.1f} ms   "
              f"{report['ratio_p95_to_ours'][name]:6.1f} x ours   n={result['bundles']}")
    way = report["one_way_hand_off"]
    print(f"one-way hand-off, camera -> hub -> worker, idle worker: p50 {way['p50_ms']} ms, p95 {way['p95_ms']} ms")


if __name__ == "__main__":
    main()
