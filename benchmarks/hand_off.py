"""How old is a frame when a slow consumer gets it? PUB/SUB queues against hand-off on credit, in one run.

    python benchmarks/hand_off.py [--quick] [--seconds N] [--json]

One producer process at 30 messages a second, one consumer that works 100 ms on each, messages of 301 KB (224x224
colour, 16-bit depth, infrared), over ipc. Age = receipt minus the stamp at making, both CLOCK_MONOTONIC of this host.
The credit side sends the newest message only when the consumer has asked. This is the transport alone, without the
hub's rules (max age, several cameras).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import struct
import tempfile
import time
from pathlib import Path

from pipeline.channels import DEALER, PUB, ROUTER, SUB, Poller, drain, send_now, sockets

MESSAGE_BYTES = 224 * 224 * (3 + 2 + 1)
PRODUCER_PERIOD_NS = 33_333_333
CONSUMER_WORK_S = 0.1


def produce(endpoint: str, scheme: str, high_water_mark: int, seconds: float) -> None:
    """Make a stamped message each period; publish it, or keep the newest until it is asked for."""
    payload = bytes(MESSAGE_BYTES)
    with sockets() as opened:
        socket = opened.open(ROUTER if scheme == "credit" else PUB, endpoint, bind=True,
                             high_water_mark=high_water_mark, max_message_bytes=2 * MESSAGE_BYTES)
        poller = Poller(socket) if scheme == "credit" else None
        start = time.monotonic_ns()
        due, newest, asking = start, None, []
        while (now := time.monotonic_ns()) - start < seconds * 1e9:
            if now >= due:
                due += PRODUCER_PERIOD_NS
                newest = [struct.pack("<q", now), payload]
                if scheme != "credit":
                    send_now(socket, newest)
            wait_ms = max(0.0, (due - time.monotonic_ns()) / 1e6)
            if poller is None:
                time.sleep(wait_ms / 1e3)
                continue
            if poller.wait(wait_ms):
                asking = [message[0] for message in drain(socket)][-1:]
            if asking and newest:
                send_now(socket, [asking.pop(), *newest])
                newest = None


def measure(scheme: str, high_water_mark: int, seconds: float) -> list[float]:
    """Ages in ms at the consumer, in order of receipt."""
    ages: list[float] = []
    with tempfile.TemporaryDirectory() as folder, sockets() as opened:
        endpoint = f"ipc://{Path(folder) / 'frames'}"
        producer = multiprocessing.get_context("spawn").Process(
            target=produce, args=(endpoint, scheme, high_water_mark, seconds), daemon=True)
        producer.start()
        if scheme == "credit":
            socket = opened.open(DEALER, endpoint, bind=False, max_message_bytes=2 * MESSAGE_BYTES)
        else:
            socket = opened.open(SUB, endpoint, bind=False, high_water_mark=high_water_mark,
                                 max_message_bytes=2 * MESSAGE_BYTES, subscribe=b"")
        poller, waiting = Poller(socket), False
        while producer.is_alive():
            if scheme == "credit" and not waiting:
                waiting = send_now(socket, [b"READY"])
            if poller.wait(200):
                # One message, then work: a consumer that drained its queue first would only hide the queue's age.
                message = next(drain(socket, limit=1))
                waiting = False
                ages.append((time.monotonic_ns() - struct.unpack("<q", message[0])[0]) / 1e6)
                time.sleep(CONSUMER_WORK_S)
        producer.join()
    return ages


def main() -> None:
    """Print one row a scheme and the ratio of the last ages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--quick", action="store_true", help="3 seconds a scheme")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds = 3.0 if options.quick else options.seconds
    rows = {}
    for name, scheme, mark in (("PUB/SUB, default mark", "pub", 1000), ("PUB/SUB, mark 1", "pub", 1),
                               ("credit", "credit", 1000)):
        ages = measure(scheme, mark, seconds)
        if len(ages) < 5:
            raise SystemExit(f"{name}: only {len(ages)} messages arrived in {seconds:g} s")
        rows[name] = {"received": len(ages), "p50_ms": statistics.median(ages),
                      "p95_ms": statistics.quantiles(ages, n=20)[18], "last_ms": ages[-1]}
    if options.json:
        print(json.dumps({"seconds": seconds, "schemes": rows}))
        return
    for name, row in rows.items():
        print(f"{name:22} received {row['received']:4}  age p50 {row['p50_ms']:7.1f} ms  p95 {row['p95_ms']:7.1f} ms  "
              f"at the end {row['last_ms']:7.1f} ms  ({row['p50_ms'] / rows['credit']['p50_ms']:.1f} x credit's p50)")


if __name__ == "__main__":
    main()
