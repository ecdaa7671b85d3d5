"""The kiosk socket in wall-clock time, against its goals: answers, guidance, deadlines, lost cameras, crashed workers.

    python benchmarks/kiosk.py [--json] [--quick] [--only answers,guidance,deadlines,losses] [--sessions 1000]

Engines are real processes: `mmdg-live` with a *simulated* camera and the checkpoint that comes with the program, and
`mmdg kiosk simulate`, whose observations and scores are made up. Times are taken by a client in this process, with its
own monotonic clock, and hold everything between: a busy machine shows in them, so the load is printed, and how long a
process that does nothing else takes to echo a line. In all sessions no number of frames is enough for a verdict. Exit
code 1: a goal was missed (--quick: never, it measures too few).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.kiosk_client import KioskClient, KioskDecision, KioskError, KioskSession

PARTS = ("answers", "guidance", "deadlines", "losses")
#: No verdict, so that sessions last. A loss has to be noticed by something else than the stall limit: for a camera of
#: ten frames a second it is above the goal anyway, and a busy machine that renders the frames would trip over it.
UNDECIDED = {"allowed_purposes": ["release", "simulated"], "min_frames": 1000, "deadline_ms": 10_000,
             "keepalive_ms": 5000, "stall_min_ms": 1000}
#: Each connection may send 20 commands a second.
CONNECTIONS, COMMANDS_PER_S = 8, 15.0
DEADLINE_MS = 500
SIMULATED_ENGINES = 4  # of two cameras each
SIMULATED_PERIOD_MS, LIVE_PERIOD_MS = 1000 / 30, 100.0  # of `pipeline.synthetic_scene`, of the simulated camera
_STARTED = re.compile(r"started (?P<name>[\w-]+) as process (?P<pid>\d+)")
_SERVES_WITHIN_S = 120.0


@dataclass(frozen=True)
class Figure:
    """One line of the table. goal: None = told beside the others, without one."""

    what: str
    statistic: str
    value: float
    unit: str
    goal: float | None
    count: int

    @property
    def reached(self) -> bool | None:
        return None if self.goal is None else self.value <= self.goal


def figures(what: str, values: list[float], unit: str, goals: dict[str, float | None]) -> list[Figure]:
    """One figure for each statistic: `p50`, `p99`, `p99.9`, `max`."""
    if not values:
        raise SystemExit(f"{what}: nothing was measured")
    return [Figure(what, name, float(np.max(values) if name == "max" else np.percentile(values, float(name[1:]))), unit,
                   goal, len(values)) for name, goal in goals.items()]


@dataclass
class Engine:
    """A running engine: its endpoint, the processes of its pipeline by name, how many scores it has told."""

    endpoint: str
    process: subprocess.Popen[str]
    pids: dict[str, int] = field(default_factory=dict)
    scores: int = 0
    log: list[str] = field(default_factory=list)

    def client(self) -> KioskClient:
        client = KioskClient(self.endpoint, name="benchmark", timeout_s=10.0)
        client.hello()
        return client

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := _STARTED.search(line):
                self.pids[found["name"]] = int(found["pid"])

    def _read_reports(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.scores += '"type":"score"' in line


@contextmanager
def running(endpoint: str, *command: str) -> Iterator[Engine]:
    """An engine, from when its cameras show frames until it has ended."""
    environment = {**os.environ, "MMDG_LOG": "INFO"}
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment) as process:
        engine = Engine(endpoint, process)
        for read in (engine._read_log, engine._read_reports):
            threading.Thread(target=read, daemon=True).start()
        try:
            _wait_until_serving(engine)
            yield engine
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def _wait_until_serving(engine: Engine) -> None:
    end = time.monotonic() + _SERVES_WITHIN_S
    while time.monotonic() < end and engine.process.poll() is None:
        with suppress(KioskError), KioskClient(engine.endpoint, timeout_s=1.0) as client:
            client.hello()
            health = client.health()
            if health["ready"] and all(camera["status"] == "serving" for camera in health["cameras"]):
                return
        time.sleep(0.3)
    raise SystemExit(f"{engine.endpoint} does not serve:\n{''.join(engine.log[-20:])}")


@contextmanager
def live(folder: Path, scene: str) -> Iterator[Engine]:
    """`mmdg-live` with one simulated camera, `door`; what is killed is started again at once, without end."""
    endpoint, config = f"ipc://{folder}/live-{scene}", folder / f"{scene}.yaml"
    config.write_text(yaml.safe_dump({
        "cameras": [{"spec": f"simulated:{scene}", "name": "door"}], "policy": UNDECIDED,
        "kiosk": {"endpoint": endpoint}, "lockout": {"sessions_per_minute": 0},
        "supervisor": {"max_restarts": 10_000, "restart_window_s": 0.5}}))
    with running(endpoint, "-m", "pipeline.commands.live", "--json", "--config", str(config)) as engine:
        yield engine


@contextmanager
def simulated(folder: Path, scene: str, number: int = 0) -> Iterator[Engine]:
    """`mmdg kiosk simulate` with its two cameras."""
    endpoint = f"ipc://{folder}/{scene}-{number}"
    with running(endpoint, "-c", "from pipeline.commands import main; main()", "kiosk", "simulate", endpoint, "--json",
                 "--scene", scene, "--seed", str(number)) as engine:
        yield engine


def begun(client: KioskClient, camera: str, deadline_ms: int) -> KioskSession:
    """A session as soon as one can be opened."""
    end = time.monotonic() + _SERVES_WITHIN_S
    while True:
        try:
            return client.begin(camera, deadline_ms=deadline_ms)
        except KioskError as error:
            if error.code not in ("not_ready", "busy", "rate_limited") or time.monotonic() > end:
                raise
            time.sleep(0.1)


@contextmanager
def idle_process() -> Iterator[Callable[[], float]]:
    """A round trip in ms through pipes to a process that does nothing else: what this machine makes anyone wait."""
    echo = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"
    with subprocess.Popen([sys.executable, "-c", echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        there, back = process.stdin, process.stdout
        assert there is not None
        assert back is not None

        def round_trip() -> float:
            sent_s = time.perf_counter()
            there.write("x\n")
            there.flush()
            back.readline()
            return (time.perf_counter() - sent_s) * 1e3

        round_trip()
        yield round_trip
        there.close()


# --- answers --------------------------------------------------------------------------------------------------------
def answers(engine: Engine, name: str, count: int) -> list[Figure]:
    """Round trips of `hello` and `health.get`, `count` each, while a session is open."""
    took_ms: dict[str, list[float]] = {"hello": [], "health.get": []}
    idle_ms: list[float] = []
    scores, began_s = engine.scores, time.monotonic()
    with ExitStack() as opened:
        owner, echo = opened.enter_context(engine.client()), opened.enter_context(idle_process())
        clients = [opened.enter_context(engine.client()) for _ in range(CONNECTIONS)]
        session, camera = None, owner.engine["cameras"][0]
        due_s = time.monotonic()
        for i in range(2 * count):
            if session is None or time.monotonic_ns() > session.began_ns + (session.deadline_ms + 100) * 1_000_000:
                with suppress(KioskError):
                    session = owner.begin(camera, deadline_ms=10_000)
            client, kind = clients[i % CONNECTIONS], ("hello", "health.get")[i // CONNECTIONS % 2]
            fields = {"client": "benchmark", "contract_min": 1, "contract_max": 1} if kind == "hello" else {}
            time.sleep(max(0.0, due_s - time.monotonic()))
            due_s = max(due_s + 1 / (CONNECTIONS * COMMANDS_PER_S), time.monotonic())
            sent_s = time.perf_counter()
            client.command(kind, **fields)
            took_ms[kind].append((time.perf_counter() - sent_s) * 1e3)
            if i % 2:
                idle_ms.append(echo())
        if session is not None:
            with suppress(KioskError):
                owner.cancel(session)
    rate = (engine.scores - scores) / (time.monotonic() - began_s)
    found = [figure for kind, values in took_ms.items() for figure in figures(
        f"{kind} answered, {name}", values, "ms", {"p50": 2.0, "p99": 20.0, "max": None})]
    found += figures(f"echo of an idle process meanwhile, {name}", idle_ms, "ms", {"p50": None, "p99": None})
    if rate:
        found.append(Figure(f"sets scored a second meanwhile, {name}", "mean", rate, "1/s", None, 1))
    return found


# --- guidance -------------------------------------------------------------------------------------------------------
def guidance(engine: Engine, name: str, period_ms: float, count: int) -> list[Figure]:
    """From `session.begin` before nobody, or two people, to the first guidance at the subscriber, in frame periods.

    Until then no code was held. The time holds the wait for the next frame, up to a period of its own.
    """
    periods: list[float] = []
    with engine.client() as client:
        client.subscribe()
        camera = client.engine["cameras"][0]
        while len(periods) < count:
            session = begun(client, camera, 5000)
            while (event := client.next_event(5.0)) is not None:
                if event.get("session_id") == session.session_id and event["type"] in ("guidance", "session.ended"):
                    break
            told_ns = time.monotonic_ns()
            if event is None or event["type"] != "guidance":
                print(f"  guidance, {name}: a session without ({event})", file=sys.stderr)
            else:
                periods.append((told_ns - session.began_ns) / 1e6 / period_ms)
            with suppress(KioskError):
                client.cancel(session)
            time.sleep(0.13)  # below 20 commands a second
    return figures(f"guidance after the begin, {name}", periods, "periods", {"p50": None, "p99": 2.0, "max": None})


# --- deadlines ------------------------------------------------------------------------------------------------------
def deadlines(engines: list[Engine], name: str, count: int) -> list[Figure]:
    """How late decisions of sessions of 500 ms come: by the engine's word, and at the client from before its begin."""
    told_ms: list[float] = []
    seen_ms: list[float] = []
    other: Counter[str] = Counter()
    failures: list[BaseException] = []

    def one(engine: Engine, camera: str) -> None:
        try:
            with engine.client() as client:
                while len(seen_ms) < count and sum(other.values()) < 3 * count:
                    session = begun(client, camera, DEADLINE_MS)
                    decision = client.wait_decision(session)
                    took_ms = (time.monotonic_ns() - session.began_ns) / 1e6
                    if decision is None or decision.fields["time_to_decision_ms"] < DEADLINE_MS:
                        other["no decision" if decision is None else decision.reason] += 1
                        continue
                    told_ms.append(decision.fields["time_to_decision_ms"] - DEADLINE_MS)
                    seen_ms.append(took_ms - DEADLINE_MS)
        except BaseException as error:  # noqa: BLE001 - raised below, in the main thread
            failures.append(error)

    cameras = []
    for engine in engines:
        with engine.client() as client:
            cameras += [(engine, camera) for camera in client.engine["cameras"]]
    threads = [threading.Thread(target=one, args=pair) for pair in cameras]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    if other:
        print(f"  deadlines, {name}: ended before their deadline and left out: {dict(other)}", file=sys.stderr)
    return [*figures(f"decision after the deadline, at the client, {name}", seen_ms, "ms",
                     {"p50": None, "p99.9": 100.0, "max": None}),
            *figures(f"decision after the deadline, by its own word, {name}", told_ms, "ms",
                     {"p50": None, "p99.9": 100.0})]


# --- losses ---------------------------------------------------------------------------------------------------------
def losses(engine: Engine, victim: str, what: str, goal_ms: float, count: int) -> list[Figure]:
    """From SIGKILL of a process of the pipeline to the decision at the client."""
    took_ms: list[float] = []
    reasons: Counter[str] = Counter()
    before = 0
    with engine.client() as client:
        while len(took_ms) < count and before < 3 * count:
            session = begun(client, "door", 10_000)
            if not _deciding(client, session):
                before += 1  # a busy machine stalled the camera first
                continue
            killed_ns = time.monotonic_ns()
            os.kill(engine.pids[victim], signal.SIGKILL)
            decision = client.wait_decision(session)
            took_ms.append((time.monotonic_ns() - killed_ns) / 1e6)
            if not isinstance(decision, KioskDecision) or decision.verdict != "undecided":
                raise SystemExit(f"{victim} was killed, and the session ended with {decision}")
            reasons[decision.reason] += 1
    print(f"  {what}: reasons {dict(reasons)}; {before} sessions ended before the kill", file=sys.stderr)
    return figures(what, took_ms, "ms", {"p50": None, "max": goal_ms})


def _deciding(client: KioskClient, session: KioskSession) -> bool:
    """Wait until scores are counted; False when the session ended before."""
    while (state := client.status(session))["state"] == "open" and state["phase"] != "deciding":
        time.sleep(0.08)
    return bool(state["state"] == "open")


# --- all ------------------------------------------------------------------------------------------------------------
def measure(only: set[str], folder: Path, counts: dict[str, int]) -> Iterator[list[Figure]]:
    if only & {"answers", "deadlines", "losses"}:
        with live(folder, "bona_fide") as engine:
            if "answers" in only:
                yield answers(engine, "mmdg-live", counts["commands"])
            if "deadlines" in only:
                yield deadlines([engine], "mmdg-live", counts["live_sessions"])
            if "losses" in only:
                yield losses(engine, "camera-door", "camera killed to undecided", 250.0, counts["losses"])
                yield losses(engine, "inference-0", "worker killed to undecided", 500.0, counts["losses"])
    if "answers" in only:
        with simulated(folder, "doubtful") as engine:
            yield answers(engine, "simulated engine", counts["commands"])
    if "guidance" in only:
        with live(folder, "nobody") as engine:  # the cheapest scene to render: its camera keeps its period
            yield guidance(engine, "mmdg-live", LIVE_PERIOD_MS, counts["guidance"])
        with simulated(folder, "two_people") as engine:
            yield guidance(engine, "simulated engine", SIMULATED_PERIOD_MS, counts["guidance"])
    if "deadlines" in only:
        with ExitStack() as opened:
            engines = [opened.enter_context(simulated(folder, "doubtful", i)) for i in range(1, SIMULATED_ENGINES + 1)]
            yield deadlines(engines, "simulated engines", counts["sessions"])


def row(figure: Figure) -> str:
    outcome = {None: "", True: "reached", False: "MISSED"}[figure.reached]
    goal = "" if figure.goal is None else f"{figure.goal:g}"
    return (f"{figure.what:60} {figure.statistic:>6} {figure.value:9.2f} {figure.unit:8} {goal:>5} {figure.count:6} "
            f"{outcome}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--sessions", type=int, default=1000, help="with a deadline, against simulated engines")
    arguments = parser.parse_args()
    only = set(arguments.only.split(","))
    if unknown := only - set(PARTS):
        parser.error(f"--only: no part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    counts = {"commands": 1000, "guidance": 100, "live_sessions": 60, "losses": 20, "sessions": arguments.sessions}
    if arguments.quick:
        counts = {what: max(3, count // 10) for what, count in counts.items()}
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[1]),
                                                *filter(None, [os.environ.get("PYTHONPATH")])])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the engines, too
    before, found = os.getloadavg()[0], list[Figure]()
    if not arguments.json:
        print(f"{'':60} {'':>6} {'value':>9} {'':8} {'goal':>5} {'n':>6}")
    with tempfile.TemporaryDirectory(prefix="mmdg-bench-") as folder:  # mode 700
        for part in measure(only, Path(folder), counts):
            found += part
            for figure in part if not arguments.json else ():
                print(row(figure), flush=True)
    machine: dict[str, Any] = {"cores": os.cpu_count(), "load_before": before, "load_after": os.getloadavg()[0]}
    if arguments.json:
        print(json.dumps(machine | {"figures": [asdict(figure) | {"reached": figure.reached} for figure in found]}))
    else:
        print(f"{machine['cores']} cores; load of one minute {before:.1f} before, {machine['load_after']:.1f} after. "
              "Cameras are simulated; the scores of the simulated engine are made up.")
    sys.exit(1 if not arguments.quick and any(figure.reached is False for figure in found) else 0)


if __name__ == "__main__":
    main()
