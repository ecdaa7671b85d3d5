"""Every backend against a naive reference of the published network: same weights, same crops, one run.

    python benchmarks/model.py [--quick] [--sizes tiny base] [--batches 1 8 32] [--rounds 5] [--threads 2]
                               [--calibration simulated:bona_fide ...]
    python benchmarks/model.py --profile [--sizes tiny base] [--threads 1]   where OpenVINO's time goes, in bfloat16

The reference (`naive_reference.py`) keeps three separate streams, draws 20 dropout samples for certainty and fuses
nothing. It is *timed* with sampling and *compared* with sampling replaced by its limit, since samples are noise; how
much noise is printed by itself. Weights are random (purpose `test`, logits spread); crops come from a simulated camera
through the real pipeline if the face model is installed, else they are noise. The int8 model is calibrated on other
crops than it is judged on.

Backends take turns within a round, so that other work on the machine hits all alike; ratios are of the best rounds.
The table goes to stderr, one JSON object to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
import torch
from naive_reference import NaiveMmdg
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmdg_model.backends import Backend, backend_status
from mmdg_model.backends.engine_scorer import Engine
from mmdg_model.backends.processor import matrix_flags, processor_name
from mmdg_model.backends.torch_engine import TorchEngine
from mmdg_model.checkpoint import Checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.inputs import PreparedInputs, prepare
from mmdg_model.known_answer import known_answer_crops
from mmdg_model.network import LIVE_COLUMN
from mmdg_model.scorer import CropPlanes
from mmdg_model.test_checkpoint import make_test_checkpoint
from mmdg_model.torch_scorer import build_network

SIZES = {"tiny": ModelConfig.tiny, "base": ModelConfig.base}
SCENES = ["simulated:bona_fide", "simulated:print", "simulated:screen", "simulated:mask"]
#: Of the simulated scenes: other people, places and noise for calibration than for judging.
CALIBRATION_SEED, JUDGED_SEED = 1, 2


class PlainEngine:
    """The network as it is trained, under PyTorch."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> None:
        self.network, self.dtype = build_network(checkpoint).to(dtype), dtype

    def run(self, inputs: PreparedInputs) -> tuple[Any, Any]:
        with torch.inference_mode():
            output = self.network(torch.from_numpy(inputs.planes).to(self.dtype), torch.from_numpy(inputs.present))
            return output.logits.float().numpy(), output.class_certainty.float().numpy()


class ByteCounter(TorchDispatchMode):
    """Bytes of the tensors that operations read and write, each counted once an operation; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not (func.is_view or func._schema.name.endswith(("::detach", "::_unsafe_view"))):
            self.total += sum(each.numel() * each.element_size() for each in _tensors((args, result)))
        return result


def _tensors(nested: Any) -> Iterator[torch.Tensor]:
    if isinstance(nested, torch.Tensor):
        yield nested
    elif isinstance(nested, list | tuple):
        for each in nested:
            yield from _tensors(each)


def crops(sources: list[str], number: int, seed: int) -> tuple[list[CropPlanes], str]:
    """Crops and what they are."""
    from capture.camera import CameraError
    from detect.faces import DetectorError
    from pipeline.commands.export import calibration_crops

    try:
        return calibration_crops(sources, number, seed=seed), f"simulated ({', '.join(sources)}; seed {seed})"
    except (CameraError, DetectorError, ModuleNotFoundError) as error:
        from mmdg_model.test_checkpoint import _varied_crop

        noise = [_varied_crop(224, 1000 * seed + index) for index in range(number)]
        return noise, f"noise (no simulated crops: {error})"


def naive(checkpoint: Checkpoint, *, samples: int | None) -> NaiveMmdg:
    config = checkpoint.config
    return NaiveMmdg({name: weight.float() for name, weight in checkpoint.weights.items()}, heads=config.heads,
                     depth=config.depth, adapter_heads=config.adapter_heads, theta=config.cdc_theta,
                     rate=config.uncertainty_rate, dropout=config.uncertainty_dropout, eps=config.layer_norm_eps,
                     samples=samples)


def engines(checkpoint: Checkpoint, calibration: list[CropPlanes], folder: Path, threads: int) -> dict[str, Engine]:
    found: dict[str, Engine] = {"plain float32": PlainEngine(checkpoint),
                                "torch float32": TorchEngine(checkpoint, precision="float32", threads=threads),
                                "torch bfloat16": TorchEngine(checkpoint, precision="bfloat16", threads=threads)}
    status = backend_status(Backend.OPENVINO)
    if not status.runs:
        print(f"openvino left out: {status.reason}", file=sys.stderr)
        return found
    from mmdg_model.backends.openvino_engine import MODEL_FILE, WEIGHTS_FILE, OpenVinoEngine
    from mmdg_model.backends.openvino_export import convert, export_openvino

    model = convert(checkpoint)
    for precision in ("float32", "bfloat16", "int8"):
        directory = folder / f"{checkpoint.config.width}-{precision}"
        export_openvino(checkpoint, directory, precision=precision, threads=threads, model=model,
                        calibration=calibration if precision == "int8" else ())
        found[f"openvino {precision}"] = OpenVinoEngine(
            (directory / MODEL_FILE).read_bytes(), (directory / WEIGHTS_FILE).read_bytes(), precision=precision,
            threads=threads)
    return found


def products_per_second(threads: int) -> dict[str, float]:
    """Peak of square matrix products, in operations a second, best of several."""
    torch.set_num_threads(threads)
    side, peaks = 2048, {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
        peaks[name] = 2 * side**3 / min(_seconds(lambda a=a, b=b: a @ b) for _ in range(8))
    a, b = (torch.randint(-127, 127, (side, side), dtype=torch.int8) for _ in range(2))
    peaks["int8"] = 2 * side**3 / min(_seconds(lambda: torch._int_mm(a, b)) for _ in range(8))
    return peaks


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def _quiet() -> Iterator[None]:
    with torch.inference_mode():
        yield


def margins(rows: Any) -> Any:
    return np.asarray(rows)[:, LIVE_COLUMN] - np.asarray(rows)[:, 1 - LIVE_COLUMN]


def agreement(exact: Any, other: Any) -> dict[str, float | int]:
    """Differences of logits and probabilities, the latter also with logits centred and scaled to a deviation of 1.

    Random weights spread logits so far that many probabilities are 0 or 1, where any error vanishes; at a deviation of
    1 most lie between 0.2 and 0.8, the hardest case.
    """
    centre, spread = exact.mean(), exact.std()
    return {"largest_logit_difference": round(float(np.abs(exact - other).max()), 5),
            "logit_standard_deviation": round(float(spread), 3),
            "largest_probability_difference": round(_moved(exact, other), 5),
            "largest_probability_difference_at_unit_spread": round(
                _moved((exact - centre) / spread, (other - centre) / spread), 5),
            "decisions_changed": int(((exact > 0) != (other > 0)).sum())}


def _moved(exact: Any, other: Any) -> float:
    return float(np.abs(1 / (1 + np.exp(-exact)) - 1 / (1 + np.exp(-other))).max())


def compare(size: str, checkpoint: Checkpoint, found: dict[str, Engine], judged: list[CropPlanes]) -> dict[str, Any]:
    """Agreement of each engine with the float64 reference, and the spread that sampling alone gives."""
    inputs = [prepare([crop], checkpoint.input_spec) for crop in judged]
    planes = torch.from_numpy(np.concatenate([each.planes for each in inputs]))
    present = torch.from_numpy(np.concatenate([each.present for each in inputs]))
    reference = naive(checkpoint, samples=None)
    reference.weights = {name: weight.double() for name, weight in reference.weights.items()}
    with _quiet():
        exact = margins(torch.cat([reference.logits(planes[i:i + 1].double(), present[i:i + 1])
                                   for i in range(len(planes))]))
        sampling = naive(checkpoint, samples=20)
        torch.manual_seed(0)
        drawn = np.stack([margins(sampling.logits(planes[:2], present[:2])) for _ in range(5)])
    report = {name: agreement(exact, margins(np.concatenate([engine.run(each)[0] for each in inputs])))
              for name, engine in found.items()}
    return {"size": size, "crops": len(judged), "engines": report,
            "sampling_spread": {"logit_standard_deviation": round(float(drawn.std(axis=0).mean()), 5),
                                "shift_of_the_mean_from_the_limit": round(float(
                                    np.abs(drawn.mean(axis=0) - exact[:2]).max()), 5)}}


def work_of(checkpoint: Checkpoint, batch: int) -> dict[str, float]:
    """Operations and bytes of one forward pass of the runtime graph, in float32."""
    from mmdg_model.runtime_graph import build_runtime_graph

    graph = build_runtime_graph(build_network(checkpoint))
    size = checkpoint.config.image_size
    planes, present = torch.zeros(batch, 3, 3, size, size), torch.ones(batch, 3, dtype=torch.bool)
    with _quiet(), FlopCounterMode(display=False) as operations, ByteCounter() as traffic:
        graph(planes, present)
    weights = sum(parameter.numel() * 4 for parameter in graph.parameters())
    return {"gflop": round(operations.get_total_flops() / 1e9, 2), "megabytes_moved": round(traffic.total / 1e6, 1),
            "megabytes_of_weights": round(weights / 1e6, 1)}


def time_batch(size: str, checkpoint: Checkpoint, found: dict[str, Engine], batch: int, arguments: Any,
               peaks: dict[str, float]) -> list[dict[str, Any]]:
    crop = known_answer_crops(checkpoint.input_spec)[0]
    inputs = prepare([crop] * batch, checkpoint.input_spec)
    planes = torch.from_numpy(inputs.planes)
    reference = naive(checkpoint, samples=20)

    def sampled() -> None:
        with _quiet():
            reference.logits(planes)

    works: dict[str, Callable[[], object]] = {"naive": sampled}
    works |= {name: lambda engine=engine: engine.run(inputs) for name, engine in found.items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    torch.set_num_threads(arguments.threads)
    rounds = max(1, arguments.rounds if batch == 1 else arguments.rounds // 2)
    for turn in range(rounds + 1):
        for name, work in works.items():
            # The reference is slow and needs no warm-up; the others choose kernels for a batch size in their first.
            if name == "naive" and turn >= (rounds if batch == 1 else 1):
                continue
            duration = _seconds(work)
            if turn or name == "naive":
                seconds[name].append(duration)
    gflop = work_of(checkpoint, batch)
    rows = []
    for name, durations in seconds.items():
        precision = name.split()[-1] if name != "naive" else "float32"
        best = min(durations)
        rows.append({"size": size, "batch": batch, "engine": name, "best_ms": round(best * 1e3, 1),
                     "median_ms": round(float(np.median(durations)) * 1e3, 1),
                     "ratio": round(min(seconds["naive"]) / best, 1),
                     "share_of_peak": round(gflop["gflop"] * 1e9 / best / peaks[precision], 3), **gflop})
    return rows


def profile(checkpoint: Checkpoint, threads: int) -> dict[str, float]:
    """Share of time of each kind of operation under OpenVINO in bfloat16, by its own counters, largest first."""
    from mmdg_model.backends.openvino_export import convert
    from mmdg_model.backends.openvino_sdk import openvino

    request = openvino.Core().compile_model(convert(checkpoint), "CPU", {
        "INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True,
    }).create_infer_request()
    inputs = prepare(known_answer_crops(checkpoint.input_spec)[:1], checkpoint.input_spec)
    totals: dict[str, float] = {}
    for turn in range(8):
        request.infer([inputs.planes, inputs.present])
        for each in request.profiling_info if turn >= 3 else ():
            totals[each.node_type] = totals.get(each.node_type, 0.0) + each.real_time.total_seconds()
    whole = sum(totals.values())
    return {kind: round(spent / whole, 3) for kind, spent in sorted(totals.items(), key=lambda item: -item[1])[:8]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the tiny network, batch 1, few rounds")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--crops", type=int, default=24, help="crops to judge on; as many for calibration")
    parser.add_argument("--calibration", nargs="+", default=SCENES)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.batches, arguments.rounds, arguments.crops = ["tiny"], [1], 3, 8

    if arguments.profile:
        with tempfile.TemporaryDirectory() as folder:
            for size in arguments.sizes:
                checkpoint = make_test_checkpoint(Path(folder) / f"{size}.safetensors", SIZES[size]())
                print(json.dumps({"benchmark": "model", "profile": size, "threads": arguments.threads,
                                  "load_average": os.getloadavg()[0], "shares": profile(checkpoint,
                                                                                        arguments.threads)}))
        return

    torch.set_num_threads(arguments.threads)
    calibration, origin = crops(arguments.calibration, arguments.crops, CALIBRATION_SEED)
    judged, judged_origin = crops(SCENES, arguments.crops, JUDGED_SEED)
    rows, comparisons, load = [], [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            checkpoint = make_test_checkpoint(Path(folder) / f"{size}.safetensors", SIZES[size]())
            found = engines(checkpoint, calibration, Path(folder), arguments.threads)
            comparisons.append(compare(size, checkpoint, found, judged))
            peaks = products_per_second(arguments.threads)
            for batch in arguments.batches:
                rows += time_batch(size, checkpoint, found, batch, arguments, peaks)
                _print_rows(rows[-len(found) - 1:])
            _print_comparison(comparisons[-1])
    print(json.dumps({
        "benchmark": "model", "threads": arguments.threads, "rounds": arguments.rounds, "processor": processor_name(),
        "cores": os.cpu_count(), "flags": sorted(matrix_flags()), "load_average": [load, os.getloadavg()[0]],
        "peak_gop_s": {name: round(value / 1e9, 1) for name, value in peaks.items()}, "torch": torch.__version__,
        "calibrated_on": origin, "judged_on": judged_origin, "rows": rows, "agreement": comparisons}))


def _print_rows(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    print(f"\n{first['size']}, batch {first['batch']}: {first['gflop']} GFLOP, {first['megabytes_moved']} MB moved "
          f"(of which weights {first['megabytes_of_weights']} MB, float32); load {os.getloadavg()[0]:.1f}\n"
          f"{'engine':<18} {'best ms':>9} {'median ms':>10} {'ratio':>7} {'of peak':>8}", file=sys.stderr)
    for row in rows:
        print(f"{row['engine']:<18} {row['best_ms']:>9} {row['median_ms']:>10} {row['ratio']:>7} "
              f"{row['share_of_peak']:>8.1%}", file=sys.stderr)


def _print_comparison(comparison: dict[str, Any]) -> None:
    print(f"\n{comparison['size']}: agreement with the float64 reference on {comparison['crops']} crops; sampling "
          f"alone moves a logit by {comparison['sampling_spread']['logit_standard_deviation']} (standard deviation)\n"
          f"{'engine':<18} {'logit':>9} {'of std':>8} {'probability':>12} {'at unit std':>12} {'changed':>8}",
          file=sys.stderr)
    for name, values in comparison["engines"].items():
        print(f"{name:<18} {values['largest_logit_difference']:>9} {values['logit_standard_deviation']:>8} "
              f"{values['largest_probability_difference']:>12} "
              f"{values['largest_probability_difference_at_unit_spread']:>12} {values['decisions_changed']:>8}",
              file=sys.stderr)


if __name__ == "__main__":
    main()
