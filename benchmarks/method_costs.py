"""What every registered method costs on this machine: parameters, operations, times, memory; as CSV and Markdown.

    python benchmarks/method_costs.py --out out/method_costs            # preset micro, one thread
    python benchmarks/method_costs.py --preset base --methods mmdg      # the paper's size: minutes a method

`mmdg report RUNS --costs out/method_costs/method_costs.csv` shows the table; `mmdg benchmark --timings` plans with it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmdg_model.training.method_costs import (
    MethodCost,
    MethodCostError,
    config_of,
    measure_apart,
    write_costs,
)
from mmdg_model.training.methods.registry import METHODS
from mmdg_model.training.report.cost_table import cost_table
from mmdg_model.training.report.pages import Report, Section, to_markdown
from mmdg_model.whole_file import write_whole


def main() -> int:
    """Exit code 1 where a method could not be measured; the others are written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/method_costs"))
    parser.add_argument("--preset", default="micro")
    parser.add_argument("--methods", default="", help="comma-separated; all registered ones by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="the fastest counts")
    parser.add_argument("--all-train", action="store_true", help="train everything, as from random weights")
    parser.add_argument("--quick", action="store_true", help="two methods, once")
    chosen = parser.parse_args()
    names = chosen.methods.split(",") if chosen.methods else ["vit_late", "mmdg"] if chosen.quick else list(METHODS)
    costs: list[MethodCost] = []
    failed: list[str] = []
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            costs.append(measure_apart(config_of(name, chosen.preset, everything=chosen.all_train),
                                       with_backbone=not chosen.all_train, threads=chosen.threads,
                                       repeats=1 if chosen.quick else chosen.repeats))
        except (MethodCostError, ValueError) as error:
            failed.append(f"{name}: {str(error).removeprefix(f'{name}: ')}")
    if costs:
        write_costs(chosen.out / "method_costs.csv", costs)
        report = Report(title="Costs of the methods", warnings=(), sections=(
            Section(title=f"Preset {chosen.preset}", tables=(cost_table(costs),), lines=tuple(failed)),))
        text = to_markdown(report)
        write_whole(chosen.out / "method_costs.md", text.encode())
        print(text)
        print(f"{chosen.out}/method_costs.csv, {chosen.out}/method_costs.md", file=sys.stderr)
    for line in failed:
        print(f"not measured: {line}", file=sys.stderr)
    return 1 if failed or not costs else 0


if __name__ == "__main__":
    sys.exit(main())
