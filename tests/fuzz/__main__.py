"""`make fuzz`: many faulted sessions, every guard removed, every decoder; what fails is made small and saved.

    python -m tests.fuzz --sessions 100000 --seed 7
    python -m tests.fuzz --case out/fuzz/case-7-1234.json        # play a saved case again
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.fuzz import campaign
from tests.fuzz.campaign import BLOCK, Case, Tally
from tests.fuzz.decoders import TARGETS, DecoderFault, attempt, mutated
from tests.fuzz.mutants import MUTANTS, noticed, opens_enough
from tests.fuzz.plan import CALIBRATES, CONFIGURES, NEVER
from tests.fuzz.world import Violation

_MOST_SAVED = 5
err = Console(stderr=True)


def _folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _block(seed: int, start: int, names: list[str] | None = None) -> tuple[Tally, list[tuple[int, Case, str, str]]]:
    """One block of cases in a process of its own: what they came to and what failed."""
    failures: list[tuple[int, Case, str, str]] = []

    def failed(index: int, case: Case, violation: Violation) -> bool:
        failures.append((index, case, violation.rule, str(violation)))
        return len(failures) < _MOST_SAVED

    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        try:
            tally = campaign.campaign(seed, range(start, start + BLOCK), Path(folder), names=names, failed=failed)
        except Violation as violation:  # of the audit log of the whole block
            return Tally(violations=Counter([violation.rule])), failures
    return tally, failures


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                    console=err)


def sessions(seed: int, faulted: int, jobs: int, out: Path, minutes: float, *, hopeless: bool = False) -> bool:
    """Until so many faulted sessions were played, or time is up. Whether all of them kept the rules.

    Args:
        hopeless: faulted sessions with one fault each after which nothing may open, and only those count.
    """
    # Without those that configure the whole case: another session's fault may set right what they took away.
    names = sorted(NEVER - CONFIGURES - CALIBRATES) if hopeless else None
    total, began, saved = Tally(), time.monotonic(), 0
    with _progress() as bar, ProcessPoolExecutor(jobs) as pool:
        task = bar.add_task("faulted sessions", total=faulted)
        starts = iter(range(0, 10**9, BLOCK))
        running: set[Future] = {pool.submit(_block, seed, next(starts), names) for _ in range(jobs)}
        end = began + 60 * minutes
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                tally, failures = future.result()
                total.add(tally)
                for index, case, rule, text in failures[:_MOST_SAVED - saved]:
                    saved += 1
                    _save(seed, index, case, rule, text, out)
                if (total.never if hopeless else total.faulted) < faulted and not saved and time.monotonic() < end:
                    running.add(pool.submit(_block, seed, next(starts), names))
            bar.update(task, completed=min(total.never if hopeless else total.faulted, faulted))
    seconds = time.monotonic() - began
    print(f"sessions (seed {seed}, {jobs} jobs): {total.sessions} in {total.cases} cases, {seconds:.0f} s, "
          f"{total.sessions / seconds:.0f}/s")
    print(f"  faulted: {total.faulted}; rules broken: {total.violations.total()}; opened with enough honest evidence "
          f"beside the fault: {total.faulted_opened}")
    print(f"  of these with a fault that never leaves enough: {total.never}, opened: {total.never_opened}")
    print(f"  unfaulted: {total.unfaulted}, opened: {total.unfaulted_opened} "
          f"({100 * total.unfaulted_opened / max(1, total.unfaulted):.2f} %)")
    print(f"  honest ones between faulted ones: {total.between}, opened: {total.between_opened}")
    print(f"  verdicts: {dict(total.verdicts)}; refused: {dict(total.refused)}")
    print(f"  reasons: {dict(total.reasons.most_common())}")
    print(f"  faults: {len(total.by_fault)} kinds, the rarest {total.by_fault.most_common()[-1]}")
    print(f"  audit records verified: {total.records}")
    if total.violations:
        print(f"  BROKEN: {dict(total.violations)}")
    return not total.violations and opens_enough(total) and not total.never_opened


def _save(seed: int, index: int, case: Case, rule: str, text: str, out: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_folder()) as folder:
        small = campaign.shrink(case, rule, Path(folder))
    path = out / f"case-{seed}-{index}.json"
    campaign.save(small, path, {"rule": rule, "text": text, "seed": seed, "index": index})
    print(f"case {index} of seed {seed} breaks {text}\n  {len(case.operations)} operations, {len(small.operations)} "
          f"after leaving out; again: python -m tests.fuzz --case {path}")


def mutants(seed: int, cases: int) -> bool:
    """Every guard removed in turn, first under random cases, then under faults that aim at it."""
    missed = []
    with _progress() as bar, tempfile.TemporaryDirectory(dir=_folder()) as folder:
        print(f"guards removed (seed {seed}, up to {cases} random cases, then {cases} aimed ones):")
        for mutant in bar.track(MUTANTS, description="guards removed"):
            how = noticed(mutant, seed, cases, Path(folder), aimed=False)
            kind = "random"
            if how is None:
                how, kind = noticed(mutant, seed, cases, Path(folder)), "aimed"
            missed += [mutant.guard] if how is None else []
            print(f"  {mutant.guard:42} {'NOT NOTICED' if how is None else f'{kind}: {how}'}")
    print(f"  {len(MUTANTS) - len(missed)} of {len(MUTANTS)} noticed")
    return not missed


def _inputs(seed: int, target: object) -> Iterator[bytes]:
    for number in range(10**9):
        yield mutated(random.Random(f"{seed}:{target.name}:{number}"), target)


def decoders(seed: int, seconds: float, out: Path) -> bool:
    """Each decoder for so long under changed seeds."""
    good = True
    with _progress() as bar, tempfile.TemporaryDirectory(dir=_folder()) as folder:
        print(f"decoders (seed {seed}, {seconds:g} s each):")
        for target in bar.track(TARGETS, description="decoders"):
            end, tried, taken, faults = time.monotonic() + seconds, 0, 0, Counter()
            for data in _inputs(seed, target):
                if time.monotonic() > end:
                    break
                tried += 1
                try:
                    taken += attempt(target, data, Path(folder), memory=tried % 50 == 0)
                except DecoderFault as fault:
                    kind = type(fault.__cause__).__name__
                    if not faults[kind]:
                        path = out / f"{target.name}-{seed}-{tried}.bin"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(data)
                        print(f"  {fault}\n    saved as {path}")
                    faults[kind] += 1
            good &= not faults
            print(f"  {target.name:22} {tried:7} inputs, {taken:6} taken, faults: {dict(faults) or 'none'}", flush=True)
    return good


def with_atheris(seed: int, seconds: float, out: Path) -> bool:
    """Each decoder under atheris, where it is installed."""
    if importlib.util.find_spec("atheris") is None:
        print("atheris: not installed, its part was left out (pip install -r tests/fuzz/requirements.txt)")
        return True
    good = True
    print(f"atheris (seed {seed}, {seconds:g} s each):")
    for target in TARGETS:
        run = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.atheris_run", target.name, str(out / "corpus" / target.name),
             f"-seed={seed % 2**31}", f"-max_total_time={max(1, int(seconds))}", "-max_len=8192", "-timeout=10",
             "-rss_limit_mb=2048", f"-artifact_prefix={out}/{target.name}-"],
            capture_output=True, text=True, check=False)
        lines = run.stderr.strip().splitlines()
        last = next((line for line in reversed(lines) if line.startswith(("Done", "DONE", "#"))), "no word")
        good &= run.returncode == 0
        print(f"  {target.name:22} {last if run.returncode == 0 else f'FAULT, exit {run.returncode}'}", flush=True)
        if run.returncode:
            print("\n".join(lines[-25:]))
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of all random choices; drawn and printed by default")
    parser.add_argument("--sessions", type=int, default=100_000, help="faulted sessions to play")
    parser.add_argument("--hopeless", action="store_true", help="only faults after which no session may open, one a "
                                                                "session; --sessions counts these")
    parser.add_argument("--minutes", type=float, default=120.0, help="for sessions at most")
    parser.add_argument("--mutant-cases", type=int, default=1500, help="most cases for each guard that is removed")
    parser.add_argument("--decoder-seconds", type=float, default=10.0, help="for each decoder, with either engine")
    parser.add_argument("--jobs", type=int, default=2, help="processes that play sessions")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="folder for what fails")
    parser.add_argument("--case", type=Path, help="play a saved case again, and nothing else")
    wanted = parser.parse_args()
    if wanted.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            rule = campaign.rule_of(campaign.load(wanted.case), Path(folder))
        print(f"{wanted.case}: {f'breaks {rule}' if rule else 'keeps the rules'}")
        return 1 if rule else 0
    seed = secrets.randbelow(2**31) if wanted.seed is None else wanted.seed
    print(f"seed {seed}: make fuzz FUZZ_SEED={seed} does the same again", flush=True)
    parts = [wanted.sessions == 0 or sessions(seed, wanted.sessions, wanted.jobs, wanted.out,
                                              wanted.minutes, hopeless=wanted.hopeless)]
    sys.stdout.flush()
    parts += [wanted.mutant_cases == 0 or mutants(seed, wanted.mutant_cases)]
    if wanted.decoder_seconds:
        parts += [decoders(seed, wanted.decoder_seconds, wanted.out),
                  with_atheris(seed, wanted.decoder_seconds, wanted.out)]
    print("all rules kept" if all(parts) else "FAILED")
    return 0 if all(parts) else 1


if __name__ == "__main__":
    sys.exit(main())
