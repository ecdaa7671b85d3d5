"""A ReGrad training step of ours against the published form: same machine, weights, batch and target.

    python benchmarks/training.py [--quick] [--size base] [--batch 2] [--rounds 5] [--device cpu|cuda] [--threads 2]
                                  [--training frozen full] [--precisions fp32 bf16] [--targets ssp ce]
                                  [--profile] [--compile] [--no-memory]

The published form (`published_training_step.py`): a pass of the ViT for each modality, 20 stored dropout samples for
certainty, four backward passes over one retained graph, modulation tensor by tensor in Python. Ours: what the trainer
runs. Tests show that both give the same update (tests/benchmarks/test_published_training_step.py). A step is
gradients, modulation and Adam, the same Adam for both; `bf16` is autocast for both. `frozen` trains the released code's
parts (adapters, last block, tokens), `full` every weight. Target `ssp` is the released code's, `ce` the paper's.

Weights are random with adapters that speak, images noise: time does not depend on them. The forms take turns within a
round; ratios are of medians and of this run. Beside other work trust `ratio_of_processor_time`. Memory: on a CPU the
most that one step adds to the resident set of a process of its own; on CUDA the allocator's peak during a step, less
what was allocated before. JSON on stdout, tables on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from benchmarks.naive_reference import NaiveMmdg
from benchmarks.published_training_step import PublishedStep, leaves
from mmdg_model.config import ModelConfig, TrainableParts
from mmdg_model.network import MMDG, build_mmdg
from mmdg_model.trainable import freeze_the_rest
from mmdg_model.training.prototypes import Prototypes
from mmdg_model.training.regrad import ReGradCases, ReGradConfig, ReGradTarget
from mmdg_model.training.ssp_loss import DomainClasses
from mmdg_model.training.step_gradients import ObjectiveConfig, StepGradients, assign_gradients, batch_gradients
from mmdg_model.uncertainty import BatchAggregation

CLASSES = DomainClasses(("C", "P", "S"))
SIZES = {"base": ModelConfig.base, "tiny": ModelConfig.tiny, "micro": ModelConfig.micro}
TRAINING = {"frozen": TrainableParts.RELEASE, "full": TrainableParts.EVERYTHING}
FORMS = ("published", "ours", "ours without ReGrad")
CERTAINTY_SAMPLES = 20


@dataclasses.dataclass(frozen=True)
class Case:
    """What both forms are asked to do."""

    size: str
    training: str
    precision: str
    target: str
    batch: int
    device: str
    compiled: bool

    @property
    def model(self) -> ModelConfig:
        return dataclasses.replace(SIZES[self.size](), trainable_parts=TRAINING[self.training])

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


def build_network(config: ModelConfig) -> MMDG:
    """Random weights; up projections are 0 in a fresh network and would stop every gradient of an adapter."""
    torch.manual_seed(0)
    network = build_mmdg(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("up.weight"):
                parameter.normal_(std=1e-2)
    return network.train()


def data(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Planes, presence, label, domain rows, prototypes."""
    config, generator = case.model, torch.Generator().manual_seed(1)
    planes = torch.randn(case.batch, 3, 3, config.image_size, config.image_size, generator=generator)
    domain = torch.arange(case.batch) % len(CLASSES.rows)
    prototypes = torch.randn(3, len(CLASSES.rows), config.width, generator=generator)
    present = torch.ones(case.batch, 3, dtype=torch.bool)
    return tuple(each.to(case.device) for each in (
        planes, present, (domain == 0).long(), domain, prototypes))


def ours(case: Case, *, regrad: bool = True) -> Callable[[], None]:
    """A step of the product's code."""
    network = build_network(case.model).to(case.device)
    trainable = freeze_the_rest(network)
    optimizer = torch.optim.Adam(trainable.values(), lr=5e-5, weight_decay=1e-3)
    planes, present, label, domain, values = data(case)
    prototypes = Prototypes(CLASSES, values, torch.ones(values.shape[:2], dtype=torch.bool, device=values.device))
    config = ObjectiveConfig(regrad=ReGradConfig(
        target=ReGradTarget(case.target), cases=ReGradCases.ALL if regrad else ReGradCases.OFF,
        aggregation=BatchAggregation.MEAN_OF_EXP))
    forward: Any = torch.compile(network) if case.compiled else network

    def step() -> None:
        with case.autocast():
            output = forward(planes, present)
        gathered = StepGradients.empty(trainable, config)
        gathered.add(batch_gradients(output, label_B=label, domain_B=domain, present_BM=present,
                                     prototypes=prototypes, trainable=trainable, config=config))
        updates, _ = gathered.update(config)
        assign_gradients(trainable, updates)
        optimizer.step()

    return step


def published(case: Case) -> Callable[[], None]:
    """A step of the published form."""
    config = case.model
    network = build_network(config)
    weights = {name: weight.to(case.device) for name, weight in network.state_dict().items()}
    copies = leaves(weights, freeze_the_rest(network))
    del network, weights
    optimizer = torch.optim.Adam([each for each in copies.values() if each.requires_grad], lr=5e-5, weight_decay=1e-3)
    naive = NaiveMmdg(copies, heads=config.heads, depth=config.depth, adapter_heads=config.adapter_heads,
                      theta=config.cdc_theta, rate=config.uncertainty_rate, dropout=config.uncertainty_dropout,
                      eps=config.layer_norm_eps, samples=CERTAINTY_SAMPLES, adapter_dropout=config.adapter_dropout)
    planes, _, label, domain, prototypes = data(case)
    form = PublishedStep(naive, prototypes, ssp_weight=ObjectiveConfig().ssp_weight, target=case.target)

    def step() -> None:
        with case.autocast():
            updates = form.gradients(planes, label, domain)
        for name, weight in copies.items():
            weight.grad = updates.get(name)
        optimizer.step()

    return step


def build(form: str, case: Case) -> Callable[[], None]:
    return published(case) if form == "published" else ours(case, regrad=form == "ours")


def milliseconds(step: Callable[[], None], device: str) -> tuple[float, float]:
    """Wall time and, on a processor, the time of all its threads together: it barely feels other work's load."""
    if device == "cuda":
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        started.record()
        step()
        ended.record()
        torch.cuda.synchronize()
        return float(started.elapsed_time(ended)), float("nan")
    began, used = time.perf_counter(), time.process_time()
    step()
    return (time.perf_counter() - began) * 1e3, (time.process_time() - used) * 1e3


def time_case(case: Case, rounds: int) -> dict[str, Any]:
    steps = {form: build(form, case) for form in FORMS}
    taken: dict[str, list[float]] = {form: [] for form in FORMS}
    used: dict[str, list[float]] = {form: [] for form in FORMS}
    memory = {}
    for form, step in steps.items():  # kernels are chosen, optimiser states made
        step()
        if case.device == "cuda":
            step()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            torch.cuda.synchronize()
            memory[form] = round((torch.cuda.max_memory_allocated() - before) / 2**20)
    for _ in range(rounds):
        for form, step in steps.items():
            wall, processor = milliseconds(step, case.device)
            taken[form].append(wall)
            used[form].append(processor)
    middle = {form: statistics.median(durations) for form, durations in taken.items()}
    return {**dataclasses.asdict(case), "rounds": rounds, "load_average": round(os.getloadavg()[0], 2),
            **{f"{form.replace(' ', '_')}_ms": round(value, 1) for form, value in middle.items()},
            "ratio": round(middle["published"] / middle["ours"], 2),
            "ratio_of_best_rounds": round(min(taken["published"]) / min(taken["ours"]), 2),
            **({"ratio_of_processor_time": round(statistics.median(used["published"])
                                                 / statistics.median(used["ours"]), 2)}
               if case.device == "cpu" else {}),
            **({f"{form.replace(' ', '_')}_peak_mib": value for form, value in memory.items()} if memory else {})}


def resident_mib(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}; memory is measured on Linux only")
    return int(found.group(1)) / 1024


def grown_mib(form: str, case: Case) -> float:
    """What one step adds to this process's resident set, at most. The first step is not counted: it makes states."""
    step = build(form, case)
    step()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident_mib("VmRSS")
    step()
    return resident_mib("VmHWM") - before


def memory_of(form: str, case: Case, threads: int) -> int:
    """`grown_mib` in a process of its own."""
    found = subprocess.run(
        [sys.executable, __file__, "--memory-of", form, json.dumps(dataclasses.asdict(case)), str(threads)],
        check=True, capture_output=True, text=True,
        # Freed memory goes back at once, so that the mark is what was needed and not what was kept for later.
        env=os.environ | {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"})
    return round(float(found.stdout))


def profile(form: str, case: Case) -> str:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    step = build(form, case)
    step()
    cuda = case.device == "cuda"
    with record(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as recorded:
        step()
        if cuda:
            torch.cuda.synchronize()
    key = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    return str(recorded.key_averages().table(sort_by=key, row_limit=12, max_name_column_width=40))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the tiny network, two rounds, no memory")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--training", nargs="+", choices=TRAINING, default=list(TRAINING))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--targets", nargs="+", choices=("ssp", "ce"), default=["ssp", "ce"])
    parser.add_argument("--profile", action="store_true", help="table of operations of one step of both forms instead")
    parser.add_argument("--compile", action="store_true", help="our forward and backward through torch.compile")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        form, case, threads = arguments.memory_of
        torch.set_num_threads(int(threads))
        print(grown_mib(form, Case(**json.loads(case))))
        return
    if arguments.quick:
        arguments.size, arguments.rounds, arguments.no_memory = "tiny", 2, True
    torch.set_num_threads(arguments.threads)

    report = []
    for training in arguments.training:
        for precision in arguments.precisions:
            for target in arguments.targets:
                case = Case(arguments.size, training, precision, target, arguments.batch, arguments.device,
                            arguments.compile)
                if arguments.profile:
                    for form in FORMS[:2]:
                        print(f"== {form}: {case}\n{profile(form, case)}", file=sys.stderr)
                    continue
                row = time_case(case, arguments.rounds)
                if case.device == "cpu" and not arguments.no_memory:
                    row |= {f"{form}_peak_mib": memory_of(form, case, arguments.threads) for form in FORMS[:2]}
                report.append(row)
                processor = f", of processor time {row['ratio_of_processor_time']:.2f}" if case.device == "cpu" else ""
                print(f"{training:6} {precision} {target:3} batch {case.batch}: published {row['published_ms']:8.1f} "
                      f"ms, ours {row['ours_ms']:8.1f} ms, ratio {row['ratio']:.2f}{processor}", file=sys.stderr,
                      flush=True)
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    print(json.dumps({"benchmark": "training", "torch": torch.__version__, "device": device,
                      "threads": arguments.threads, "rows": report}, indent=2))


if __name__ == "__main__":
    main()
